"""Questions: what a look asks Redis for, in two trips, by the names that the snapshot has for it.

Trip A asks for names, trip B for what they stand for. Nothing is written, no payload is read, and
no key is searched for.
"""

from collections.abc import Iterable
from typing import Any

from rqscan.broker import keys
from rqscan.monitor.asking import Answers, Raw
from rqscan.monitor.trouble import OVERDUE_S
from rqscan.settings import QueueSettings, Settings

__all__ = ["RUN", "named", "names"]

FIRST, STILL = 200, 100
"""Entries that are read of a schedule: those to be fired first, and those that stand still."""

RUN = ("state", "paused", "reason", "outcome", "last_at", "lateness_s")
"""What is read of an entry."""


def names(queues: Iterable[str], *, is_whole: bool) -> Answers:
    """Ask for the names, and for the ends of the queues that are known."""
    return {
        "time": ("TIME",),
        "info": ("INFO",),
        "counters": ("HGETALL", keys.COUNTERS),
        "leader": ("GET", keys.LEADER),
        "queues": ("SMEMBERS", keys.QUEUES),
        "beats": ("ZRANGE", keys.PRESENCE, 0, -1, "WITHSCORES"),
        "channels": ("PUBSUB", "CHANNELS", keys.commands_of("*")),
        "grace": ("EXISTS", keys.GRACE),
        "schedulers": ("HGETALL", keys.SCHEDULERS),
        "first": ("ZRANGE", keys.SCHEDULE, 0, -1 if is_whole else FIRST - 1, "WITHSCORES"),
        "still": (
            "ZRANGE", keys.SCHEDULE, "inf", "inf", "BYSCORE", "LIMIT", 0, STILL, "WITHSCORES",
        ),
        "entries": {
            "count": ("ZCARD", keys.SCHEDULE),
            "planned": ("ZCOUNT", keys.SCHEDULE, "-inf", "(inf"),
            "runs": ("ZCARD", keys.RUNS),
        },
        "scans": ("ZRANGE", keys.SCANS, 0, -1),
        "suspended": ("EXISTS", keys.SUSPENDED),
        "paused": ("SMEMBERS", keys.PAUSED),
        "next": {name: ("LINDEX", keys.queue(name), 0) for name in queues},
    }  # fmt: skip


def named(
    told: Answers, at: float, settings: Settings, *, queues: Iterable[str], entries: Iterable[str],
    workers: Iterable[str],
) -> Answers:  # fmt: skip
    """Ask for what is known by name."""
    records = [keys.record(name) for name in workers]
    return {
        "queues": {name: _of_queue(name, at, settings) for name in queues},
        "workers": {"records": Raw(("MGET", *records))} if records else {},
        "schedules": {name: ("HMGET", keys.schedule_entry(name), *RUN) for name in entries},
        "overdue": ("ZCOUNT", keys.SCHEDULE, "-inf", at - OVERDUE_S),
        "scans": {name: ("HGETALL", keys.progress(name)) for name in told["scans"] or ()},
        "oldest": {
            name: ("HGET", keys.job(job), "enqueued_at")
            for name, job in told["next"].items()
            if job
        },
    }


def _of_queue(name: str, at: float, settings: Settings) -> dict[str, tuple[Any, ...]]:
    """Ask for what `Queue` holds, by its names."""
    failed = keys.registry("failed", name)
    # The score is the time of the failure plus the job's failure_ttl: a job that RQ's own API
    # gave another ttl than its queue has counts as failed at another time.
    ttl = settings.queues.get(name, QueueSettings()).failure_ttl_s
    return {
        "depth": ("LLEN", keys.queue(name)),
        "running": ("ZCARD", keys.registry("wip", name)),
        "failed": ("ZCARD", failed),
        "failed_1h": ("ZCOUNT", failed, at - 3600 + ttl, at + ttl),
        "deferred": ("ZCARD", keys.registry("deferred", name)),
        "scheduled": ("ZCARD", keys.registry("scheduled", name)),
    }
