"""Who is measured: how a scheduler starts, and whose runs are in the queue that it fills."""

import base64
import json
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from jobs_rig import rig

from rqscan.broker import keys
from rqscan.broker.payload import chunk_of

__all__ = ["CONTENDERS", "OURS", "Contender", "run_of"]

CLIENTS = Path(__file__).resolve().parent / "clients"
THEIRS = str(rig.ROOT / ".venv-bench/bin/python")
OURS = "rqscan"


@dataclass(frozen=True, kw_only=True)
class Contender:
    """One scheduler; `entry_of` tells by its number whose run a piece of the queue is.

    `cycle_s` is how often it does what costs the more, the more entries there are.
    """

    command: list[str]
    entry_of: Callable[[Any, bytes], int]
    cycle_s: int = 0
    env: dict[str, str] = field(default_factory=dict)


def run_of(job_id: bytes) -> tuple[int, float]:
    """Give entry and due time of a run of ours."""
    found = chunk_of(job_id.decode())
    assert found
    name, _, due = found[0].rpartition("-")
    return int(name[1:]), datetime.strptime(due, "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC).timestamp()


def _of_id(_client: Any, job_id: bytes) -> int:
    return int(job_id[1:])


def _of_description(client: Any, job_id: bytes) -> int:
    described: bytes = client.hget(keys.job(job_id.decode()), "description")
    return int(described.decode().rpartition("(")[2].rstrip(")"))


def _of_message(_client: Any, message: bytes) -> int:
    number: int = json.loads(base64.b64decode(json.loads(message)["body"]))[0][0]
    return number


def _rq_scheduler(interval_s: str) -> Contender:
    command = [sys.executable, str(CLIENTS / "by_rq_scheduler.py")]
    return Contender(command=command, entry_of=_of_id, env={"BENCH_INTERVAL_S": interval_s})


BEAT = ["celery", "-A", "by_celery", "beat", "-s", "beat", "--pidfile", "", "-l", "warning"]
CONTENDERS = {
    OURS: Contender(
        command=[sys.executable, "-m", "rqscan", "scheduler", "--log-level", "warning"],
        entry_of=lambda _, job_id: run_of(job_id)[0],
        cycle_s=30,  # it reads its journal
    ),
    "rq-scheduler, 1 s": _rq_scheduler("1"),
    "rq-scheduler, 0.1 s": _rq_scheduler("0.1"),
    "RQ CronScheduler": Contender(
        command=[sys.executable, str(CLIENTS / "by_rq_cron.py")], entry_of=_of_description
    ),
    "Celery beat": Contender(command=[THEIRS, "-m", *BEAT], entry_of=_of_message),
}
