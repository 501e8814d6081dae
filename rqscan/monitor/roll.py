"""Roll: the workers by their records, their beats, and whether they are still connected."""

from collections.abc import Container, Iterable, Mapping, Sequence

import msgspec
from msgspec import structs

from rqscan.broker import keys
from rqscan.fleet.presence import Presence
from rqscan.fleet.reports import JobReport
from rqscan.monitor.records import Worker
from rqscan.settings import WorkerSettings
from rqscan.states import WorkerState

__all__ = ["Roll", "once", "worker"]

LATE = {WorkerState.STALE, WorkerState.LOST}

OVERDUE = 1.5
"""A worker is stale once its beat is that many heartbeats old."""

_DECODER = msgspec.json.Decoder(Presence)


class Roll:
    """Calls the roll again and again: a record that has not changed is not decoded again.

    Args:
        here: what workers here are set to.
    """

    def __init__(self, here: WorkerSettings) -> None:
        self._here = here
        self._known: dict[bytes, Presence | None] = {}

    def call(
        self,
        ages: Mapping[str, float],
        raws: Iterable[bytes | None],
        channels: Container[str] | None,
        *,
        is_recovering: bool,
    ) -> list[Worker]:
        """Give the workers.

        Args:
            ages: of the last beat of each (s).
            raws: the record of each.
            channels: those that anybody hears; None: Redis would not tell.
            is_recovering: Redis was away of late, so that a lost connection proves nothing.
        """
        before, self._known, found = self._known, {}, []
        # Nobody beats: it is Redis that was away, or all are lost with their leases.
        is_quiet = min(ages.values(), default=0.0) > self._here.heartbeat_s * OVERDUE
        for (name, age_s), raw in zip(ages.items(), raws, strict=True):
            key = raw or b""
            record = before[key] if key in before else _record(key)
            self._known[key] = record
            is_connected = None if channels is None else keys.commands_of(name) in channels
            is_cut = is_connected is False and not (is_recovering or is_quiet)
            found.append(_worker(name, age_s, record, self._here, is_connected, is_cut=is_cut))
        return once(found)


def worker(name: str, age_s: float, raw: bytes | None, here: WorkerSettings) -> Worker:
    """Give a worker by its record, the age of its last beat, and what workers here are set to."""
    return _worker(name, age_s, _record(raw or b""), here, None, is_cut=False)


def _record(raw: bytes) -> Presence | None:
    try:
        return _DECODER.decode(raw)
    except msgspec.MsgspecError:  # gone, or written by another version
        return None


def _worker(
    name: str,
    age_s: float,
    record: Presence | None,
    here: WorkerSettings,
    is_connected: bool | None,  # noqa: FBT001 - a figure as the others
    *,
    is_cut: bool,
) -> Worker:
    lease_s = record.lease_s if record else here.lease_s
    is_overdue = age_s > here.heartbeat_s * OVERDUE
    late = None
    if age_s > lease_s or is_overdue:
        late = WorkerState.LOST if age_s > lease_s or is_cut else WorkerState.STALE
    if record is None:
        state = late or WorkerState.MISMATCHED
        return Worker(name=name, state=state, heartbeat_age_s=age_s, is_connected=is_connected)
    jobs = [
        JobReport(
            id=job.id, kind=job.kind, limit_s=job.limit_s, progress=job.progress,
            age_s=round(job.age_s + age_s, 3),
        )
        for job in record.jobs
    ]  # fmt: skip
    oldest = max(jobs, key=lambda job: job.age_s) if jobs else None
    return Worker(
        name=name,
        host=record.host,
        pid=record.pid,
        concurrency=record.concurrency,
        state=late or record.state,
        heartbeat_age_s=age_s,
        is_connected=is_connected,
        queues=record.queues,
        job=oldest.id if oldest else None,
        job_age_s=oldest.age_s if oldest else None,
        jobs=jobs,
        versions=record.versions,
        mismatch=record.mismatch,
        clock_offset_s=record.clock_offset_s,
        utc_offset_s=record.utc_offset_s,
        holds=record.holds,
        spool_rows=record.spool_rows,
        spool=record.spool,
        rss_bytes=record.rss_bytes,
        done=record.done,
        failed=record.failed,
    )


def once(workers: Sequence[Worker]) -> list[Worker]:
    """Leave each job to the worker that has it now: the last record of a lost one names it too."""
    late = [one for one in workers if one.state in LATE and one.jobs]
    if not late:
        return list(workers)
    here = {job.id for one in workers if one.state not in LATE for job in one.jobs}
    return [
        _left(one, [job for job in one.jobs if job.id not in here])
        if one.jobs and one.state in LATE
        else one
        for one in workers
    ]


def _left(one: Worker, jobs: list[JobReport]) -> Worker:
    oldest = max(jobs, key=lambda job: job.age_s, default=None)
    return structs.replace(
        one,
        jobs=jobs,
        job=oldest.id if oldest else None,
        job_age_s=oldest.age_s if oldest else None,
    )
