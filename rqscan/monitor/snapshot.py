"""Snapshot: Redis → plain data, in two round trips, without a write, a payload or a key scan.

Trip A asks for names, trip B for what they stand for. The jobs at the ends of a queue are named in
trip A for the queues that are declared or were seen before, so that a queue of others shows them
one look later. Every age is told by Redis' own clock. What an access rule refuses is a missing
figure, not a missing screen.
"""

import time
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

import redis
from msgspec import structs
from redis.client import NEVER_DECODE

from rqscan.broker import keys
from rqscan.broker.connect import impatient, outage
from rqscan.errors import RedisUnavailable
from rqscan.fleet.schedulers import living
from rqscan.monitor import figures
from rqscan.monitor.figures import read
from rqscan.monitor.records import Entries, Server, Snapshot
from rqscan.monitor.trouble import OVERDUE_S, away, find
from rqscan.settings import QueueSettings, Settings

__all__ = ["reader", "take"]

Answers = dict[str, Any]
COUNTERS = ("rescued", "lost", "refused", "fenced")

NEWEST_FAILED = 200
"""Failed jobs of a queue that are read and grouped; `Queue.failed` counts the rest too."""

FIRST, STILL = 200, 100
"""Entries that are read of a schedule: those to be fired first, and those that stand still."""

RUN = ("state", "paused", "reason", "outcome", "last_at", "lateness_s")
"""What is read of an entry."""

BUCKETS = 60 // keys.STAT_S
"""Whole buckets of counts that make the last minute."""

FORGET_S = 3600
"""A worker without a beat for so long is no longer listed."""


def reader(client: redis.Redis) -> redis.Redis:
    """Make a client read texts, and wait once and briefly: the next refresh is the retry."""
    texts = {"decode_responses": True, "encoding_errors": "replace"}
    client.connection_pool.connection_kwargs.update(texts)
    return impatient(client)


def take(
    client: redis.Redis,
    settings: Settings,
    before: Snapshot | None = None,
    *,
    is_whole: bool = False,
) -> Snapshot:
    """Read the fleet once, through a client that `reader` made.

    Args:
        client: of Redis.
        settings: those in force here.
        before: what was read last.
        is_whole: read each entry of the schedule, however many there are.

    Raises:
        RedisUnavailable: Redis is away or tells us nothing at all, and there is no `before`:
            it is given again, with that as its first trouble.
    """
    try:
        with outage():
            known = settings.queues.keys() | {one.name for one in (before.queues if before else ())}
            pipe = client.pipeline(transaction=False)
            return _read(pipe, settings, known, 0 if is_whole else FIRST)
    except RedisUnavailable as e:
        if before is None:
            raise
        return away(before, str(e))


