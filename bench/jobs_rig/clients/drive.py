"""A client of one contender, in its own process: `drive.py MODULE fill N` or `… latency N GAP_S`.

A module has `fill(n)`, which enqueues n jobs that do nothing, and `stamp(number)`, which enqueues
one job that calls `plain.stamp`. Latencies are printed as a JSON list, in seconds.
"""

import importlib
import json
import os
import socket
import sys
import time

import plain

WARM_UP = 3
ANSWER_S = 15


def latencies(stamp, count: int, gap_s: float) -> list[float]:
    """Measure from before the enqueue to the job's first line, one at a time."""
    found = []
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
        sock.bind(os.environ["BENCH_STAMP"])
        sock.settimeout(ANSWER_S)
        for number in range(count + WARM_UP):
            time.sleep(gap_s)
            began = time.monotonic()
            stamp(number)
            (started,) = plain.INSTANT.unpack(sock.recv(plain.INSTANT.size))
            found.append(started - began)
    return found[WARM_UP:]


if __name__ == "__main__":
    module = importlib.import_module(sys.argv[1])
    if sys.argv[2] == "fill":
        module.fill(int(sys.argv[3]))
    else:
        print(json.dumps(latencies(module.stamp, int(sys.argv[3]), float(sys.argv[4]))))
