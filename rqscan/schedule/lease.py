"""The leader's lease: of any number of schedulers one holds it, and only that one writes."""

import os
import socket
from collections.abc import Callable
from typing import Any
from uuid import uuid4

import msgspec
from redis.client import Pipeline

from rqscan.broker import keys

__all__ = ["Lease"]

LEASE_MS = 5000
"""Longest time without a leader after one died; renewed three times within it."""


class Lease:
    """The right to lead, kept in Redis under `keys.LEADER`: JSON of name, host, pid and token."""

    def __init__(self, client: Any, name: str) -> None:
        who = {"name": name, "host": socket.gethostname(), "pid": os.getpid()}
        self._client, self.claim = client, msgspec.json.encode(who | {"token": uuid4().hex})

    def take(self) -> bool:
        """Take the lease if nobody has it."""
        return bool(self._client.set(keys.LEADER, self.claim, nx=True, px=LEASE_MS))

    def renew(self) -> bool:
        """Prolong the lease; False if it is not ours."""
        return self.write(lambda pipeline: pipeline.pexpire(keys.LEADER, LEASE_MS))

    def release(self) -> None:
        """Let another lead at once."""
        self.write(lambda pipeline: pipeline.delete(keys.LEADER))

    def write(self, commands: Callable[[Pipeline], object]) -> bool:
        """Run the commands in one transaction; False, and nothing is done, unless we lead."""

        def attempt(pipeline: Any) -> bool:
            is_ours: bool = pipeline.get(keys.LEADER) == self.claim
            pipeline.multi()
            if is_ours:
                commands(pipeline)
            return is_ours

        # The key's expiry counts as a change: the second attempt finds that it is not ours.
        is_ours: bool = self._client.transaction(attempt, keys.LEADER, value_from_callable=True)
        return is_ours
