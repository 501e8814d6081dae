"""Handshake: does this process belong to the fleet? One fleet has one store and one job protocol.

Who enqueues writes the store's id and the protocol to Redis. A worker or scheduler that differs
would record rows where nobody looks, so it does nothing and says both values. Each asks its own
database for the id; the last one is kept in the home, for a start while the database is away.
"""

import time
from typing import Any

from rqscan.broker.payload import PROTOCOL
from rqscan.home import keep_id, known_id
from rqscan.logs import Event, log
from rqscan.settings import Settings

__all__ = ["Handshake"]

ASK_S = 5.0
"""Pause before a database that was away is asked again."""


class Handshake:
    """What one process knows of its own store and of the fleet's."""

    def __init__(self, name: str, settings: Settings) -> None:
        self._name = name
        self._settings = settings
        self.ask_at = 0.0  # monotonic: when to ask the database for its id
        self.store_id = known_id(settings)
        self._fleet = "", ""  # store and protocol as Redis has told them last
        self.mismatch = ""  # why it must do nothing: both values
        self.is_waiting = False  # the fleet has a store, and ours is not known yet

    @property
    def is_ours(self) -> bool:
        """Tell whether the fleet is this process' own."""
        return not (self.mismatch or self.is_waiting)

    def is_due(self) -> bool:
        """Tell, once, that the database is to be asked now; `learn` takes the answer."""
        is_due = time.monotonic() >= self.ask_at
        if is_due:
            self.ask_at = float("inf")
        return is_due

    def learn(self, answer: dict[str, Any] | None) -> None:
        """Take what the database told, as {"store_id": …}; None: it is away, so ask again."""
        if answer is None:
            self.ask_at = time.monotonic() + ASK_S
            return
        self.store_id = answer["store_id"]
        keep_id(self._settings, self.store_id)

    def judge(self, store_id: str, protocol: str) -> bool:
        """Compare with what Redis tells (empty: nothing); True if the verdict has changed."""
        before = self.mismatch, self.is_waiting
        # A Redis that has lost its data tells nothing: what was seen before still holds.
        self._fleet = (store_id or self._fleet[0], protocol or self._fleet[1])
        store_id, protocol = self._fleet
        self.is_waiting = bool(store_id) and not self.store_id
        self.mismatch = ""
        if protocol and protocol != str(PROTOCOL):
            self.mismatch = f"job protocol {PROTOCOL} here, {protocol} in the fleet"
        elif store_id and self.store_id and store_id != self.store_id:
            self.mismatch = f"store {self.store_id} here, {store_id} in the fleet"
        if self.mismatch and self.mismatch != before[0]:
            log(Event.MISMATCHED, who=self._name, reason=self.mismatch)
        return (self.mismatch, self.is_waiting) != before
