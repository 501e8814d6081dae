"""Panes: a snapshot → the tables of the screen, each in the order in which it is read first."""

import re
from datetime import datetime
from math import inf
from typing import Any

from rqscan.monitor.records import Failure, Queue, Schedule, Snapshot, Worker
from rqscan.monitor.screen.columns import Column, Pane, age, ago, bar, spark, until
from rqscan.monitor.trouble import overdue_s

__all__ = ["panes", "rank", "totals"]

LATE_FIRST = ("lost", "mismatched", "stale", "stopping", "suspended", "starting", "busy")
"""Worker states in the order of rows; the others follow."""

SUMS = {
    "WAIT": "depth", "RUN": "running", "FAIL": "failed", "+1h": "failed_1h",
    "IN/s": "in_per_s", "OUT/s": "out_per_s",
}  # fmt: skip
"""Figures of queues that are added up."""

FORCED = "; forced in "
"""Stands in a reason before the time after which nothing is waited for any longer; narrow screens
would cut it off."""

UUID, SHORT = re.compile(r"^([0-9a-f]{8})(-[0-9a-f]{4}){3}-[0-9a-f]{12}$"), r"\1…"
"""What RQ names a job by: eight of its digits tell it well enough."""

Row = dict[str, Any]


def totals(shot: Snapshot) -> list[Row]:
    """Give the sums over all queues, the figures of the fleet, and those of the schedule.

    Each is a row of cells by their titles; None stands for an unknown figure.
    """
    sums: Row = {
        title: sum(one for queue in shot.queues if (one := getattr(queue, name)) is not None)
        for title, name in SUMS.items()
    }
    oldest_s = max((queue.oldest_s for queue in shot.queues if queue.oldest_s), default=None)
    sums |= {"OLDEST": age(oldest_s)}
    if shot.failed:
        sums["CAUSES"] = len(shot.failed)
    depths = [sum(each) for each in zip(*(q.depths for q in shot.queues if q.depths), strict=False)]
    if depths:
        sums["WAIT 30 MIN"] = spark(depths)
    states = [worker.state for worker in shot.workers]
    fleet: Row = {"WORKERS": len(states)} | {state: states.count(state) for state in states}
    living = [worker for worker in shot.workers if worker.state != "lost"]
    places = sum(worker.concurrency or 0 for worker in living)
    used = sum(len(worker.jobs) for worker in living)
    if places:
        fleet["USE"] = f"{used / places:.0%}"
    fleet |= {f"{name.upper()} JOBS": count for name, count in shot.counters.items()}
    schedule: Row = {
        "LEADER": shot.leader or "none", "ENTRIES": shot.entries.count,
        "OVERDUE": shot.entries.overdue, "RUNS TO MAKE": shot.entries.runs,
        "SCHEDULERS": len(shot.schedulers),
    }  # fmt: skip
    return [sums, fleet, schedule]


def panes(shot: Snapshot, *, is_local: bool = False) -> list[Pane]:
    """Give all panes from top to bottom, each with all its items."""

    def age_of(one: Failure) -> tuple[float, int]:
        """Put the newest minute first, and in it what failed most."""
        age_s = ago(shot.at, one.last_at)
        return inf if age_s is None else age_s // 60, -one.count

    entries = sorted(shot.schedules, key=lambda entry: _turn(entry, shot))
    return [
        Pane("queues", QUEUE, sorted(shot.queues, key=lambda one: -(one.depth or 0)), _name),
        Pane("workers", WORKER, sorted(shot.workers, key=rank), _name),
        Pane("failed", _failure(shot.at), sorted(shot.failed, key=age_of), lambda one: one.group),
        Pane("schedule", _entry(shot, is_local=is_local), entries, _name, shot.entries.count or 0),
        Pane("scans", SCAN, shot.scans, lambda one: one.scan_id),
        Pane("waits", WAIT, _waits(entries, shot.workers), lambda one: one[0]),
    ]


def _name(one: Any) -> str:
    return str(one.name)


def _drain(one: Queue) -> float | None:
    return inf if one.depth and one.in_per_s >= one.out_per_s else one.drain_s


def _queue_state(one: Queue) -> str | None:
    return (
        "paused" if one.paused else "served" if one.workers else "unserved" if one.depth else None
    )


QUEUE = [
    Column("QUEUE", _name),
    Column("WAIT", lambda one: one.depth),
    Column("RUN", lambda one: one.running),
    Column("OLDEST", lambda one: one.oldest_s, age),
    Column("FAIL", lambda one: one.failed),
    Column("+1h", lambda one: one.failed_1h),
    Column("IN/s", lambda one: one.in_per_s),
    Column("OUT/s", lambda one: one.out_per_s),
    Column("DRAIN", _drain, lambda drain_s: "never" if drain_s == inf else age(drain_s)),
    Column("WORKERS", lambda one: one.workers),
    Column("WAIT 30 MIN", lambda one: one.depths or None, spark),
    Column("LATER", lambda one: (one.scheduled or 0) + (one.deferred or 0)),
    Column("FAIL 30 MIN", lambda one: one.failures or None, spark),
    Column("STATE", _queue_state),
]


