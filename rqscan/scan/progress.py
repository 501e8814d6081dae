"""How far a scan is: counted in Redis by the script that ends a chunk, read here."""

from typing import Any

import redis

from rqscan import clock
from rqscan.broker import keys
from rqscan.broker.connect import outage
from rqscan.model import Counts, Progress

__all__ = ["read_progress"]


def read_progress(client: redis.Redis, scan_id: str) -> Progress | None:
    """Read a scan's progress from Redis; None once it is not kept there (ask the store).

    Raises:
        RedisUnavailable: Redis is away.
    """
    with outage():
        raw: Any = client.hgetall(keys.progress(scan_id))
    if b"total" not in raw:
        return None
    numbers = {
        name: int(raw.get(name.encode(), 0))
        for name in ("total", "done", "failed", "cancelled", "observations", "probes")
    }
    times = {
        name: clock.from_iso(raw[name.encode()].decode()) if name.encode() in raw else None
        for name in ("started_at", "finished_at")
    }
    observations, probes = numbers.pop("observations"), numbers.pop("probes")
    return Progress(
        scan_id=scan_id,
        chunks=Counts(**numbers),
        observations=observations,
        probes=probes,
        started_at=times["started_at"],
        finished_at=times["finished_at"],
    )
