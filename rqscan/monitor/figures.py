"""Figures: Redis' answers → the records of a snapshot.

Anybody may write to Redis: `read` is where that is expected, so nothing above it need be.
"""

import hashlib
import re
import zlib
from collections import Counter
from collections.abc import Container, Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any

import msgspec
from msgspec import structs

from rqscan.fleet.presence import Presence
from rqscan.fleet.reports import JobReport
from rqscan.model import Counts, Progress
from rqscan.monitor.records import Failure, Moment, Queue, Schedule, Task, Worker
from rqscan.settings import WorkerSettings
from rqscan.states import WorkerState

__all__ = [
    "MAX_TRACEBACK_BYTES", "error_of", "failures", "once", "queues", "read", "scan", "schedule",
    "worker",
]  # fmt: skip

LATE = {WorkerState.STALE, WorkerState.LOST}

OVERDUE = 1.5
"""A worker is stale once its beat is that many heartbeats old."""

MAX_TRACEBACK_BYTES = 1_000_000

FOLDS = {
    r"\b\d+(\.\d+){3}\b|\b[0-9a-fA-F]{1,4}(:[0-9a-fA-F]{0,4}){2,7}": "<ip>",
    r"\b(0x[0-9a-fA-F]+|(?=[a-f]*\d)[0-9a-f]{8,})\b": "<hex>",
    r"\d+": "<n>",
}


def read(kind: Any, value: Any, default: Any = None, *, is_json: bool = False) -> Any:
    """Give what Redis holds as `kind`, and the default for what none of us has written."""
    try:
        if is_json:
            return msgspec.json.decode(value or "", type=kind)
        return msgspec.convert(value, kind, strict=False)
    except msgspec.MsgspecError:
        return default


def queues(
    said: Mapping[str, dict[str, Any]],
    oldest: Mapping[str, str | None],
    stats: Iterable[dict[str, str] | None],
    workers: list[Worker],
    at: float,
    *,
    paused: Container[str],
) -> list[Queue]:
    """Give the queues by what each is said to hold and what was counted in the last minute."""
    counts: Counter[str] = Counter()
    for bucket in stats:
        counts.update(read(dict[str, int], bucket, {}))
    living = Counter(name for one in workers if one.state != "lost" for name in one.queues)
    found = []
    for name, fields in said.items():
        since = read(Moment, oldest.get(name))
        more = {
            "name": name,
            "oldest_s": max(0.0, round(at - since.timestamp(), 3)) if since else None,
            "in_per_s": round(counts[f"{name}:in"] / 60, 3),
            "out_per_s": round(counts[f"{name}:out"] / 60, 3),
            "paused": name in paused,
            "workers": living[name],
        }
        found.append(msgspec.convert(fields | more, Queue))
    return found


def worker(name: str, age_s: float, raw: str | None, here: WorkerSettings) -> Worker:
    """Give a worker by its record, the age of its last beat, and what workers here are set to."""
    record = read(Presence, raw, is_json=True)
    if record is None:  # gone, or written by another version
        one, lease_s = Worker(name=name), here.lease_s
    else:
        one, lease_s = msgspec.convert(record, Worker, from_attributes=True), record.lease_s
    late = "lost" if age_s > lease_s else "stale" if age_s > here.heartbeat_s * OVERDUE else None
    jobs = [structs.replace(job, age_s=round(job.age_s + age_s, 3)) for job in one.jobs]
    seen = structs.replace(one, name=name, state=late or one.state, heartbeat_age_s=age_s)
    return _running(seen, jobs)


def once(workers: Sequence[Worker]) -> list[Worker]:
    """Leave each job to the worker that has it now: the last record of a lost one names it too."""
    here = {job.id for one in workers if one.state not in LATE for job in one.jobs}
    return [
        _running(one, [job for job in one.jobs if job.id not in here]) if one.state in LATE else one
        for one in workers
    ]


def _running(one: Worker, jobs: list[JobReport]) -> Worker:
    oldest = max(jobs, key=lambda job: job.age_s, default=None)
    return structs.replace(
        one,
        jobs=jobs,
        job=oldest.id if oldest else None,
        job_age_s=oldest.age_s if oldest else None,
    )


def failures(newest: Mapping[str, Mapping[str, Sequence[bytes | None] | None]]) -> list[Failure]:
    """Group each queue's failed jobs, the newest first: end, worker and traceback by their id."""
    groups: dict[tuple[str, str], list[tuple[str, Any, str]]] = {}
    for queue, jobs in newest.items():
        for job, fields in jobs.items():
            ended, name, traceback = fields or (None, None, None)
            member = job, read(Moment, _text(ended)), _text(name)
            groups.setdefault((queue, error_of(traceback or b"")), []).append(member)
    found = [
        Failure(
            group=hashlib.blake2s(f"{queue}\n{error}".encode(), digest_size=4).hexdigest(),
            error=error,
            count=len(members),
            last_at=members[0][1],
            queue=queue,
            workers=sorted({name for _, _, name in members if name}),
            jobs=[job for job, _, _ in members],
        )
        for (queue, error), members in groups.items()
    ]
    return sorted(found, key=lambda one: str(one.last_at or ""), reverse=True)


def error_of(traceback: bytes) -> str:
    """Give the last line of a traceback with numbers and addresses folded."""
    with suppress(zlib.error):  # RQ reads plain ones too
        traceback = zlib.decompressobj().decompress(traceback, MAX_TRACEBACK_BYTES)
    error = (_text(traceback).strip().splitlines() or ["(no error was kept)"])[-1][:300]
    for pattern, word in FOLDS.items():
        error = re.sub(pattern, word, error)
    return error


def _text(raw: bytes | None) -> str:
    return (raw or b"").decode(errors="replace")


def scan(scan_id: str, at: float, fields: dict[str, str]) -> Task:
    """Give a scan by its counts; the rest is taken to go as fast as what has ended."""
    counts, began = read(Counts, fields, Counts(0)), read(Moment, fields.get("started_at"))
    ended = counts.done + counts.failed + counts.cancelled
    eta_s = None
    if began and ended:
        eta_s = round((at - began.timestamp()) / ended * (counts.total - ended), 1)
    state = Progress(scan_id=scan_id, chunks=counts, started_at=began).state
    return Task(scan_id=scan_id, state=state, chunks=counts, eta_s=eta_s)


def schedule(name: str, fire_at: float, fields: Mapping[str, str | None]) -> Schedule:
    """Give an entry by when it is to be fired, in Unix seconds, and by what Redis holds of it."""
    next_at = read(Moment, fire_at)  # none if it is infinite
    said = {field: value for field, value in fields.items() if value}
    if said.get("outcome") == "waiting" and said.get("state") != "invalid":
        said["state"] = "waiting"
    bare = Schedule(name=name, next_at=next_at)
    found: Schedule = read(Schedule, said | {"name": name, "next_at": next_at}, bare)
    return found
