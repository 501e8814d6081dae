"""Inquiry: asks Redis, the database, the workers and this host what `preflight` judges.

What an access rule refuses is a missing fact. Nothing is written, but for a file in the home that
is gone at once.
"""

import math
import os
import shutil
import socket
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import redis
from msgspec.structs import replace

from rqscan import clock
from rqscan.batches import batches
from rqscan.broker import keys
from rqscan.broker.connect import connect, outage
from rqscan.broker.control import ask
from rqscan.errors import HomeUnavailable, ServiceUnavailable
from rqscan.fleet.preflight.facts import (
    Facts,
    HostFacts,
    RedisFacts,
    SpoolFacts,
    StoreFacts,
    WorkerFacts,
)
from rqscan.fleet.presence import Presence
from rqscan.fleet.roster import registered
from rqscan.fleet.schedulers import living
from rqscan.settings import Settings, mask_url
from rqscan.store.database import Database
from rqscan.store.drain import backlog
from rqscan.store.migrate import current, pending
from rqscan.store.repository import Repository

__all__ = ["gather"]

STREAM_S = 2.0
"""How long the Redis of the stream, on this host, has to answer."""

PAGE = 500
"""Entries that are asked for in one round trip."""

CONFIG = ("appendonly", "appendfsync", "maxmemory-policy", "maxmemory")


def gather(settings: Settings, timeout_s: float) -> Facts:
    """Learn all that is to be judged; workers have `timeout_s` to answer."""
    store, spool = _store(settings), _spool(settings)
    try:
        with outage(settings.redis.url or ""), connect(settings) as client:
            host = _host(settings, clock.offset_s())
            facts = _of_redis(_Asker(client), settings, store, host, timeout_s)
    except ServiceUnavailable as e:
        broker = RedisFacts(where=_where(settings), error=str(e))
        facts = Facts(redis=broker, store=store, host=_host(settings, None))
    return replace(facts, spool=spool)


class _Asker:
    """Asks Redis what it may not want to tell."""

    def __init__(self, client: redis.Redis) -> None:
        self.client = client
        self.refused: list[str] = []  # by an access rule
        self.write_error: str | None = None  # why Redis takes nothing

    def __call__(self, question: Callable[[], Any], default: Any) -> Any:
        try:
            return question()
        except redis.exceptions.NoPermissionError as e:
            self.refused.append(str(e))
        except redis.ResponseError as e:
            self.write_error = self.write_error or str(e)
        return default


def _of_redis(
    tell: _Asker,
    settings: Settings,
    store: StoreFacts,
    host: HostFacts,
    timeout_s: float,
) -> Facts:
    client: Any = tell.client
    leader: Any = tell(lambda: client.get(keys.LEADER), None)
    due = tell(lambda: client.zrange(keys.SCHEDULE, 0, -1, withscores=True), [])
    entries = max(sum(at < math.inf for _, at in due), len(settings.schedule))
    still = sorted(_text(name) for name, at in due if at == math.inf)
    said: dict[bytes, bytes] = tell(lambda: client.hgetall(keys.SCHEDULERS), {})
    schedulers = living({_text(name): raw for name, raw in said.items()}, clock.now())
    used = tell(lambda: client.smembers(keys.QUEUES), set())
    names = {_text(key).removeprefix(keys.queue("")) for key in used} | settings.queues.keys()
    paused = {_text(name) for name in tell(lambda: client.smembers(keys.PAUSED), set())}
    is_suspended = tell(lambda: client.exists(keys.SUSPENDED), 0)
    waiting = {n: tell(partial(client.llen, keys.queue(n)), 0) for n in sorted(names)}
    workers = _workers(tell, timeout_s)
    fleet_store = _text(tell(lambda: client.hget(keys.STORE, "store_id"), None))
    return Facts(
        redis=_redis(tell, _where(settings)),
        store=store,
        host=host,
        workers=workers,
        waiting=waiting,
        paused=sorted(names if is_suspended else paused),
        entries=entries,
        leader=_leader(leader),
        schedulers=schedulers,
        invalid=tell(lambda: _invalid(client, still), {}),
        fleet_store=fleet_store,
    )


