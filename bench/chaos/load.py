"""The load: a process of its own that keeps some work waiting until it is told to stop.

`python -m bench.chaos.load ours|stock FOLDER SEED ENOUGH`; SIGTERM lets it end what it has begun.
"""

import random
import signal
import sys
import time
from pathlib import Path

import redis

from bench.chaos import ours, stock
from rqscan.broker import keys
from rqscan.errors import RqscanError


def main(system: str, folder: Path, seed: int, enough: int) -> None:
    """Enqueue until SIGTERM; while more than `enough` jobs wait, no more come."""
    is_stopping = False

    def stop(*_: object) -> None:
        nonlocal is_stopping
        is_stopping = True

    signal.signal(signal.SIGTERM, stop)
    enqueuer = {"ours": ours.Enqueuer, "stock": stock.Enqueuer}[system](folder)
    dice = random.Random(seed)
    while not is_stopping:
        queue, count = dice.choice(ours.QUEUES), dice.randint(1, 30)
        asked = enqueuer.ask(queue, count)
        while True:  # one that fails half way is submitted again until it has gone through
            try:
                enqueuer.put(asked)
                while not is_stopping and enqueuer.waiting(map(keys.queue, ours.QUEUES)) > enough:
                    time.sleep(0.1)
                break
            except (redis.RedisError, RqscanError) as e:
                print(f"load: {e}", file=sys.stderr, flush=True)
                time.sleep(0.2)
        time.sleep(dice.choice([0, 0.2, 2]))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4]))
