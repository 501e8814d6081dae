"""Snapshot: Redis → plain data, in two round trips, without a write, a payload or a key scan.

Trip A asks for what has a known name, trip B for the details that A has named. A queue that is
neither declared nor known from the snapshot before costs one more trip, once. Every age is told
by Redis' own clock. What an access rule refuses is a missing figure, not a missing screen.
"""

import hashlib
import json
import re
import time
import zlib
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import msgspec
import redis
from msgspec import structs
from redis.backoff import NoBackoff
from redis.retry import Retry

from rqscan import clock
from rqscan.broker import keys
from rqscan.broker.connect import outage
from rqscan.config import QueueSettings, Settings
from rqscan.errors import RedisUnavailable
from rqscan.fleet.presence import LAPSE_S, Presence
from rqscan.model import Counts, Progress
from rqscan.monitor.records import Failure, Queue, Schedule, Server, Snapshot, Task, Worker
from rqscan.monitor.trouble import find
from rqscan.states import WorkerState

__all__ = ["NEWEST_FAILED", "impatient", "take"]

NEWEST_FAILED = 200
"""Failed jobs that are read and grouped, over all queues; `Queue.failed` counts the rest too."""

ANSWER_S = 2.0
"""Longest wait for Redis once connected: the keys of `top` are dead for so long at most."""

FORGET_S = 3600
"""A worker without a beat for so long is no longer listed."""

OVERDUE = 1.5
"""Beats that may be missed, in heartbeats, before a worker is stale."""

COUNTERS = ("rescued", "lost", "refused", "fenced")

MAX_TRACEBACK_BYTES = 1_000_000

FOLDS = (
    (re.compile(r"\b\d+(\.\d+){3}\b|\b[0-9a-fA-F]{1,4}(:[0-9a-fA-F]{0,4}){2,7}"), "<ip>"),
    (re.compile(r"\b(0x[0-9a-fA-F]+|(?=[a-f]*\d)[0-9a-f]{8,})\b"), "<hex>"),
    (re.compile(r"\d+"), "<n>"),
)

Answers = dict[Any, Any]


def impatient(client: redis.Redis) -> redis.Redis:
    """Make each wait of the client short and single: the next refresh is the retry."""
    short = {"socket_timeout": ANSWER_S, "socket_connect_timeout": ANSWER_S}
    client.connection_pool.connection_kwargs.update(short, retry=Retry(NoBackoff(), 0))
    client.connection_pool.disconnect()
    return client


def take(client: redis.Redis, settings: Settings, before: Snapshot | None = None) -> Snapshot:
    """Read the fleet once; `before` lends the names of the queues that it found.

    Raises:
        RedisUnavailable: Redis is away or tells us nothing at all.
    """
    known = {*settings.queues, *(queue.name for queue in (before.queues if before else ()))}
    with outage():
        a, rtt_ms = _trip_a(client, known)
        found = {key.decode().removeprefix(keys.queue("")) for key in a["queues"] or ()}
        if not found <= known:
            a, rtt_ms = _trip_a(client, known | found)
        if a["time"] is None:
            raise RedisUnavailable("cannot use Redis: it does not tell its time, let us run TIME")
        at = a["time"][0] + a["time"][1] / 1e6
        names = sorted({*found, *settings.queues})
        b = _trip_b(client, a, at, {n: settings.queues.get(n, QueueSettings()) for n in names})
    workers = [
        _worker(name.decode(), at - beat, b["record", name], settings)
        for name, beat in a["presence"] or ()
        if at - beat < FORGET_S
    ]
    snapshot = Snapshot(
        at=datetime.fromtimestamp(at, UTC),
        redis=Server(up=True, version=(a["info"] or {}).get("redis_version"), rtt_ms=rtt_ms),
        queues=[_queue(name, at, a, b, workers) for name in names],
        workers=sorted(workers, key=lambda worker: worker.name),
        failed=_failures(b),
        schedules=[_schedule(name, due, b["entry", name]) for name, due in a["schedule"] or ()],
        scans=[_scan(scan, at, b["scan", scan]) for scan in a["scans"] or ()],
        leader=_leader(a["leader"]),
        counters={k: int((a["counters"] or {}).get(k.encode(), 0)) for k in COUNTERS},
    )
    return structs.replace(snapshot, trouble=find(snapshot))


def _trip_a(client: redis.Redis, names: set[str]) -> tuple[Answers, float]:
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