def _redis(tell: _Asker, where: str) -> RedisFacts:
    client: Any = tell.client
    info: dict[str, Any] = tell(client.info, {})
    found: dict[str, str] = tell(lambda: client.config_get(*CONFIG), {})
    texts = {_text(name): _text(value) for name, value in found.items()}
    for name in ("aof_last_write_status", "rdb_last_bgsave_status"):
        if info.get(name, "ok") != "ok":
            tell.write_error = f"{name} is {info[name]}"
    limit = texts.get("maxmemory") or info.get("maxmemory")
    return RedisFacts(
        where=where,
        refused=tell.refused[0] if tell.refused else None,
        version=info.get("redis_version"),
        role=info.get("role"),
        appendonly=texts.get("appendonly"),
        appendfsync=texts.get("appendfsync"),
        policy=texts.get("maxmemory-policy") or info.get("maxmemory_policy"),
        used_bytes=info.get("used_memory"),
        most_bytes=int(limit) if limit else None,
        write_error=tell.write_error,
    )


def _workers(tell: _Asker, timeout_s: float) -> list[WorkerFacts]:
    known: dict[str, tuple[float, bytes]] = tell(lambda: registered(tell.client), {})
    answers = tell(
        lambda: {
            said.worker: said.data
            for said, _ in ask(tell.client, "ping", expected=known, timeout_s=timeout_s)
        },
        {},
    )
    found = []
    for name, (age_s, raw) in known.items():
        try:
            record = msgspec.json.decode(raw, type=Presence)
        except msgspec.MsgspecError:
            mismatch = "its record is gone, or of another version of rqscan"
            found.append(
                WorkerFacts(
                    name=name, answered=name in answers, is_lost=False, age_s=age_s,
                    mismatch=mismatch,
                )
            )  # fmt: skip
            continue
        found.append(
            WorkerFacts(
                name=name, answered=name in answers, is_lost=age_s > record.lease_s, age_s=age_s,
                host=record.host, versions=record.versions, mismatch=record.mismatch,
                clock_offset_s=record.clock_offset_s, queues=record.queues,
            )
        )  # fmt: skip
    return found


def _invalid(client: Any, names: list[str]) -> dict[str, str]:
    """Tell why entries that are never fired are invalid, if they are."""
    found: dict[str, str] = {}
    for page in batches(names, PAGE):
        with client.pipeline(transaction=False) as pipe:
            for name in page:
                pipe.hmget(keys.schedule_entry(name), "state", "reason")
            answers = pipe.execute()
        found |= {
            name: _text(reason)
            for name, (state, reason) in zip(page, answers, strict=True)
            if state == b"invalid"
        }
    return found


def _store(settings: Settings) -> StoreFacts:
    try:
        with Database.open(settings) as database:
            missing = pending(database)
            store_id = "" if missing else Repository(database).store_id()
            return StoreFacts(version=current(database), pending=missing, store_id=store_id)
    except ServiceUnavailable as e:
        return StoreFacts(error=str(e))


def _spool(settings: Settings) -> SpoolFacts:
    stream = _stream(settings.spool.redis_url) if settings.spool.redis_url else None
    try:
        kept = backlog(settings)
    except HomeUnavailable as e:
        return SpoolFacts(error=str(e), stream=stream)
    waited_s = (clock.now() - kept.oldest_at).total_seconds() if kept.oldest_at else 0.0
    return SpoolFacts(
        rows=kept.rows,
        share=kept.bytes / settings.spool.max_bytes,
        late_s=max(0.0, waited_s - settings.spool.max_delay_s),
        quarantined=kept.quarantined,
        stream=stream,
    )


def _stream(url: str) -> RedisFacts:
    where = mask_url(url)
    try:
        with redis.Redis.from_url(url, socket_timeout=STREAM_S) as client:
            client.ping()
            return _redis(_Asker(client), where)
    except (redis.RedisError, OSError, ValueError, TypeError) as e:
        return RedisFacts(where=where, error=f"cannot use Redis at {where}: {e}")


def _host(settings: Settings, offset_s: float | None) -> HostFacts:
    home, error, free = Path(settings.home), None, 0
    try:
        home.mkdir(mode=0o700, parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=home):
            free = shutil.disk_usage(home).free
    except OSError as e:
        error = f"cannot write {settings.home}: {e.strerror}"
    return HostFacts(
        name=socket.gethostname(),
        clock_offset_s=offset_s,
        home=settings.home,
        home_error=error,
        free_bytes=free,
        wanted_bytes=settings.spool.max_bytes,
        is_root=os.geteuid() == 0,
    )


def _where(settings: Settings) -> str:
    return mask_url(settings.redis.url) if settings.redis.url else "the embedded server"


def _leader(raw: bytes | None) -> str | None:
    try:
        return str(msgspec.json.decode(raw or b"", type=dict[str, Any]).get("name"))
    except msgspec.MsgspecError:
        return None


def _text(raw: Any) -> str:
    return raw.decode(errors="replace") if isinstance(raw, bytes) else str(raw or "")
