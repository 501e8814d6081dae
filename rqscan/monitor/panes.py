"""Panes: a snapshot → what each part of the screen says, before any fitting.

A pane is a list of rows, a row is its cells by their titles, the most important first: where the
screen is narrow, columns go from the right, but for the last, which may take half of the line.
"""

from datetime import datetime
from typing import Any, NamedTuple

from rqscan.monitor.records import Queue, Schedule, Snapshot, Worker
from rqscan.monitor.trouble import overdue_s

__all__ = ["Pane", "Row", "panes", "totals"]

Row = dict[str, Any]
"""Cells by their titles; None stands for an unknown figure."""


class Pane(NamedTuple):
    """The rows of one part, and how many there are of what they show, if it is more."""

    rows: list[Row]
    of: int = 0


ORDER = ("lost", "mismatched", "stale", "stopping", "busy")
"""Worker states in the order of rows; the others follow."""

SUMS = {"WAIT": "depth", "RUN": "running", "FAIL": "failed", "+1h": "failed_1h"} | {
    "IN/s": "in_per_s", "OUT/s": "out_per_s"
}  # fmt: skip
"""Figures of queues that are added up."""

FORCED = "; forced in "
"""Stands in a reason before the time after which nothing is waited for any longer; narrow screens
would cut it off."""

BAR_CELLS = 20
UNITS = ((86_400, "d", 3600, "h"), (3600, "h", 60, "m"), (60, "m", 1, "s"))


def totals(shot: Snapshot) -> list[Row]:
    """Give the sums over all queues, the figures of the fleet, and those of the schedule."""
    sums = {
        title: sum(one for queue in shot.queues if (one := getattr(queue, name)) is not None)
        for title, name in SUMS.items()
    }
    oldest_s = max((queue.oldest_s for queue in shot.queues if queue.oldest_s), default=None)
    states = [worker.state for worker in shot.workers]
    fleet: Row = {"WORKERS": len(states)} | {state: states.count(state) for state in states}
    fleet |= {name.upper(): count for name, count in shot.counters.items()}
    schedule: Row = {
        "LEADER": shot.leader or "none", "ENTRIES": shot.entries.count,
        "OVERDUE": shot.entries.overdue, "RUNS TO MAKE": shot.entries.runs,
        "SCHEDULERS": len(shot.schedulers),
    }  # fmt: skip
    return [sums | {"OLDEST": _age(oldest_s)}, fleet, schedule]


def panes(shot: Snapshot, skip: int) -> list[Pane]:
    """Give all panes from top to bottom; `skip` workers are left out, but for the last one."""
    workers = sorted(shot.workers, key=_rank)
    queues = sorted(shot.queues, key=lambda queue: -(queue.depth or 0))
    entries = sorted(shot.schedules, key=lambda entry: _turn(entry, shot))
    return [
        Pane([_queue(queue) for queue in queues]),
        Pane([_worker(worker) for worker in workers[min(skip, len(workers) - 1) :]]),
        Pane([
            {"FAILED": _ago(shot.at, one.last_at), "N": one.count, "QUEUE": one.queue,
             "WORKERS": ",".join(one.workers), "ERROR": one.error}
            for one in shot.failed
        ]),
        Pane([_entry(entry, shot) for entry in entries], shot.entries.count or 0),
        Pane(_waits(entries, workers)),
        Pane([
            {"SCAN": one.scan_id, "STATE": one.state, "ETA": _age(one.eta_s),
             "CHUNKS": f"{one.chunks.done}/{one.chunks.total}", "FAILED": one.chunks.failed,
             "PROGRESS": _bar((one.chunks.done + one.chunks.failed) / (one.chunks.total or 1))}
            for one in shot.scans
        ]),
    ]  # fmt: skip


def _queue(one: Queue) -> Row:
    served = "served" if one.workers else "unserved" if one.depth else None
    return {
        "QUEUE": one.name, "WAIT": one.depth, "RUN": one.running, "OLDEST": _age(one.oldest_s),
        "FAIL": one.failed, "IN/s": one.in_per_s, "OUT/s": one.out_per_s,
        "+1h": one.failed_1h, "WORKERS": one.workers, "STATE": "paused" if one.paused else served,
    }  # fmt: skip


