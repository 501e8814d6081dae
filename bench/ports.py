"""Kind `ports` beside nmap: all 65,535 TCP ports of 127.0.0.1, 40 of them open.

Rounds are interleaved on one machine; the ratio is nmap's time over ours, round by round. Only
loopback gets a packet.
"""

import contextlib
import re
import shutil
import socket
import statistics
import subprocess
import sys
import time

ROUNDS = 5
OURS = """
from jobs.ports import PortsParams, ports
from rqscan.model import COVERAGE
from rqscan.scan.kinds import Run
run = Run(may_dial=lambda address: address == "127.0.0.1", advance=lambda probes: None)
rows = ports(["127.0.0.1"], PortsParams(ports="-"), run)
print(*sorted(row.port for row in rows if row.state != COVERAGE))
"""
NMAP = ["nmap", "-sT", "-T4", "-n", "-Pn", "-p-", "-oG", "-", "127.0.0.1"]


def timed(command: list[str], read) -> tuple[float, set[int]]:
    began = time.monotonic()
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=300)
    return time.monotonic() - began, read(done.stdout)


def main() -> None:
    if not shutil.which("nmap"):
        sys.exit("bench: nmap is not installed; install it with: apt-get install nmap")
    with contextlib.ExitStack() as stack:
        opened = set()
        for _ in range(40):
            sock = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=128))
            opened.add(sock.getsockname()[1])
        rounds = []
        for _ in range(ROUNDS):
            ours = timed([sys.executable, "-c", OURS], lambda text: {int(p) for p in text.split()})
            nmap = timed(NMAP, lambda text: {int(p) for p in re.findall(r"(\d+)/open/", text)})
            rounds.append((ours[0], nmap[0], len(opened - ours[1]), len(opened - nmap[1])))
    print("round  rqscan s  nmap s  nmap/rqscan  missed by rqscan, nmap (of 40)")
    for number, (ours_s, nmap_s, ours_missed, nmap_missed) in enumerate(rounds, 1):
        print(
            f"{number:5}  {ours_s:8.2f}  {nmap_s:6.2f}  {nmap_s / ours_s:11.2f}  "
            f"{ours_missed}, {nmap_missed}"
        )
    print(f"median ratio {statistics.median(n / o for o, n, *_ in rounds):.2f}")


if __name__ == "__main__":
    main()
