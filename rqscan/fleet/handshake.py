"""Handshake: does this worker belong to the fleet? One fleet has one store and one job protocol.

Who enqueues writes the store's id and the protocol to Redis. A worker that differs would record
rows where nobody looks, so it claims nothing and says both values. The id is read from the database
by a child process; the last one is kept in the home, for a start while the database is away.
"""

import time
from collections.abc import Callable
from contextlib import suppress
from hashlib import blake2b
from pathlib import Path
from typing import Any

from rqscan.broker.payload import PROTOCOL
from rqscan.config import Settings
from rqscan.fleet.errands import Errands
from rqscan.logs import Event, log

__all__ = ["Handshake"]

ASK_S = 5.0
"""Pause before a database that was away is asked again."""


class Handshake:
    """What one worker knows of its own store and of the fleet's.

    Args:
        name: of the worker.
        settings: name the database.
        errands: ask the database.
    """

    def __init__(self, name: str, settings: Settings, errands: Errands) -> None:
        self._name, self._errands = name, errands
        self.on_learned: Callable[[], None] = lambda: None
        self.deadline = 0.0  # monotonic: when to ask the database
        about = blake2b((settings.database.url or "").encode(), digest_size=8).hexdigest()
        self._kept = Path(settings.home) / f"store-{about}"
        self.store_id = ""
        self.mismatch = ""  # why it must not claim: both values
        self.is_waiting = False  # the fleet has a store, and ours is not known yet
        with suppress(OSError):
            self.store_id = self._kept.read_text("ascii").strip()

    @property
    def is_ours(self) -> bool:
        """Tell whether this worker may claim."""
        return not (self.mismatch or self.is_waiting)

    def check(self) -> None:
        """Ask the database for its id, if that is due."""
        if time.monotonic() >= self.deadline:
            self.deadline = float("inf")
            self._errands.run("store", self._on_store)

    def _on_store(self, answer: dict[str, Any] | None) -> None:
        if answer is None:
            self.deadline = time.monotonic() + ASK_S
            return
        self.store_id = answer["store_id"]
        with suppress(OSError):  # a full disk: the database tells it again
            self._kept.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._kept.write_text(self.store_id, "ascii")
        self.on_learned()

    def judge(self, store_id: str, protocol: str) -> bool:
        """Compare with what Redis tells (empty: nobody has enqueued yet); True if it changed."""
        before, self.mismatch = (self.mismatch, self.is_waiting), ""
        self.is_waiting = bool(store_id) and not self.store_id
        if protocol and protocol != str(PROTOCOL):
            self.mismatch = f"job protocol {PROTOCOL} here, {protocol} in the fleet"
        elif store_id and self.store_id and store_id != self.store_id:
            self.mismatch = f"store {self.store_id} here, {store_id} in the fleet"
        if self.mismatch and self.mismatch != before[0]:
            log(Event.WORKER_MISMATCHED, worker=self._name, reason=self.mismatch)
        return (self.mismatch, self.is_waiting) != before
