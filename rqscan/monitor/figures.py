"""Figures: Redis' answers → the records of a snapshot. What cannot be read is a missing figure."""

import hashlib
import json
import re
import zlib
from datetime import UTC, datetime
from typing import Any

import msgspec
from msgspec import structs

from rqscan import clock
from rqscan.config import WorkerSettings
from rqscan.fleet.presence import Presence
from rqscan.model import Counts, Progress
from rqscan.monitor.records import Failure, Queue, Schedule, Task, Worker
from rqscan.states import WorkerState

__all__ = [
    "Answers",
    "counters",
    "failures",
    "leader",
    "queue",
    "scan",
    "schedule",
    "text",
    "worker",
]

Answers = dict[Any, Any]
"""Answers by the name of what was asked; None for what was refused."""

OVERDUE = 1.5
"""A worker is stale once its beat is that many heartbeats old."""

MAX_TRACEBACK_BYTES = 1_000_000

FOLDS = (
    (re.compile(r"\b\d+(\.\d+){3}\b|\b[0-9a-fA-F]{1,4}(:[0-9a-fA-F]{0,4}){2,7}"), "<ip>"),
    (re.compile(r"\b(0x[0-9a-fA-F]+|(?=[a-f]*\d)[0-9a-f]{8,})\b"), "<hex>"),
    (re.compile(r"\d+"), "<n>"),
)


def queue(name: str, at: float, answers: Answers, workers: list[Worker]) -> Queue:
    """Give a queue's figures; `at` is the time of the answers, in Unix seconds."""
    since = _iso(answers.get(("since", name)))
    buckets = [answer or {} for key, answer in answers.items() if key[0] == "stat"]

    def per_s(way: str) -> float:
        field = f"{name}:{way}".encode()
        return round(sum(_number(bucket.get(field)) or 0 for bucket in buckets) / 60, 3)

    return Queue(
        name=name,
        depth=answers["depth", name],
        oldest_s=max(0.0, round(at - since.timestamp(), 3)) if since else None,
        running=answers["running", name],
        in_per_s=per_s("in"),
        out_per_s=per_s("out"),
        failed=answers["failed", name],
        failed_1h=answers["failed_1h", name],
        paused=bool(answers["suspended"]),
        workers=sum(name in worker.queues and worker.state != "lost" for worker in workers),
    )


def worker(name: str, age_s: float, raw: bytes | None, here: WorkerSettings) -> Worker:
    """Give a worker by its record, the age of its last beat, and what workers here are set to."""
    try:
        record = msgspec.json.decode(raw or b"", type=Presence)
    except msgspec.MsgspecError:
        record = None  # gone, or written by another version
    state = record.state if record else WorkerState.MISMATCHED
    if age_s > (record.lease_s if record else here.lease_s):
        state = WorkerState.LOST
    elif age_s > here.heartbeat_s * OVERDUE:
        state = WorkerState.STALE
    age_s = round(age_s, 3)
    if record is None:
        return Worker(name=name, state=state, heartbeat_age_s=age_s)
    jobs = [structs.replace(job, age_s=round(job.age_s + age_s, 3)) for job in record.jobs]
    oldest = max(jobs, key=lambda job: job.age_s, default=None)
    same = {f: getattr(record, f) for f in Worker.__struct_fields__ if hasattr(record, f)}
    return Worker(
        **same | {"name": name, "state": state, "jobs": jobs},
        heartbeat_age_s=age_s,
        job=oldest.id if oldest else None,
        job_age_s=oldest.age_s if oldest else None,
    )


def failures(answers: Answers) -> list[Failure]:
    """Group the failed jobs, the newest group first."""
    groups: dict[tuple[str, str], list[tuple[datetime | None, str, str]]] = {}
    for key, fields in answers.items():
        if key[0] == "job" and fields:
            ended_at, worker, traceback = fields
            member = _iso(ended_at), text(worker), text(key[2])
            groups.setdefault((key[1], _error(traceback)), []).append(member)
    found = [
        Failure(
            group=hashlib.blake2s(f"{queue}\n{error}".encode(), digest_size=4).hexdigest(),
            error=error,
            count=len(members),
            last_at=max((at for at, _, _ in members if at), default=None),
            queue=queue,
            workers=sorted({worker for _, worker, _ in members if worker}),
            jobs=[job for _, _, job in members],
        )
        for (queue, error), members in groups.items()
    ]
    return sorted(
        found, key=lambda one: one.last_at.timestamp() if one.last_at else 0, reverse=True
    )


def _error(traceback: bytes | None) -> str:
    """Give the last line of a traceback with numbers and addresses folded."""
    try:
        raw = zlib.decompressobj().decompress(traceback or b"", MAX_TRACEBACK_BYTES)
    except zlib.error:
        raw = traceback or b""  # RQ reads plain ones too
    lines = text(raw).strip().splitlines() or ["(no error was kept)"]
    error = lines[-1][:300]
    for pattern, word in FOLDS:
        error = pattern.sub(word, error)
    return error


def schedule(name: bytes, due: float | None, fields: dict[bytes, bytes] | None) -> Schedule:
    """Give an entry by its next due time and the hash of its last run."""
    run = fields or {}
    return Schedule(
        name=text(name),
        next_at=_moment(due),
        last_at=_iso(run.get(b"last_at")),
        lateness_s=_number(run.get(b"lateness_s")),
        paused=run.get(b"paused") == b"1",
        state=text(run.get(b"state")) or None,
    )


def scan(name: bytes, at: float, fields: dict[bytes, bytes] | None) -> Task:
    """Give a scan by its counts; the rest is taken to go as fast as what has ended."""
    run = fields or {}
    total, done, failed = (int(_number(run.get(k)) or 0) for k in (b"total", b"done", b"failed"))
    began, ended = _iso(run.get(b"started_at")), done + failed
    progress = Progress(scan_id=text(name), chunks=Counts(total, done, failed), started_at=began)
    eta_s = (at - began.timestamp()) / ended * (total - ended) if began and ended else None
    return Task(
        scan_id=progress.scan_id,
        state=progress.state,
        chunks=progress.chunks,
        eta_s=None if eta_s is None else round(eta_s, 1),
    )


def leader(value: bytes | None) -> str | None:
    """Give the name of the scheduler that leads."""
    try:
        return str(json.loads(value)["name"]) if value else None
    except (ValueError, TypeError, LookupError):
        return text(value)


def counters(fields: dict[bytes, bytes] | None) -> dict[str, int]:
    """Give the fleet's totals, 0 for what has never happened."""
    names = ("rescued", "lost", "refused", "fenced")
    return {name: int(_number((fields or {}).get(name.encode())) or 0) for name in names}


def text(value: bytes | None) -> str:
    """Decode what anybody may have written."""
    return (value or b"").decode(errors="replace")


def _number(value: bytes | None) -> float | None:
    try:
        return float(value) if value else None
    except ValueError:
        return None


def _moment(seconds: float | None) -> datetime | None:
    try:
        return None if seconds is None else datetime.fromtimestamp(seconds, UTC)
    except (ValueError, OverflowError):  # "inf" is a score too
        return None


def _iso(value: bytes | None) -> datetime | None:
    try:
        return clock.from_iso(text(value))
    except ValueError:
        return None
