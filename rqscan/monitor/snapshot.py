"""Snapshot: Redis → plain data, in two round trips, without a write, a payload or a key scan.

Trip A asks for what has a known name, trip B for the details that A has named. A queue that is
neither declared nor known from the snapshot before costs one more trip, once. Every age is told
by Redis' own clock. What an access rule refuses is a missing figure, not a missing screen.
"""

import time
from collections import Counter
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

import redis
from msgspec import structs
from redis.backoff import NoBackoff
from redis.client import NEVER_DECODE
from redis.retry import Retry

from rqscan.broker import keys
from rqscan.broker.connect import outage
from rqscan.config import QueueSettings, Settings
from rqscan.errors import RedisUnavailable
from rqscan.monitor import figures
from rqscan.monitor.figures import read
from rqscan.monitor.records import Moment, Queue, Schedule, Server, Snapshot
from rqscan.monitor.trouble import away, find

__all__ = ["NEWEST_FAILED", "reader", "take"]

Answers = dict[Any, Any]
"""Answers by the name of what was asked; None for what was refused."""

COUNTERS = ("rescued", "lost", "refused", "fenced")

NEWEST_FAILED = 200
"""Failed jobs that are read and grouped, over all queues; `Queue.failed` counts the rest too."""

ANSWER_S = 2.0
"""Longest wait for Redis once connected: the keys of `top` are dead for so long at most."""

FORGET_S = 3600
"""A worker without a beat for so long is no longer listed."""


def reader(client: redis.Redis) -> redis.Redis:
    """Make a client read texts, and wait once and briefly: the next refresh is the retry."""
    pool = client.connection_pool
    pool.connection_kwargs.update(
        socket_timeout=ANSWER_S, socket_connect_timeout=ANSWER_S, retry=Retry(NoBackoff(), 0),
        decode_responses=True, encoding_errors="replace",
    )  # fmt: skip
    pool.disconnect()
    pool.reset()  # connections that were made keep what they were made with
    return client


def take(client: redis.Redis, settings: Settings, before: Snapshot | None = None) -> Snapshot:
    """Read the fleet once, through a client that `reader` made; `before` is what it read last.

    Raises:
        RedisUnavailable: Redis is away or tells us nothing at all, and there is no `before`:
            it is given again, with that as its first trouble.
    """
    try:
        with outage():
            return _read(
                client, settings, {queue.name for queue in before.queues} if before else set()
            )
    except RedisUnavailable as e:
        if before is None:
            raise
        return away(before, str(e))


def _read(client: redis.Redis, settings: Settings, known: set[str]) -> Snapshot:
    known |= settings.queues.keys()
    a, rtt_ms = _trip_a(client, known)
    found = {key.removeprefix(keys.queue("")) for key in a["queues"] or ()}
    if not found <= known:
        a, rtt_ms = _trip_a(client, known | found)
    at = a["time"][0] + a["time"][1] / 1e6  # whoever connected may ask for it
    ttls = {
        name: settings.queues.get(name, QueueSettings()).failure_ttl_s
        for name in sorted({*found, *settings.queues})
    }
    b = _trip_b(client, a, at, ttls)
    workers = [
        figures.worker(name, round(at - beat_at, 3), b["record", name], settings.worker)
        for name, beat_at in sorted(a["presence"] or ())
        if at - beat_at < FORGET_S
    ]
    served = [name for worker in workers if worker.state != "lost" for name in worker.queues]
    stats: Counter[str] = Counter()
    for name, bucket in b.items():
        if name[0] == "stat":
            stats.update(read(dict[str, int], bucket, {}))

    def queue(name: str) -> Queue:
        since = read(Moment, b.get(("since", name)))
        return Queue(
            name=name,
            depth=a["depth", name],
            oldest_s=max(0.0, round(at - since.timestamp(), 3)) if since else None,
            running=a["running", name],
            in_per_s=round(stats[f"{name}:in"] / 60, 3),
            out_per_s=round(stats[f"{name}:out"] / 60, 3),
            failed=a["failed", name],
            failed_1h=b["failed_1h", name],
            paused=bool(a["suspended"]),
            workers=served.count(name),
        )

    def schedule(name: str, next_at: float | None) -> Schedule:
        fields = (b["entry", name] or {}) | {"name": name, "next_at": next_at}
        return read(Schedule, fields, Schedule(name=name))

    snapshot = Snapshot(
        at=datetime.fromtimestamp(at, UTC),
        redis=Server(up=True, version=(a["info"] or {}).get("redis_version"), rtt_ms=rtt_ms),
        queues=[queue(name) for name in ttls],
        workers=workers,
        failed=figures.failures({key[1:]: fields for key, fields in b.items() if key[0] == "job"}),
        schedules=[schedule(*both) for both in _due(a).items()],
        scans=[figures.scan(name, at, b["scan", name] or {}) for name in a["scans"] or ()],
        leader=read(dict[str, Any], a["leader"], {}, is_json=True).get("name"),
        counters=dict.fromkeys(COUNTERS, 0) | read(dict[str, int], a["counters"], {}),
    )
    return structs.replace(snapshot, trouble=list(find(snapshot)))


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
        "entries": pipe.smembers(keys.ENTRIES),
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
            asked["since", name] = pipe.hget(keys.job(head), "enqueued_at")
        # The score is the time of the failure plus the job's failure_ttl: a job that RQ's own API
        # gave another ttl than its queue has counts as failed at another time.
        failed = keys.registry("failed", name)
        asked["failed_1h", name] = pipe.zcount(failed, at - 3600 + ttl, at + ttl)
        newest += [(score, name, job) for job, score in a["newest", name] or ()]
    for _, name, job in sorted(newest, reverse=True)[:NEWEST_FAILED]:
        fields = ("ended_at", "worker_name", "exc_info")
        command = ("HMGET", keys.job(job), *fields)
        asked["job", name, job] = pipe.execute_command(*command, **{NEVER_DECODE: True})  # is zlib
    for name, _ in a["presence"] or ():
        asked["record", name] = pipe.get(keys.record(name))
    for entry in _due(a):
        asked["entry", entry] = pipe.hgetall(keys.schedule_entry(entry))
    for name in a["scans"] or ():
        asked["scan", name] = pipe.hgetall(keys.progress(name))
    return _go(pipe, asked)


def _due(a: Answers) -> dict[str, float | None]:
    """Give every schedule entry with its next due time; those without one come last."""
    due: dict[str, float | None] = dict(a["schedule"] or ())
    return due | {name: None for name in sorted(a["entries"] or ()) if name not in due}


def _go(pipe: Any, asked: Answers) -> Answers:
    """Send what was asked and name the answers; None stands for one that was refused."""
    answers = pipe.execute(raise_on_error=False)
    return {
        name: None if isinstance(answer, Exception) else answer
        for name, answer in zip(asked, answers, strict=True)
    }
