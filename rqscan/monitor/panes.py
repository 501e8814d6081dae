"""Panes: a snapshot → what each part of the screen says, as cells and ranks, before any fitting.

A pane is a table. Its columns have the rank at which they are dropped where the screen is narrow;
the first column is never dropped, and the last takes what is left.
"""

from datetime import datetime
from typing import NamedTuple

from rqscan.monitor.records import Snapshot, Task, Worker

__all__ = ["Pane", "panes", "totals"]

ORDER = ("lost", "mismatched", "stale", "stopping", "busy")
"""Worker states in the order of rows; the others follow."""


class Pane(NamedTuple):
    """A table: the rank of each column by its title; None stands for an unknown figure."""

    columns: dict[str, int]
    rows: list[list[str | int | None]]


def totals(shot: Snapshot) -> tuple[dict[str, object], dict[str, object]]:
    """Give the sums over all queues, and the figures of the fleet, by their names."""
    queues, states = shot.queues, [worker.state for worker in shot.workers]
    jobs = {
        "WAIT": sum(queue.depth or 0 for queue in queues),
        "RUN": sum(queue.running or 0 for queue in queues),
        "FAIL": sum(queue.failed or 0 for queue in queues),
        "+1h": sum(queue.failed_1h or 0 for queue in queues),
        "IN/s": f"{sum(queue.in_per_s for queue in queues):.1f}",
        "OUT/s": f"{sum(queue.out_per_s for queue in queues):.1f}",
        "OLDEST": _age(max((queue.oldest_s or 0 for queue in queues), default=0) or None),
    }
    fleet: dict[str, object] = {"WORKERS": len(states)}
    fleet |= {state: states.count(state) for state in states}
    fleet |= {"LEADER": shot.leader or "none"}
    fleet |= {name.upper(): count for name, count in shot.counters.items()}
    return jobs, fleet


def panes(shot: Snapshot, skip: int, *, is_ascii: bool) -> list[Pane]:
    """Give all panes from top to bottom; `skip` workers are left out."""
    workers = sorted(shot.workers, key=_rank)
    workers = workers[min(skip, max(0, len(workers) - 1)) :]
    queues = {"QUEUE": 0, "WAIT": 1, "OLDEST": 4, "IN/s": 6, "OUT/s": 7, "RUN": 3, "FAIL": 5}
    queues |= {"+1h": 8, "WORKERS": 9, "STATE": 2}
    fleet = {"WORKER": 0, "STATE": 1, "RUN": 3, "LIMIT": 8, "BEAT": 2, "CLOCK": 7, "OK": 5}
    fleet |= {"FAIL": 6, "MB": 9, "QUEUES": 10, "JOB": 4}
    failed = {"FAILED": 0, "N": 1, "QUEUE": 3, "WORKERS": 4, "ERROR": 2}
    schedules = {"SCHEDULE": 0, "NEXT": 1, "LAST": 3, "LATE": 4, "STATE": 2}
    scans = {"SCAN": 0, "STATE": 1, "CHUNKS": 3, "FAILED": 5, "ETA": 2, "PROGRESS": 4}
    return [
        Pane(queues, [
            [one.name, one.depth, _age(one.oldest_s), f"{one.in_per_s:.1f}",
             f"{one.out_per_s:.1f}", one.running, one.failed, one.failed_1h, one.workers,
             "paused" if one.paused else "served" if one.workers
             else "unserved" if one.depth else None]
            for one in sorted(shot.queues, key=lambda queue: -(queue.depth or 0))
        ]),
        Pane(fleet, [_worker(worker) for worker in workers]),
        Pane(failed, [
            [_ago(shot.at, one.last_at), one.count, one.queue, ",".join(one.workers), one.error]
            for one in shot.failed
        ]),
        Pane(schedules, [
            [one.name, f"{one.next_at:%d %H:%M:%S}" if one.next_at else None,
             _ago(shot.at, one.last_at), _age(one.lateness_s),
             "paused" if one.paused else one.state]
            for one in shot.schedules
        ]),
        Pane(scans, [
            [one.scan_id, one.state, f"{one.chunks.done}/{one.chunks.total}", one.chunks.failed,
             _age(one.eta_s), _bar(one, "#-" if is_ascii else "█░")]
            for one in shot.scans
        ]),
    ]  # fmt: skip


def _rank(worker: Worker) -> tuple[int, float]:
    at = ORDER.index(worker.state) if worker.state in ORDER else len(ORDER)
    return at, -(worker.job_age_s or 0)


def _worker(one: Worker) -> list[str | int | None]:
    job = max(one.jobs, key=lambda job: job.age_s, default=None)
    done = f" {job.progress:.0%}" if job and job.progress is not None else ""
    more = f" and {len(one.jobs) - 1} more" if len(one.jobs) > 1 else ""
    return [
        one.name, one.state, _age(one.job_age_s), _age(job.limit_s if job else None),
        _age(one.heartbeat_age_s),
        None if one.clock_offset_s is None else f"{0 - one.clock_offset_s:+.1f}s",
        one.done, one.failed, one.rss_bytes and one.rss_bytes >> 20, ",".join(one.queues),
        f"{job.kind} {job.id}{done}{more}".strip() if job else None,
    ]  # fmt: skip


def _bar(scan: Task, marks: str) -> str:
    part = min(1.0, (scan.chunks.done + scan.chunks.failed) / (scan.chunks.total or 1))
    return marks[0] * int(part * 20) + marks[1] * (20 - int(part * 20)) + f" {part:.0%}"


def _ago(at: datetime, then: datetime | None) -> str | None:
    return _age((at - then).total_seconds()) if then else None


def _age(seconds: float | None) -> str | None:
    """Give a duration in at most six cells: 0.4s, 12s, 5m31s, 3h02m, 4d07h."""
    if seconds is None:
        return None
    for size, unit, part, small in (
        (86400, "d", 3600, "h"),
        (3600, "h", 60, "m"),
        (60, "m", 1, "s"),
    ):
        if seconds >= size:
            return f"{int(seconds // size)}{unit}{int(seconds % size // part):02}{small}"
    return f"{int(seconds)}s" if seconds >= 10 else f"{seconds:.1f}s"  # noqa: PLR2004 - tenths count
