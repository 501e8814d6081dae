"""Roster: the workers that have told of themselves, as others read it in Redis."""

import time
from typing import Any

import msgspec
import redis

from rqscan.broker import keys
from rqscan.errors import FailedError
from rqscan.fleet.presence import Presence, client_name

__all__ = ["FORGET_S", "is_listening", "refuse_living_namesake", "registered"]

FORGET_S = 3600
"""A worker without a beat for so long is no longer listed."""

NAMESAKE_S = 0.1
"""How often a starting worker looks for a beat of another one of its name."""


def registered(client: redis.Redis) -> dict[str, tuple[float, bytes]]:
    """Give the workers of the last hour, lost ones too: age of the last beat, and the record."""
    now, _ = client.time()
    beats: Any = client.zrangebyscore(keys.PRESENCE, now - FORGET_S, "+inf", withscores=True)
    names = {name.decode(errors="replace"): max(0.0, now - beat_at) for name, beat_at in beats}
    records: Any = client.mget(map(keys.record, names)) if names else []
    return {n: (a, raw or b"") for (n, a), raw in zip(names.items(), records, strict=True)}


def is_listening(client: redis.Redis, queue: str) -> bool:
    """Tell whether a worker that lives takes jobs from a queue."""
    now, _ = client.time()
    beats: Any = client.zrange(keys.PRESENCE, 0, -1, withscores=True)
    for name, beat_at in beats:
        worker = _read(client, name.decode())
        if worker and queue in worker.queues and now - beat_at < worker.lease_s:
            return True
    return False


def refuse_living_namesake(client: redis.Redis, name: str) -> None:
    """Make sure that no other worker of this name lives; one that seems to has a lease to beat.

    Raises:
        FailedError: one does; says where.
    """
    other = _read(client, name)
    clients = client.client_list(client_id=[other.client_id]) if other else []
    if not other or all(one["name"] != client_name(other.boot) for one in clients):
        return
    # A host that lost its power says no goodbye, so its connection proves nothing: a beat does.
    beat_at, until = client.zscore(keys.PRESENCE, name), time.monotonic() + other.lease_s
    while time.monotonic() < until:
        if client.zscore(keys.PRESENCE, name) != beat_at:
            raise FailedError(
                f"worker name {name!r} is held by a worker that lives: pid {other.pid} on "
                f"{other.host}; choose another --name or stop that one"
            )
        time.sleep(NAMESAKE_S)


def _read(client: redis.Redis, name: str) -> Presence | None:
    raw: Any = client.get(keys.record(name))
    try:
        return msgspec.json.decode(raw or b"", type=Presence)
    except msgspec.MsgspecError:  # gone, or of another version
        return None
