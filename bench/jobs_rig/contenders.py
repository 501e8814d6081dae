"""Who is measured: how its workers start, how its jobs get in, and how Redis tells what is left.

Nobody logs a line per job, and nobody is asked to keep a result that it would not keep by itself.
"""

import sys
from dataclasses import dataclass, field

from jobs_rig.rig import ROOT

__all__ = ["CONTENDERS", "Contender"]

THEIRS = str(ROOT / ".venv-bench/bin/python")
OURS = [sys.executable, "-m", "rqscan", "worker", "--log-level", "warning"]
RQ = [sys.executable, "-m", "rq.cli", "worker", "--quiet", "--url"]
REUSED = ["--max-jobs-per-horse", "0"]
OF_RQ = (("LLEN", "rq:queue:default"), ("ZCARD", "rq:wip:default"))


@dataclass(frozen=True, kw_only=True)
class Contender:
    """One side.

    `jobs_per_s` is what to expect, so that each run takes about as long; `processes` workers start.
    """

    name: str
    client: str
    command: list[str]
    left: tuple[tuple[str, str], ...]
    jobs_per_s: int
    size: int = 1
    processes: int = 1
    python: str = sys.executable
    env: dict[str, str] = field(default_factory=dict)
    queue_option: str | None = (
        None  # how a queue is named on the command line; None: as an argument
    )

    def commands(self, redis_url: str, queues: tuple[str, ...] = ("default",)) -> list[list[str]]:
        """Give the command of each worker process."""
        command = [redis_url if part == "REDIS" else part for part in self.command]
        option = self.queue_option
        command += [*queues] if option is None else [option, ",".join(queues)] if option else []
        return [command] * self.processes


def ours(name: str, jobs_per_s: int, size: int = 1, *more: str, client: str = "via_rqscan",
         store: str = "off") -> Contender:  # fmt: skip
    command = [*OURS, "--concurrency", str(size), *more]
    return Contender(
        name=f"{name} x{size}", client=client, command=command, left=OF_RQ,
        jobs_per_s=jobs_per_s, size=size, env={"BENCH_STORE": store},
    )  # fmt: skip


def rq(worker: str, jobs_per_s: int, size: int = 1) -> Contender:
    return Contender(
        name=f"RQ {worker} x{size}", client="via_rq", left=OF_RQ, jobs_per_s=jobs_per_s, size=size,
        command=[*RQ, "REDIS", "--worker-class", f"rq.worker.{worker}"], processes=size,
    )  # fmt: skip


def celery(name: str, jobs_per_s: int, size: int, *more: str) -> Contender:
    command = [THEIRS, "-m", "celery", "-A", "via_celery", "worker", "-c", str(size), *more]
    return Contender(
        name=f"{name} x{size}", client="via_celery", command=command, python=THEIRS,
        left=(("LLEN", "default"), ("HLEN", "unacked")), jobs_per_s=jobs_per_s, size=size,
        queue_option="-Q",
    )  # fmt: skip


def dramatiq(name: str, jobs_per_s: int, size: int, threads: int) -> Contender:
    command = [THEIRS, "-m", "dramatiq", "via_dramatiq", "-p", str(size), "-t", str(threads)]
    return Contender(
        name=f"{name} x{size}", client="via_dramatiq", command=command, python=THEIRS,
        left=(("HLEN", "dramatiq:default.msgs"),), jobs_per_s=jobs_per_s, size=size,
        queue_option="",
    )  # fmt: skip


def huey(size: int, jobs_per_s: int) -> Contender:
    command = [THEIRS, "-m", "huey.bin.huey_consumer", "via_huey.huey", "-q", "-k", "process"]
    return Contender(
        name=f"huey x{size}", client="via_huey", command=[*command, "-w", str(size)], python=THEIRS,
        left=(("LLEN", "huey.redis.default"),), jobs_per_s=jobs_per_s, size=size, queue_option="",
    )  # fmt: skip


SIZES = {1: (500, 3000), 2: (700, 5000), 4: (700, 6000), 8: (700, 6000), 16: (700, 6000)}
CONTENDERS = {
    contender.name: contender
    for contender in [
        *(ours("fresh", rate, size) for size, (rate, _) in SIZES.items()),
        *(ours("reused", rate, size, *REUSED) for size, (_, rate) in SIZES.items()),
        ours("fresh, SQLite", 150, store="on"),
        ours("plain", 150, client="via_rq_json"),
        ours("plain, ScanQueue", 150, client="via_rqscan_queue"),
        ours("plain, reused", 800, 1, *REUSED, client="via_rq_json"),
        *(rq("Worker", 120, size) for size in (1, 4)),
        *(rq("SimpleWorker", 600, size) for size in (1, 4)),
        *(celery("Celery", 1000, size) for size in (1, 4)),
        celery("Celery, 1 task a child", 8, 1, "--max-tasks-per-child", "1"),
        *(dramatiq("dramatiq", 400, size, 1) for size in (1, 4)),
        dramatiq("dramatiq, 8 threads", 1000, 1, 8),
        *(huey(size, 1500) for size in (1, 4)),
    ]
}
