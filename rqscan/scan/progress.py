"""How far a scan is: counted in Redis by the script that ends a chunk, read here."""

from typing import Any

import msgspec
import redis

from rqscan.broker import keys
from rqscan.broker.connect import outage
from rqscan.model import Progress

__all__ = ["read_progress"]


def read_progress(client: redis.Redis, scan_id: str) -> Progress | None:
    """Read a scan's progress from Redis; None once it is not kept there (ask the store).

    Raises:
        RedisUnavailable: Redis is away.
    """
    with outage():
        raw: Any = client.hgetall(keys.progress(scan_id))
    found = {name.decode(): value.decode() for name, value in raw.items()}
    if "total" not in found:
        return None
    return msgspec.convert(found | {"scan_id": scan_id, "chunks": found}, Progress, strict=False)
