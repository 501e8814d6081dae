"""Schedule entries in Redis: next due times in a sorted set, state and last run in a hash each.

Only the leader writes here; the monitor reads.
"""

from datetime import UTC, datetime, timedelta
from typing import Any

from redis.client import Pipeline

from rqscan.broker import keys
from rqscan.schedule.calendar import next_due
from rqscan.schedule.entries import Entry
from rqscan.schedule.lease import Lease

__all__ = ["move", "read_due", "seconds_to_next", "unended", "write_entries"]

_RESOLUTION = timedelta(microseconds=1)


def write_entries(client: Any, lease: Lease, entries: dict[str, Entry], now: datetime) -> None:
    """Put new and changed entries into Redis and take out those that left the settings."""
    with client.pipeline(transaction=False) as reads:
        reads.smembers(keys.ENTRIES)
        for name in entries:
            reads.zscore(keys.SCHEDULE, name)
            reads.hget(keys.schedule_entry(name), "outcome")
        known, *answers = reads.execute()
    gone = {name.decode() for name in known} - entries.keys()

    def write(pipeline: Pipeline) -> None:
        for name in gone:
            pipeline.zrem(keys.SCHEDULE, name)
            pipeline.srem(keys.ENTRIES, name)
            pipeline.delete(keys.schedule_entry(name))
        for entry, score, outcome in zip(
            entries.values(), answers[::2], answers[1::2], strict=True
        ):
            fields = {"outcome": "", "reason": ""} if outcome == b"invalid" else {}
            if entry.invalid:
                fields = {"outcome": "invalid", "reason": entry.invalid}
            pipeline.sadd(keys.ENTRIES, entry.name)
            pipeline.hsetnx(keys.schedule_entry(entry.name), "paused", "0")
            move(pipeline, entry, _planned(entry, score, now), fields)

    lease.write(client, write)


def move(pipeline: Pipeline, entry: Entry, due: datetime | None, fields: dict[str, Any]) -> None:
    """Set an entry's fields, state and next due time."""
    if due is None:
        idle = "invalid" if entry.invalid else "ended" if entry.enabled else "disabled"
        pipeline.zrem(keys.SCHEDULE, entry.name)
    else:
        pipeline.zadd(keys.SCHEDULE, {entry.name: due.timestamp()})
    state = "scheduled" if due else idle
    pipeline.hset(keys.schedule_entry(entry.name), mapping=fields | {"state": state})  # type: ignore[arg-type] # invariant there


def read_due(client: Any, now: datetime) -> list[tuple[str, datetime]]:
    """Give the names that are due, with the due times that stand for them."""
    found = client.zrangebyscore(keys.SCHEDULE, "-inf", now.timestamp(), withscores=True)
    return [(name.decode(), datetime.fromtimestamp(score, UTC)) for name, score in found]


def seconds_to_next(client: Any, after: datetime) -> float:
    """Give the seconds from `after` to the first due time later than it."""
    found = client.zrangebyscore(
        keys.SCHEDULE, f"({after.timestamp()}", "+inf", start=0, num=1, withscores=True
    )
    return found[0][1] - after.timestamp() if found else float("inf")


def unended(client: Any, entry: Entry) -> str | None:
    """Give the id of the scan that the entry started last, unless it has ended."""
    last = (client.hget(keys.schedule_entry(entry.name), "scan_id") or b"").decode()
    total, end = client.hmget(keys.progress(last), "total", "finished_at")
    return last if total and not end else None


def _planned(entry: Entry, score: float | None, now: datetime) -> datetime | None:
    """Give the due time of an entry that Redis may know: one that is overdue stays."""
    if entry.invalid or not entry.enabled:
        return None
    if score is not None and score <= now.timestamp():
        due = datetime.fromtimestamp(score, UTC)
        if next_due(entry, due - _RESOLUTION) == due:  # else the entry was changed
            return due
    return next_due(entry, now)