def rank(worker: Worker) -> tuple[int, float]:
    """Tell how early a worker is to be read of."""
    first = LATE_FIRST.index(worker.state) if worker.state in LATE_FIRST else len(LATE_FIRST)
    return first, -(worker.job_age_s or 0)


def _oldest(one: Worker) -> Any:
    return next((job for job in one.jobs if job.id == one.job), None)


def _of_oldest(name: str) -> Any:
    return lambda one: getattr(_oldest(one), name, None)


def _job(one: Worker) -> str | None:
    job = _oldest(one)
    return f"{job.kind} {UUID.sub(SHORT, job.id)}".strip() if job else None


def _zone(offset_s: int) -> str:
    """Write a host's zone by how far it is from UTC."""
    hours, minutes = divmod(abs(offset_s) // 60, 60)
    return f"{'-' if offset_s < 0 else '+'}{hours}{f':{minutes:02}' if minutes else 'h'}"


def _clock(one: Worker) -> float | None:
    return None if one.clock_offset_s is None else round(0 - one.clock_offset_s, 1) + 0.0


WORKER = [
    Column("WORKER", _name),
    Column("STATE", lambda one: one.state),
    Column("BEAT", lambda one: one.heartbeat_age_s, age),
    Column("RUN", lambda one: one.job_age_s, age),
    Column("DONE", _of_oldest("progress"), "{:.0%}".format),
    Column("JOBS", lambda one: len(one.jobs)),
    Column("LIMIT", _of_oldest("limit_s"), age),
    Column("CLOCK", _clock, "{:+.1f}s".format),
    Column("OK", lambda one: one.done),
    Column("FAIL", lambda one: one.failed),
    Column("HOST", lambda one: one.host),
    Column("RQSCAN", lambda one: one.versions.get("rqscan")),
    Column("SPOOL", lambda one: one.spool_rows),
    Column("MB", lambda one: one.rss_bytes and one.rss_bytes >> 20),
    Column("ZONE", lambda one: one.utc_offset_s, _zone),
    Column("QUEUES", lambda one: ",".join(one.queues)),
    Column("JOB", _job),
]


def _failure(at: datetime) -> list[Column]:
    def kinds(one: Failure) -> str | None:
        return ",".join(one.kinds) or None

    return [
        Column("FAILED", lambda one: ago(at, one.last_at), age),
        Column("N", lambda one: one.count),
        Column("QUEUE", lambda one: one.queue),
        Column("KIND", kinds),
        Column("WORKERS", lambda one: ",".join(one.workers)),
        Column("ERROR", lambda one: one.error),
    ]


def _turn(one: Schedule, shot: Snapshot) -> tuple[int, float, str]:
    """Put overdue entries first, then those of which a run waits, and last those without a next."""
    at = one.next_at.timestamp() if one.next_at else inf
    kind = 0 if overdue_s(one, shot) else 1 if one.state == "waiting" else 2
    return kind, at, one.name


def _entry(shot: Snapshot, *, is_local: bool) -> list[Column]:
    def state(one: Schedule) -> str | None:
        return "overdue" if overdue_s(one, shot) else "paused" if one.paused else one.state

    def in_s(one: Schedule) -> float | None:
        return (one.next_at - shot.at).total_seconds() if one.next_at else None

    def late(late_s: float) -> str:
        return f"{late_s * 1000:.0f}ms" if late_s < 1 else age(late_s)

    def moment(at: datetime) -> str:
        return f"{at.astimezone() if is_local else at:%d %H:%M:%S}"

    return [
        Column("SCHEDULE", _name),
        Column("STATE", state),
        Column("IN", in_s, until),
        Column("LAST", lambda one: ago(shot.at, one.last_at), age),
        Column("LATE", lambda one: one.lateness_s, late),
        Column("NEXT", lambda one: one.next_at, moment),
        Column("OUTCOME", lambda one: one.outcome),
    ]


def _waits(entries: list[Schedule], workers: list[Worker]) -> list[tuple[str, str, str]]:
    """Give in words what runs wait for, and the rows that hosts keep for the store."""
    found = [(one.name, one.reason) for one in entries if one.state == "waiting"]
    keep = {one.host: one for one in sorted(workers, key=lambda one: one.spool_rows or 0)}
    for host, one in keep.items():  # of several homes on a host the fullest
        idle = one.spool.idle if one.spool and one.spool.rows and one.state != "lost" else None
        if idle and not idle.is_idle:
            found.append((f"{one.spool_rows} rows of {host}", f"waiting for idle: {idle.reason}"))
    parts = [(what, *(why or "").partition(FORCED)) for what, why in found]
    return [(what, f"in {left}" if left else "", why) for what, why, _, left in parts]


WAIT = [
    Column("WAITING", lambda one: one[0]),
    Column("FORCED", lambda one: one[1] or None),
    Column("WHY", lambda one: one[2]),
]


SCAN = [
    Column("SCAN", lambda one: one.scan_id),
    Column("STATE", lambda one: one.state),
    Column("ETA", lambda one: one.eta_s, age),
    Column("CHUNKS", lambda one: f"{one.chunks.done}/{one.chunks.total}"),
    Column("FAILED", lambda one: one.chunks.failed),
    Column("PROGRESS", lambda one: one.progress, bar),
]
