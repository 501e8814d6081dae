"""Snapshot: Redis → plain data, in two round trips, without a write, a payload or a key scan.

Trip A asks for what has a known name, trip B for the details that A has named. A queue that is
neither declared nor known from the snapshot before costs one more trip, once. Every age is told
by Redis' own clock. What an access rule refuses is a missing figure, not a missing screen.
"""

import time
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

import redis
from msgspec import structs

from rqscan.broker import keys
from rqscan.broker.connect import impatient, outage
from rqscan.config import QueueSettings, Settings
from rqscan.errors import RedisUnavailable
from rqscan.monitor import figures
from rqscan.monitor.figures import Answers, text
from rqscan.monitor.records import Server, Snapshot
from rqscan.monitor.trouble import find

__all__ = ["NEWEST_FAILED", "impatient", "take"]

NEWEST_FAILED = 200
"""Failed jobs that are read and grouped, over all queues; `Queue.failed` counts the rest too."""

FORGET_S = 3600
"""A worker without a beat for so long is no longer listed."""


def take(client: redis.Redis, settings: Settings, before: Snapshot | None = None) -> Snapshot:
    """Read the fleet once; `before` lends the names of the queues that it found.

    Raises:
        RedisUnavailable: Redis is away or tells us nothing at all.
    """
    known = {*settings.queues, *(queue.name for queue in (before.queues if before else ()))}
    with outage():
        a, rtt_ms = _trip_a(client, known)
        found = {text(key).removeprefix(keys.queue("")) for key in a["queues"] or ()}
        if not found <= known:
            a, rtt_ms = _trip_a(client, known | found)
        if a["time"] is None:
            raise RedisUnavailable("cannot use Redis: it does not tell its time, let us run TIME")
        at = a["time"][0] + a["time"][1] / 1e6
        names = sorted({*found, *settings.queues})
        ttls = {n: settings.queues.get(n, QueueSettings()).failure_ttl_s for n in names}
        answers = a | _trip_b(client, a, at, ttls)
    beats = {name: at - beat for name, beat in a["presence"] or () if at - beat < FORGET_S}
    workers = [
        figures.worker(text(n), age_s, answers["record", n], settings.worker)
        for n, age_s in sorted(beats.items())
    ]
    snapshot = Snapshot(
        at=datetime.fromtimestamp(at, UTC),
        redis=Server(up=True, version=(a["info"] or {}).get("redis_version"), rtt_ms=rtt_ms),
        queues=[figures.queue(name, at, answers, workers) for name in names],
        workers=workers,
        failed=figures.failures(answers),
        schedules=[figures.schedule(n, due, answers["entry", n]) for n, due in a["schedule"] or ()],
        scans=[figures.scan(n, at, answers["scan", n]) for n in a["scans"] or ()],
        leader=figures.leader(a["leader"]),
        counters=figures.counters(a["counters"]),
    )
    return structs.replace(snapshot, trouble=find(snapshot))


def _trip_a(client: redis.Redis, names: Iterable[str]) -> tuple[Answers, float]:
    pipe = client.pipeline(transaction=False)
    asked: Answers = {
        "time": pipe.time(),
        "queues": pipe.smembers(keys.QUEUES),
        "presence": pipe.zrange(keys.PRESENCE, 0, -1, withscores=True),
        "suspended": pipe.exists(keys.SUSPENDED),
        "info": pipe.info("server"),
        "counters": pipe.hgetall(keys.COUNTERS),
        "leader": pipe.get(keys.LEADER),
        "schedule": pipe.zrange(keys.SCHEDULE, 0, -1, withscores=True),
        "scans": pipe.zrange(keys.SCANS, 0, -1),
    }
    for name in names:
        failed = keys.registry("failed", name)
        asked |= {
            ("depth", name): pipe.llen(keys.queue(name)),
            ("head", name): pipe.lindex(keys.queue(name), 0),
            ("running", name): pipe.zcard(keys.registry("wip", name)),
            ("failed", name): pipe.zcard(failed),
            ("newest", name): pipe.zrevrange(failed, 0, NEWEST_FAILED - 1, withscores=True),
        }
    began = time.monotonic()
    answers = _go(pipe, asked)
    return answers, round((time.monotonic() - began) * 1000, 2)


def _trip_b(client: redis.Redis, a: Answers, at: float, ttls: Mapping[str, int]) -> Answers:
    pipe = client.pipeline(transaction=False)
    bucket = int(at / keys.STAT_S)
    asked: Answers = {
        ("stat", n): pipe.hgetall(keys.stat(bucket - n)) for n in range(1, 60 // keys.STAT_S + 1)
    }
    newest = []
    for name, ttl in ttls.items():
        if head := a["head", name]:
            asked["since", name] = pipe.hget(keys.job(text(head)), "enqueued_at")
        # The score is the time of the failure plus the job's failure_ttl: a job that RQ's own API
        # gave another ttl than its queue has counts as failed at another time.
        failed = keys.registry("failed", name)
        asked["failed_1h", name] = pipe.zcount(failed, at - 3600 + ttl, at + ttl)
        newest += [(score, name, job) for job, score in a["newest", name] or ()]
    for _, name, job in sorted(newest, reverse=True)[:NEWEST_FAILED]:
        fields = ("ended_at", "worker_name", "exc_info")
        asked["job", name, job] = pipe.hmget(keys.job(text(job)), *fields)
    for name, _ in a["presence"] or ():
        asked["record", name] = pipe.get(keys.record(text(name)))
    for entry, _ in a["schedule"] or ():
        asked["entry", entry] = pipe.hgetall(keys.schedule_entry(text(entry)))
    for name in a["scans"] or ():
        asked["scan", name] = pipe.hgetall(keys.progress(text(name)))
    return _go(pipe, asked)


def _go(pipe: Any, asked: Answers) -> Answers:
    """Send what was asked and name the answers; None stands for one that was refused."""
    answers = pipe.execute(raise_on_error=False)
    return {
        name: None if isinstance(answer, Exception) else answer
        for name, answer in zip(asked, answers, strict=True)
    }
