"""Schedule entries in Redis: next due times in a sorted set, state and last run in a hash each.

Only the leader writes here; the monitor reads.
"""

import math
from datetime import UTC, datetime, timedelta
from typing import Any

from redis.client import Pipeline

from rqscan.broker import keys
from rqscan.schedule.calendar import next_due
from rqscan.schedule.entries import Entry

__all__ = ["move", "read", "rewrite", "unended"]


def read(client: Any) -> dict[str, float]:
    """Give each entry's next due time (Unix seconds; infinite if none comes), earliest first."""
    found = client.zrange(keys.SCHEDULE, 0, -1, withscores=True)
    return {name.decode(): due for name, due in found}


def rewrite(
    pipeline: Pipeline, entries: dict[str, Entry], known: dict[str, float], now: datetime
) -> None:
    """Bring Redis in line with the settings; a run that is overdue as `known` stays due."""
    gone = [keys.schedule_entry(name) for name in known.keys() - entries.keys()]
    pipeline.delete(keys.SCHEDULE, *gone)
    for name, entry in entries.items():
        at = min(known.get(name, math.inf), now.timestamp())
        due = next_due(entry, datetime.fromtimestamp(at, UTC) - timedelta(microseconds=1))
        move(pipeline, entry, due, {"invalid": entry.invalid or ""})


def move(pipeline: Pipeline, entry: Entry, due: datetime | None, fields: dict[str, str]) -> None:
    """Set an entry's fields, state and next due time."""
    idle = "invalid" if entry.invalid else "ended" if entry.enabled else "disabled"
    mapping: dict[Any, Any] = fields | {"state": "scheduled" if due else idle}
    pipeline.zadd(keys.SCHEDULE, {entry.name: due.timestamp() if due else math.inf})
    pipeline.hset(keys.schedule_entry(entry.name), mapping=mapping)


def unended(client: Any, entry: Entry) -> str | None:
    """Give the id of the scan that the entry started last, unless it has ended."""
    last = (client.hget(keys.schedule_entry(entry.name), "scan_id") or b"").decode()
    total, end = client.hmget(keys.progress(last), "total", "finished_at")
    return last if total and not end else None