def _rank(worker: Worker) -> tuple[int, float]:
    at = ORDER.index(worker.state) if worker.state in ORDER else len(ORDER)
    return at, -(worker.job_age_s or 0)


def _worker(one: Worker) -> Row:
    job = next((job for job in one.jobs if job.id == one.job), None)
    done = job.progress if job else None
    return {
        "WORKER": one.name, "STATE": one.state, "BEAT": _age(one.heartbeat_age_s),
        "RUN": _age(one.job_age_s), "DONE": None if done is None else f"{done:.0%}",
        "JOBS": len(one.jobs), "OK": one.done, "FAIL": one.failed,
        "LIMIT": _age(job.limit_s if job else None),
        "CLOCK": None if one.clock_offset_s is None else f"{0 - one.clock_offset_s:+.1f}s",
        "MB": one.rss_bytes and one.rss_bytes >> 20, "QUEUES": ",".join(one.queues),
        "JOB": job and f"{job.kind} {job.id}".strip(),
    }  # fmt: skip


def _turn(one: Schedule, shot: Snapshot) -> tuple[int, float, str]:
    """Put overdue entries first, then those of which a run waits, and last those without a next."""
    at = one.next_at.timestamp() if one.next_at else float("inf")
    kind = 0 if overdue_s(one, shot) else 1 if one.state == "waiting" else 2
    return kind, at, one.name


def _entry(one: Schedule, shot: Snapshot) -> Row:
    state = "overdue" if overdue_s(one, shot) else "paused" if one.paused else one.state
    late_s = one.lateness_s
    return {
        "SCHEDULE": one.name, "STATE": state, "IN": _until(shot.at, one.next_at),
        "LAST": _ago(shot.at, one.last_at),
        "LATE": f"{late_s * 1000:.0f}ms" if late_s is not None and late_s < 1 else _age(late_s),
        "NEXT": one.next_at and f"{one.next_at:%d %H:%M:%S}", "OUTCOME": one.outcome,
    }  # fmt: skip


def _waits(entries: list[Schedule], workers: list[Worker]) -> list[Row]:
    """Give in words what runs wait for, and the rows that hosts keep for the store."""
    found = [(one.name, one.reason) for one in entries if one.state == "waiting"]
    keep = {one.host: one for one in sorted(workers, key=lambda one: one.spool_rows or 0)}
    for host, one in keep.items():  # of several homes on a host the fullest
        idle = one.spool.idle if one.spool and one.spool.rows and one.state != "lost" else None
        if idle and not idle.is_idle:
            found.append((f"{one.spool_rows} rows of {host}", f"waiting for idle: {idle.reason}"))
    parts = [(what, *(why or "").partition(FORCED)) for what, why in found]
    return [
        {"WAITING": what, "FORCED": f"in {left}" if left else None, "WHY": why}
        for what, why, _, left in parts
    ]


def _bar(part: float) -> str:
    full = int(min(1.0, part) * BAR_CELLS)
    return f"{part:4.0%} {'█' * full}{'░' * (BAR_CELLS - full)}"


def _ago(at: datetime, then: datetime | None) -> str | None:
    return _age((at - then).total_seconds()) if then else None


def _until(at: datetime, then: datetime | None) -> str | None:
    if then is None:
        return None
    left_s = (then - at).total_seconds()
    return f"-{_age(-left_s)}" if left_s < 0 else _age(left_s)


def _age(seconds: float | None) -> str | None:
    """Give a duration in at most six cells: 0.4s, 12s, 5m31s, 3h02m, 4d07h."""
    if seconds is None:
        return None
    for size, unit, part, small in UNITS:
        if seconds >= size:
            return f"{int(seconds // size)}{unit}{int(seconds % size // part):02}{small}"
    return f"{int(seconds)}s" if seconds >= 10 else f"{seconds:.1f}s"  # noqa: PLR2004 - tenths count
