"""Trouble: what in a snapshot is wrong, named with its object and cause, the worst first."""

from collections import Counter
from collections.abc import Iterator

from msgspec import structs

from rqscan.fleet.schedulers import unlike
from rqscan.monitor.records import Schedule, Snapshot, Trouble, Worker

__all__ = ["OVERDUE_S", "away", "find", "overdue_s"]

CLOCK_S = 1.0
"""A host's clock that is further off shows ages and rows at wrong times."""

OVERDUE_S = 10.0
"""A leader is never so late, and after its death another leads by then."""

CALM_WAITS = ("waiting for idle", "the run before")
"""How the reasons begin for which an entry wants its run to wait."""

LIMIT_GRACE_S = 2.0
"""A worker kills at the limit; a beat reports that up to so much later."""


def find(shot: Snapshot) -> Iterator[Trouble]:
    """Find what is wrong."""
    for worker in shot.workers:
        if worker.state == "lost":
            held = f", held {worker.job}" if worker.job else ""
            cause = f"no beat for {worker.heartbeat_age_s:.0f} s{held}"
            yield Trouble("worker lost", worker.name, cause)
    for queue in shot.queues:
        if queue.depth and not queue.workers:
            advice = f"run: rqscan worker {queue.name}"
            cause = f"{queue.depth} jobs wait and no worker listens; {advice}"
            yield Trouble("queue unserved", queue.name, cause)
    yield from _of_schedules(shot)
    living = [worker for worker in shot.workers if worker.state != "lost"]
    for worker in living:
        yield from _of_worker(worker)
    for package in ("rqscan", "rq"):
        found = Counter(one.versions[package] for one in living if package in one.versions)
        if len(found) > 1:
            cause = ", ".join(f"{version} on {count}" for version, count in found.items())
            yield Trouble("versions differ", package, f"{cause} workers")
    for entry in shot.schedules:
        yield from _of_entry(entry)


def overdue_s(entry: Schedule, shot: Snapshot) -> float | None:
    """Tell for how long an entry should have been fired; None if it is not overdue."""
    late_s = (shot.at - (entry.next_at or shot.at)).total_seconds()
    return late_s if late_s > OVERDUE_S and not entry.paused else None


def _of_schedules(shot: Snapshot) -> Iterator[Trouble]:
    if not shot.leader:
        counts = {"entries to start": shot.entries.planned, "runs to make": shot.entries.runs}
        if waiting := ", ".join(f"{count} {what}" for what, count in counts.items() if count):
            cause = f"{waiting} and no leader; run: rqscan scheduler"
            yield Trouble("no scheduler", "schedule", cause)
    for entry in shot.schedules:
        late_s = overdue_s(entry, shot)
        if late_s is not None and shot.leader:
            yield Trouble("schedule overdue", entry.name, f"was due {late_s:.0f} s ago")
    for name, cause in unlike(shot.schedulers, shot.leader):
        yield Trouble("schedulers differ", name, f"{cause}; let rqscan.toml be the same")


def _of_entry(entry: Schedule) -> Iterator[Trouble]:
    """Find what is wrong with an entry, or with its last run."""
    if entry.state == "invalid":
        yield Trouble("entry invalid", entry.name, entry.reason or "its reason is not known")
    elif not entry.reason:  # nothing, or the entry was changed since
        return
    elif entry.outcome == "waiting" and not entry.reason.startswith(CALM_WAITS):
        yield Trouble("run waits", entry.name, entry.reason)
    elif entry.outcome in {"refused", "failed"} and not entry.paused and entry.state != "disabled":
        yield Trouble(f"run {entry.outcome}", entry.name, entry.reason)


def _of_worker(worker: Worker) -> Iterator[Trouble]:
    if worker.state == "stale":
        yield Trouble("worker stale", worker.name, f"no beat for {worker.heartbeat_age_s:.1f} s")
    if worker.state == "mismatched":
        cause = worker.mismatch or "its record is of another version"
        yield Trouble("worker mismatched", worker.name, cause)
    if worker.holds:
        yield Trouble("claims held", worker.name, worker.holds)
    if worker.spool and worker.spool.quarantined:
        advice = "see them with: rqscan spool quarantine list"
        cause = f"the database refused rows {worker.spool.quarantined} times; {advice}"
        yield Trouble("rows quarantined", worker.host or worker.name, cause)
    for job in worker.jobs:
        if 0 < job.limit_s < job.age_s - LIMIT_GRACE_S:
            cause = f"runs for {job.age_s:.0f} s on {worker.name}, its limit is {job.limit_s} s"
            yield Trouble("job over limit", job.id, cause)
    offset_s = worker.clock_offset_s or 0  # Redis' clock minus the host's
    if abs(offset_s) > CLOCK_S:
        cause = f"the clock of {worker.host} is {-offset_s:+.1f} s off Redis'"
        yield Trouble("clock off", worker.name, cause)


def away(shot: Snapshot, reason: str) -> Snapshot:
    """Give the last snapshot as what it is once Redis is away: old."""
    known = [one for one in shot.trouble if one.what != "Redis away"]
    trouble = [Trouble("Redis away", "redis", reason), *known]
    return structs.replace(shot, redis=structs.replace(shot.redis, up=False), trouble=trouble)