def _trip_b(
    client: redis.Redis, a: Answers, at: float, queues: Mapping[str, QueueSettings]
) -> Answers:
    pipe = client.pipeline(transaction=False)
    asked: Answers = {
        ("stat", n): pipe.hgetall(keys.stat(int(at / keys.STAT_S) - n))
        for n in range(1, 60 // keys.STAT_S + 1)
    }
    newest = []
    for name, settings in queues.items():
        if head := a["head", name]:
            asked["since", name] = pipe.hget(keys.job(head.decode()), "enqueued_at")
        # the score is the time of the failure + failure_ttl; one that another ttl was set for
        # (by RQ's own API) counts as failed at another time
        ttl, failed = settings.failure_ttl_s, keys.registry("failed", name)
        asked["failed_1h", name] = pipe.zcount(failed, at - 3600 + ttl, at + ttl)
        newest += [(score, name, job) for job, score in a["newest", name] or ()]
    for _, name, job in sorted(newest, reverse=True)[:NEWEST_FAILED]:
        fields = pipe.hmget(keys.job(job.decode()), "ended_at", "worker_name", "exc_info")
        asked["job", name, job] = fields
    asked |= {("record", n): pipe.get(keys.record(n.decode())) for n, _ in a["presence"] or ()}
    for name, _ in a["schedule"] or ():
        asked["entry", name] = pipe.hgetall(keys.schedule_entry(name.decode()))
    asked |= {("scan", n): pipe.hgetall(keys.progress(n.decode())) for n in a["scans"] or ()}
    return _go(pipe, asked)


def _go(pipe: Any, asked: Answers) -> Answers:
    """Send what was asked and name the answers; None stands for one that was refused."""
    answers = pipe.execute(raise_on_error=False)
    return {
        name: None if isinstance(answer, Exception) else answer
        for name, answer in zip(asked, answers, strict=True)
    }


def _queue(name: str, at: float, a: Answers, b: Answers, workers: list[Worker]) -> Queue:
    since = _moment(b.get(("since", name)))
    buckets = [answer or {} for key, answer in b.items() if key[0] == "stat"]
    moved = {
        way: sum(int(bucket.get(f"{name}:{way}".encode(), 0)) for bucket in buckets)
        for way in ("in", "out")
    }
    return Queue(
        name=name,
        depth=a["depth", name],
        oldest_s=max(0.0, round(at - since.timestamp(), 3)) if since else None,
        running=a["running", name],
        in_per_s=round(moved["in"] / 60, 3),
        out_per_s=round(moved["out"] / 60, 3),
        failed=a["failed", name],
        failed_1h=b["failed_1h", name],
        paused=bool(a["suspended"]),
        workers=sum(name in worker.queues and worker.state != "lost" for worker in workers),
    )


def _worker(name: str, age_s: float, raw: bytes | None, settings: Settings) -> Worker:
    try:
        record = msgspec.json.decode(raw or b"", type=Presence)
    except msgspec.MsgspecError:
        record = None  # gone, or written by another version
    state = record.state if record else WorkerState.MISMATCHED
    if age_s > LAPSE_S:
        state = WorkerState.LOST
    elif age_s > settings.worker.heartbeat_s * OVERDUE:
        state = WorkerState.STALE
    age_s = round(age_s, 3)
    if record is None:
        return Worker(name=name, state=state, heartbeat_age_s=age_s)
    jobs = [structs.replace(job, age_s=round(job.age_s + age_s, 3)) for job in record.jobs]
    oldest = max(jobs, key=lambda job: job.age_s, default=None)
    same = {f: getattr(record, f) for f in Worker.__struct_fields__ if hasattr(record, f)}
    return Worker(
        **same | {"state": str(state), "jobs": jobs},
        heartbeat_age_s=age_s,
        job=oldest.id if oldest else None,
        job_age_s=oldest.age_s if oldest else None,
    )


def _failures(b: Answers) -> list[Failure]:
    groups: dict[tuple[str, str], list[tuple[datetime | None, str, str]]] = {}
    for key, fields in b.items():
        if key[0] == "job" and fields:
            ended_at, worker, traceback = fields
            member = _moment(ended_at), _text(worker), _text(key[2])
            groups.setdefault((key[1], _error(traceback)), []).append(member)
    failures = [
        Failure(
            group=hashlib.blake2s(f"{queue}\n{error}".encode(), digest_size=4).hexdigest(),
            error=error,
            count=len(members),
            last_at=max((at for at, _, _ in members if at), default=None),
            queue=queue,
            workers=sorted({worker for _, worker, _ in members if worker}),
            jobs=[job for _, _, job in members],
        )
        for (queue, error), members in groups.items()
    ]
    never = datetime.min.replace(tzinfo=UTC)
    return sorted(failures, key=lambda failure: failure.last_at or never, reverse=True)


def _error(traceback: bytes | None) -> str:
    """Give the last line of a traceback with numbers and addresses folded."""
    try:
        raw = zlib.decompressobj().decompress(traceback or b"", MAX_TRACEBACK_BYTES)
    except zlib.error:
        raw = traceback or b""  # RQ reads plain ones too
    lines = _text(raw).strip().splitlines() or ["(no error was kept)"]
    error = lines[-1][:300]
    for pattern, word in FOLDS:
        error = pattern.sub(word, error)
    return error


def _schedule(name: bytes, due: float, fields: dict[bytes, bytes] | None) -> Schedule:
    run = {_text(k): _text(v) for k, v in (fields or {}).items()}
    last = run.get("last_at")
    return Schedule(
        name=_text(name),
        next_at=datetime.fromtimestamp(due, UTC),
        last_at=datetime.fromtimestamp(float(last), UTC) if last else None,
        lateness_s=float(run["lateness_s"]) if run.get("lateness_s") else None,
        paused=run.get("paused") == "1",
        state=run.get("state"),
    )


def _scan(name: bytes, at: float, fields: dict[bytes, bytes] | None) -> Task:
    found = fields or {}
    total, done, failed = (int(found.get(k, 0)) for k in (b"total", b"done", b"failed"))
    began = _moment(found.get(b"started_at"))
    chunks = Counts(total, done, failed)
    ended = done + failed
    return Task(
        scan_id=_text(name),
        state=Progress(scan_id=_text(name), chunks=chunks, started_at=began).state,
        chunks=chunks,
        eta_s=round((at - began.timestamp()) / ended * (total - ended), 1)
        if began and ended
        else None,
    )


def _leader(value: bytes | None) -> str | None:
    try:
        return str(json.loads(value)["name"]) if value else None
    except (ValueError, TypeError, LookupError):
        return _text(value)


def _moment(value: bytes | None) -> datetime | None:
    try:
        return clock.from_iso(_text(value))
    except ValueError:
        return None


def _text(value: bytes | None) -> str:
    return (value or b"").decode(errors="replace")
