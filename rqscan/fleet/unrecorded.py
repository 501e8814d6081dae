"""Unrecorded: chunks that ended without a living horse, which would have told the store."""

import time
from typing import Any

from rqscan import clock
from rqscan.fleet.errands import Errands

__all__ = ["Unrecorded"]

AGAIN_S = 5.0
"""Pause before a database that was away is tried again."""


class Unrecorded:
    """What one worker has still to have recorded, by an errand."""

    def __init__(self, errands: Errands) -> None:
        self._errands = errands
        self._chunks: list[tuple[Any, ...]] = []
        self._at = float("inf")
        self._has_failed = False  # the last try

    @property
    def is_pending(self) -> bool:
        """Tell whether some may still be recorded now; the minutely look finds the others."""
        return bool(self._chunks) and not self._has_failed

    @property
    def deadline(self) -> float:
        """Monotonic time at which `check` has something to do."""
        return self._at

    def add(self, *chunk: Any) -> None:
        """Take what is known of a chunk that has just failed.

        Args:
            chunk: scan id, chunk, generation, attempt, worker, error, seconds worked.
        """
        self._chunks.append((*chunk, clock.iso(clock.now())))
        if self._at == float("inf"):
            self._at = 0.0

    def check(self) -> None:
        """Have what there is recorded, if that is due."""
        if time.monotonic() >= self._at:
            self._at = float("inf")
            count = len(self._chunks)
            self._errands.run("ended", list(self._chunks), then=lambda a: self._on_done(count, a))

    def _on_done(self, count: int, answer: dict[str, Any] | None) -> None:
        self._has_failed = answer is None
        if answer is None:
            self._at = time.monotonic() + AGAIN_S
            return
        del self._chunks[:count]
        self._at = 0.0 if self._chunks else float("inf")
