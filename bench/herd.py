"""Idle workers and a burst: how many requests a job costs with 3, 30 and 300 workers on one Redis.

The workers are simulated in this one process: presence, claims and ends by the scripts of real
ones, and for each worker a socket of its own that blocks on the queue's bell. What a job does takes
no time. First jobs come one by one to an idle fleet, then all at once.
"""

import selectors
import shutil
import socket
import sys
import tempfile
import time
from pathlib import Path

import hiredis

from rqscan.broker import keys
from rqscan.broker.queues import ScanQueue
from rqscan.model import Chunk
from rqscan.settings import QueueSettings
from tests.scripted import ScriptedWorker
from tests.servers import RedisServer

FLEETS, SINGLES, BURST = (3, 30, 300), 200, 10_000
QUEUE = "wakaka"
BEAT_S, LONGEST_S = 3, 300
REQUESTS = ("eval", "evalsha", "blpop")


class Idler:
    """A worker that waits on the bells with its own connection."""

    def __init__(self, server: RedisServer, client, number: int) -> None:
        self.script = ScriptedWorker(client, f"w{number}", QUEUE)
        self.beat()
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(str(server.socket))
        self._reader = hiredis.Reader()
        self.is_claiming = False
        self.wait()

    def beat(self) -> None:
        self.script.beat()
        self.next_beat = time.monotonic() + BEAT_S

    def wait(self) -> None:
        self.is_claiming = False
        self.sock.send(hiredis.pack_command(("BLPOP", keys.bell(QUEUE), 300)))

    def on_bell(self) -> None:
        self._reader.feed(self.sock.recv(4096))
        self.is_claiming = self._reader.gets() is not False

    def turn(self) -> int:
        """Claim one job and end it; with none there wait for a bell. Gives the jobs done."""
        jobs = self.script.claim(1)
        for job in jobs:
            self.script.end(job, "finished")
        if not jobs:
            self.wait()
        return len(jobs)


class Fleet:
    """All idlers of one Redis, in one loop that lets them take turns."""

    def __init__(self, server: RedisServer, client, size: int) -> None:
        self.beats = 0
        self._selector = selectors.DefaultSelector()
        self.idlers = [Idler(server, client, number) for number in range(size)]
        for idler in self.idlers:
            self._selector.register(idler.sock, selectors.EVENT_READ, idler)
        self.drain(0)  # all look once, as workers do at their start

    def drain(self, jobs: int) -> int:
        """Run until so many jobs are done and nobody is awake; gives how often one woke."""
        woken, until = 0, time.monotonic() + LONGEST_S
        while jobs > 0 or any(idler.is_claiming for idler in self.idlers):
            if time.monotonic() > until:
                sys.exit(f"herd: {jobs} jobs were left after {LONGEST_S} s: a bell was lost")
            for key, _ in self._selector.select(0):
                key.data.on_bell()
                woken += 1
            for idler in self.idlers:
                if idler.next_beat < time.monotonic():
                    idler.beat()
                    self.beats += 1
            jobs -= sum(idler.turn() for idler in self.idlers if idler.is_claiming)
        return woken

    def close(self) -> None:
        for idler in self.idlers:
            idler.sock.close()
        self._selector.close()


def requests(client, fleet: Fleet) -> int:
    """Count what workers have asked for, without their beats."""
    stats = client.info("commandstats")
    return (
        sum(stats.get(f"cmdstat_{name}", {"calls": 0})["calls"] for name in REQUESTS) - fleet.beats
    )


def chunks(scan: str, count: int) -> list[Chunk]:
    return [
        Chunk(scan_id=scan, chunk=n, kind="nap", targets=["127.0.0.1"], params={})
        for n in range(count)
    ]


def measure(size: int) -> tuple[float, float, float, float]:
    """Give requests a job one by one, workers woken a job, requests a job in a burst, jobs/s."""
    folder = Path(tempfile.mkdtemp(prefix="rq-herd-", dir="/tmp"))
    server = RedisServer(folder, None, "--appendonly", "no", "--maxclients", "2000").start()
    client = server.client()
    try:
        fleet = Fleet(server, client, size)
        queue = ScanQueue(QUEUE, connection=client)
        before, woken = requests(client, fleet), 0
        for number in range(SINGLES):
            list(queue.enqueue_chunks(chunks(f"single{number}", 1), QueueSettings()))
            woken += fleet.drain(1)
        one_by_one = (requests(client, fleet) - before) / SINGLES - 1  # without putting it there
        list(queue.enqueue_chunks(chunks("burst", BURST), QueueSettings()))
        before, began = requests(client, fleet), time.monotonic()
        fleet.drain(BURST)
        burst_s = time.monotonic() - began
        in_burst = (requests(client, fleet) - before) / BURST
        fleet.close()
        return one_by_one, woken / SINGLES, in_burst, BURST / burst_s
    finally:
        server.close()
        shutil.rmtree(folder)


def main() -> None:
    print(f"{'workers':>8}{'one by one:':>14}{'':>10}{'burst of ' + str(BURST):>18}")
    print(f"{'':>8}{'requests/job':>14}{'woken/job':>10}{'requests/job':>18}{'jobs/s':>9}")
    for size in FLEETS:
        single, woken, burst, rate = measure(size)
        print(f"{size:>8}{single:>14.2f}{woken:>10.2f}{burst:>18.2f}{rate:>9.0f}")


if __name__ == "__main__":
    main()