def _read(pipe: Any, settings: Settings, known: Iterable[str], first: int) -> Snapshot:
    asked: Answers = {
        "time": pipe.time(),
        "info": pipe.info("server"),
        "counters": pipe.hgetall(keys.COUNTERS),
        "leader": pipe.get(keys.LEADER),
        "queues": pipe.smembers(keys.QUEUES),
        "beats": pipe.zrange(keys.PRESENCE, 0, -1, withscores=True),
        "schedulers": pipe.hgetall(keys.SCHEDULERS),
        "first": pipe.zrange(keys.SCHEDULE, 0, first - 1, withscores=True),
        "still": pipe.zrange(
            keys.SCHEDULE, "inf", "inf", byscore=True, offset=0, num=STILL, withscores=True
        ),
        "entries": {
            "count": pipe.zcard(keys.SCHEDULE),
            "planned": pipe.zcount(keys.SCHEDULE, "-inf", "(inf"),
            "runs": pipe.zcard(keys.RUNS),
        },
        "scans": pipe.zrange(keys.SCANS, 0, -1),
        "suspended": pipe.exists(keys.SUSPENDED),
        "paused": pipe.smembers(keys.PAUSED),
        "next": {name: pipe.lindex(keys.queue(name), 0) for name in known},
        "failed": {
            name: pipe.zrange(keys.registry("failed", name), 0, NEWEST_FAILED - 1, desc=True)
            for name in known
        },
    }
    began = time.monotonic()
    a = _go(pipe, asked)
    rtt_ms = round((time.monotonic() - began) * 1000, 2)
    at = a["time"][0] + a["time"][1] / 1e6  # nobody who may not ask for it is connected
    now, bucket = datetime.fromtimestamp(at, UTC), int(at / keys.STAT_S)
    queues = {key.removeprefix(keys.queue("")) for key in a["queues"] or ()}
    names = sorted(queues | settings.queues.keys())
    paused = set(names if a["suspended"] else a["paused"] or ())
    ages = {name: round(at - beat_at, 3) for name, beat_at in sorted(a["beats"] or ())}
    fire_at = dict([*(a["first"] or ()), *(a["still"] or ())])
    asked = {
        "stats": {n: pipe.hgetall(keys.stat(bucket - n)) for n in range(1, BUCKETS + 1)},
        "queues": {n: _ask(pipe, n, at, settings) for n in names},
        "workers": {n: pipe.get(keys.record(n)) for n, age_s in ages.items() if age_s < FORGET_S},
        "schedules": {name: pipe.hmget(keys.schedule_entry(name), RUN) for name in fire_at},
        "overdue": pipe.zcount(keys.SCHEDULE, "-inf", at - OVERDUE_S),
        "scans": {name: pipe.hgetall(keys.progress(name)) for name in a["scans"] or ()},
        "oldest": {
            name: pipe.hget(keys.job(job), "enqueued_at") for name, job in a["next"].items() if job
        },
        "failed": {
            name: {job: _ask_failed(pipe, job) for job in jobs or ()}
            for name, jobs in a["failed"].items()
        },
    }
    b = _go(pipe, asked)
    workers = figures.once(
        [figures.worker(n, ages[n], raw, settings.worker) for n, raw in b["workers"].items()]
    )
    shot = Snapshot(
        at=now,
        redis=Server(up=True, version=(a["info"] or {}).get("redis_version"), rtt_ms=rtt_ms),
        queues=figures.queues(
            b["queues"], b["oldest"], b["stats"].values(), workers, at, paused=paused
        ),
        workers=workers,
        failed=figures.failures(b["failed"]),
        schedules=[
            figures.schedule(name, fire_at[name], dict(zip(RUN, said or (), strict=False)))
            for name, said in b["schedules"].items()
        ],
        scans=[figures.scan(name, at, said or {}) for name, said in b["scans"].items()],
        leader=read(dict[str, Any], a["leader"], {}, is_json=True).get("name"),
        counters=dict.fromkeys(COUNTERS, 0) | read(dict[str, int], a["counters"], {}),
        entries=Entries(**a["entries"], overdue=b["overdue"]),
        schedulers=living(a["schedulers"] or {}, now),
    )
    return structs.replace(shot, trouble=list(find(shot)))


def _ask(pipe: Any, name: str, at: float, settings: Settings) -> Answers:
    """Ask for what `Queue` holds, by its names."""
    failed = keys.registry("failed", name)
    # The score is the time of the failure plus the job's failure_ttl: a job that RQ's own API
    # gave another ttl than its queue has counts as failed at another time.
    ttl = settings.queues.get(name, QueueSettings()).failure_ttl_s
    return {
        "depth": pipe.llen(keys.queue(name)),
        "running": pipe.zcard(keys.registry("wip", name)),
        "failed": pipe.zcard(failed),
        "failed_1h": pipe.zcount(failed, at - 3600 + ttl, at + ttl),
    }


def _ask_failed(pipe: Any, job: str) -> Any:
    """Ask when, where and why a job failed; as bytes, since a traceback is compressed."""
    fields = ("ended_at", "worker_name", "exc_info")
    return pipe.execute_command("HMGET", keys.job(job), *fields, **{NEVER_DECODE: True})


def _go(pipe: Any, asked: Answers) -> Answers:
    """Send what was asked and put each answer in its place; None stands for a refusal."""
    answers = iter(pipe.execute(raise_on_error=False))

    def fill(place: Any) -> Any:
        if isinstance(place, dict):
            return {name: fill(inner) for name, inner in place.items()}
        answer = next(answers)
        return None if isinstance(answer, Exception) else answer

    return {name: fill(place) for name, place in asked.items()}
