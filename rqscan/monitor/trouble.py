"""Trouble: what in a snapshot is wrong, named with its object and cause, the worst first."""

from collections.abc import Iterator

from msgspec import structs

from rqscan.monitor.records import Snapshot, Trouble, Worker

__all__ = ["away", "find"]

CLOCK_S = 1.0
"""A host's clock that is further off shows ages and rows at wrong times."""

OVERDUE_S = 2.0
"""A leader looks more often than that."""

LIMIT_GRACE_S = 2.0
"""A worker kills at the limit; a beat reports that up to so much later."""


def find(snapshot: Snapshot) -> list[Trouble]:
    """List what is wrong."""
    lost = [w for w in snapshot.workers if w.state == "lost"]
    living = [w for w in snapshot.workers if w.state != "lost"]
    return [
        *(_lost(worker) for worker in lost),
        *_of_queues(snapshot),
        *_of_schedules(snapshot),
        *(trouble for worker in living for trouble in _of_worker(worker)),
        *_of_versions(living),
    ]


def away(snapshot: Snapshot, reason: str) -> Snapshot:
    """Give the last snapshot as what it is once Redis is away: old."""
    server = structs.replace(snapshot.redis, up=False)
    trouble = [Trouble("Redis away", "redis", reason), *snapshot.trouble]
    return structs.replace(snapshot, redis=server, trouble=trouble)


def _lost(worker: Worker) -> Trouble:
    held = f"; it held {worker.job} for {worker.job_age_s:.0f} s" if worker.job else ""
    return Trouble("worker lost", worker.name, f"no beat for {worker.heartbeat_age_s:.0f} s{held}")


def _of_worker(worker: Worker) -> Iterator[Trouble]:
    if worker.state == "stale":
        yield Trouble("worker stale", worker.name, f"no beat for {worker.heartbeat_age_s:.1f} s")
    if worker.state == "mismatched":
        yield Trouble("worker mismatched", worker.name, "its store or protocol is not the fleet's")
    for job in worker.jobs:
        if 0 < job.limit_s < job.age_s - LIMIT_GRACE_S:
            cause = f"runs for {job.age_s:.0f} s on {worker.name}, its limit is {job.limit_s} s"
            yield Trouble("job over limit", job.id, cause)
    if abs(worker.clock_offset_s or 0) > CLOCK_S:
        cause = f"the clock of {worker.host} is {-(worker.clock_offset_s or 0):+.1f} s off Redis'"
        yield Trouble("clock off", worker.name, cause)


def _of_queues(snapshot: Snapshot) -> Iterator[Trouble]:
    for queue in snapshot.queues:
        if queue.depth and not queue.workers:
            cause = (
                f"{queue.depth} jobs wait and no worker listens; run: rqscan worker {queue.name}"
            )
            yield Trouble("queue unserved", queue.name, cause)


def _of_schedules(snapshot: Snapshot) -> Iterator[Trouble]:
    due = [entry for entry in snapshot.schedules if entry.next_at]
    if due and not snapshot.leader:
        cause = f"{len(due)} entries to start and no leader; run: rqscan scheduler"
        yield Trouble("no scheduler", "schedule", cause)
    for entry in snapshot.schedules:
        late_s = (snapshot.at - (entry.next_at or snapshot.at)).total_seconds()
        if late_s > OVERDUE_S and not entry.paused:
            yield Trouble("schedule overdue", entry.name, f"was due {late_s:.0f} s ago")


def _of_versions(living: list[Worker]) -> Iterator[Trouble]:
    for package in ("rqscan", "rq"):
        found: dict[str, list[str]] = {}
        for worker in living:
            if version := worker.versions.get(package):
                found.setdefault(version, []).append(worker.name)
        if len(found) > 1:
            fewest = min(found.values(), key=len)
            cause = ", ".join(f"{version} on {len(names)}" for version, names in found.items())
            yield Trouble("versions differ", fewest[0], f"{package} {cause} workers")
