"""The leader's lease: of any number of schedulers one holds it, and only that one writes."""

import os
import socket
import time
from collections.abc import Callable
from typing import Any
from uuid import uuid4

import msgspec
import redis
from redis.client import Pipeline

from rqscan.broker import keys

__all__ = ["Lease"]

LEASE_MS = 5000
RENEW_S = 1.5


class Lease:
    """The right to lead, kept in Redis under `keys.LEADER`: JSON of name, host, pid and token."""

    def __init__(self, name: str) -> None:
        who = {"name": name, "host": socket.gethostname(), "pid": os.getpid()}
        self._claim = msgspec.json.encode(who | {"token": uuid4().hex})
        self._renew_at = 0.0

    @property
    def is_due(self) -> bool:
        """Tell whether it is time to renew, or we hold nothing."""
        return time.monotonic() >= self._renew_at

    def drop(self) -> None:
        """Count on it no more: the next turn finds out who leads."""
        self._renew_at = 0.0

    def renew(self, client: Any) -> bool:
        """Prolong the lease; False if it is not ours."""
        began = time.monotonic()
        is_ours = self.write(client, lambda pipeline: pipeline.pexpire(keys.LEADER, LEASE_MS))
        self._renew_at = began + RENEW_S if is_ours else 0.0
        return is_ours

    def take(self, client: Any) -> bool:
        """Take the lease if nobody has it."""
        return bool(client.set(keys.LEADER, self._claim, nx=True, px=LEASE_MS))

    def write(self, client: Any, commands: Callable[[Pipeline], object]) -> bool:
        """Run the commands in one transaction; False, and nothing is done, unless we lead."""
        with client.pipeline() as pipeline:
            pipeline.watch(keys.LEADER)  # its expiry counts as a change
            if pipeline.get(keys.LEADER) != self._claim:
                return False
            pipeline.multi()
            commands(pipeline)
            try:
                pipeline.execute()
            except redis.WatchError:
                return False
        return True
