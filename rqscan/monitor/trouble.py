"""Trouble: what in a snapshot is wrong, named with its object and cause, the worst first."""

from collections.abc import Iterator

from msgspec import structs

from rqscan.fleet.judging import MEMORY_SHARE, size
from rqscan.fleet.schedulers import unlike
from rqscan.monitor.records import Level, Queue, Schedule, Server, Snapshot, Trouble
from rqscan.monitor.trouble_workers import of_living, of_lost
from rqscan.settings import SpoolSettings

__all__ = ["OVERDUE_S", "away", "find", "overdue_s"]

OVERDUE_S = 10.0
"""A leader is never so late, and after its death another leads by then."""

CALM_WAITS = ("waiting for idle", "the run before")
"""How the reasons begin for which an entry wants its run to wait."""

GROWTH_MIN = 10
"""A queue that has grown for so many minutes, and in either half of them, grows."""

LEVELS = ("fail", "warn", "note")


def find(shot: Snapshot, spool_bytes: int = SpoolSettings().max_bytes) -> list[Trouble]:
    """Find what is wrong, the worst first.

    Args:
        shot: where.
        spool_bytes: what the spool of a home may hold.
    """
    return sorted(_find(shot, spool_bytes), key=lambda one: LEVELS.index(one.level))


def overdue_s(entry: Schedule, shot: Snapshot) -> float | None:
    """Tell for how long an entry should have been fired; None if it is not overdue."""
    late_s = (shot.at - (entry.next_at or shot.at)).total_seconds()
    return late_s if late_s > OVERDUE_S and not entry.paused else None


def away(shot: Snapshot, reason: str) -> Snapshot:
    """Give the last snapshot as what it is once Redis is away: old."""
    known = [one for one in shot.trouble if one.what != "Redis away"]
    trouble = [Trouble("Redis away", "redis", reason), *known]
    return structs.replace(shot, redis=structs.replace(shot.redis, up=False), trouble=trouble)


def _find(shot: Snapshot, spool_bytes: int) -> Iterator[Trouble]:
    yield from _of_redis(shot.redis)
    yield from of_lost(shot.workers)
    if shot.suspended:
        waiting = sum(queue.depth or 0 for queue in shot.queues)
        cause = f"{waiting} jobs wait, RQ has suspended its workers; run: rq resume"
        yield Trouble("fleet suspended", "fleet", cause, "note")
    else:
        for queue in shot.queues:
            yield from _of_queue(queue)
    yield from _of_schedules(shot)
    yield from of_living(shot.workers, spool_bytes)
    for entry in shot.schedules:
        yield from _of_entry(entry)


def _of_redis(redis: Server) -> Iterator[Trouble]:
    if redis.is_replica:
        cause = "it takes no writes; let redis.url lead to the server that does"
        yield Trouble("Redis is a replica", "redis", cause)
    if redis.unsaved:
        cause = f"{redis.unsaved}: it may refuse writes; see to its disk and its log"
        yield Trouble("Redis cannot save", "redis", cause)
    if redis.eviction not in {None, "noeviction"}:
        cause = f"maxmemory-policy is {redis.eviction}: it may drop what is not done"
        level: Level = "fail" if redis.memory_limit_bytes else "warn"
        yield Trouble("Redis evicts", "redis", f"{cause}; set it to noeviction", level)
    used, most = redis.memory_bytes or 0, redis.memory_limit_bytes
    if most and used > most * MEMORY_SHARE:
        cause = f"{size(used)} of {size(most)} ({used / most:.0%})"
        advice = "raise maxmemory, or shorten result_ttl_s and failure_ttl_s"
        level = "fail" if used >= most else "warn"
        yield Trouble("Redis memory", "redis", f"{cause}; {advice}", level)


def _of_queue(queue: Queue) -> Iterator[Trouble]:
    if not queue.depth:
        return
    waiting = f"{queue.depth} jobs wait"
    if queue.paused:
        cause = f"{waiting}; run: rqscan queue resume {queue.name}"
        yield Trouble("queue paused", queue.name, cause, "note")
    elif not queue.workers:
        pace = f", {queue.in_per_s:.2g} more come each second" if queue.in_per_s else ""
        cause = f"{waiting} and no worker listens{pace}; run: rqscan worker {queue.name}"
        yield Trouble("queue unserved", queue.name, cause)
    elif grown := _growth(queue):
        pace = f"{queue.in_per_s:.3g} come and {queue.out_per_s:.3g} go each second"
        cause = f"{waiting}, {grown} more than {GROWTH_MIN} minutes ago: {pace}; add workers"
        yield Trouble("queue grows", queue.name, cause, "warn")


def _growth(queue: Queue) -> int:
    """Tell by how many jobs a queue has grown that would never be empty."""
    if len(queue.depths) <= GROWTH_MIN or queue.in_per_s <= queue.out_per_s:
        return 0
    before, middle, now = queue.depths[-1 - GROWTH_MIN :: GROWTH_MIN // 2]
    return now - before if before < middle < now else 0


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
        advice = "let rqscan.toml be the same"
        yield Trouble("schedulers differ", name, f"{cause}; {advice}", "warn")


def _of_entry(entry: Schedule) -> Iterator[Trouble]:
    """Find what is wrong with an entry, or with its last run."""
    if entry.state == "invalid":
        cause = entry.reason or "its reason is not known"
        yield Trouble("entry invalid", entry.name, cause, "warn")
    elif not entry.reason:  # nothing, or the entry was changed since
        return
    elif entry.outcome == "waiting" and not entry.reason.startswith(CALM_WAITS):
        yield Trouble("run waits", entry.name, entry.reason, "warn")
    elif entry.outcome in {"refused", "failed"} and not entry.paused and entry.state != "disabled":
        yield Trouble(f"run {entry.outcome}", entry.name, entry.reason, "warn")
