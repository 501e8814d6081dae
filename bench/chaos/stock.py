"""Stock RQ in a chaos run: `rq worker`, plain functions, JSON, and retries as a careful user asks.

A worker runs one job at a time, so there are twice as many; a supervisor starts again who ended.
"""

import os
import random
import secrets
import sys
import time
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import psutil
import redis
from rq import Queue, Retry
from rq.job import Job
from rq.serializers import JSONSerializer

from bench.chaos.fleet import Host, title
from bench.chaos.verdict import Tally

__all__ = ["CAPACITY", "QUEUES", "UP", "Enqueuer", "command", "count", "horses", "nap", "set_up"]

ROOT = Path(__file__).resolve().parents[2]
QUEUES = ["red", "green", "blue"]
UP = "Listening on"  # what a worker logs
CAPACITY = 1
KEPT_S = 7 * 86_400
RETRIES = 100


def set_up(folder: Path) -> dict[str, str]:
    """Make the files that stand for a store: what was planned, and each effect."""
    (folder / "planned").touch()
    (folder / "effects").touch()
    kept = {name: value for name, value in os.environ.items() if not name.startswith("RQSCAN_")}
    return kept | {"PYTHONPATH": str(ROOT)}


def command(host: Host) -> list[str]:
    """Give what starts a worker; its times are shorter than RQ's own (420, 30 and 600 s)."""
    queues = QUEUES[host.slot % 3 :] + QUEUES[: host.slot % 3]
    return [
        sys.executable, str(Path(sys.executable).with_name("rq")), "worker", *queues,
        "--url", host.url, "--name", host.name, "--serializer", "rq.serializers.JSONSerializer",
        "--worker-ttl", "30", "--job-monitoring-interval", "5", "--maintenance-interval", "10",
    ]  # fmt: skip


def horses(host: Host) -> list[tuple[psutil.Process, str]]:
    """Give a worker's work-horse; it does not tell its job."""
    return [(process, "") for process in host.tree()[1:] if "Processing" in title(process)]


def nap(folder: str, job: str) -> None:
    """Sleep as kind `nap` does, and have an effect that shows if it is there twice."""
    time.sleep(min(random.SystemRandom().expovariate(1 / 0.6), 9))
    with (Path(folder) / "effects").open("a") as file:
        file.write(f"{job}\n")


class Enqueuer:
    """Enqueues `nap`, each job once as far as an answer tells."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._client = redis.Redis.from_url(os.environ["RQSCAN_REDIS_URL"], socket_timeout=5)

    def ask(self, queue: str, count: int) -> tuple[Queue, list[str]]:
        batch = secrets.token_hex(4)
        jobs = [f"{batch}-{number}" for number in range(count)]
        with (self._folder / "planned").open("a") as file:
            file.writelines(f"{job}\n" for job in jobs)
        return Queue(queue, connection=self._client, serializer=JSONSerializer), jobs

    def put(self, asked: tuple[Queue, list[str]]) -> None:
        queue, jobs = asked
        while jobs:
            if not Job.exists(jobs[0], connection=self._client):
                queue.enqueue_call(
                    "bench.chaos.stock.nap", (str(self._folder), jobs[0]), job_id=jobs[0],
                    timeout=60, result_ttl=KEPT_S, failure_ttl=KEPT_S, retry=Retry(max=RETRIES),
                )  # fmt: skip
            del jobs[0]

    def waiting(self, queues: Iterable[str]) -> int:
        return sum(self._client.llen(queue) for queue in queues)


def count(folder: Path, client: redis.Redis, alive: set[str], _store: None) -> Tally:
    """Hold what was planned against Redis and the effects."""
    jobs = (folder / "planned").read_text().split()
    effects = Counter((folder / "effects").read_text().split())
    tally = Tally(planned=len(jobs))
    for job, record in zip(jobs, tally.read(client, jobs, QUEUES, alive), strict=True):
        about = f"{job}: {effects[job]} effects, Redis {record}"
        if record.status == "finished" and effects[job]:
            tally.finished += 1
        elif record.status == "failed":
            tally.failed.append(f"{job}: failed by RQ")
        elif record.is_open:
            tally.open.append(about)
        else:
            tally.lost.append(about)
        if effects[job] > 1:
            tally.doubled.append(about)
        tally.see(about, record)
    return tally
