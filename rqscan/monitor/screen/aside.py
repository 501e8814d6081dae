"""Aside: what waits for Redis is done beside the loop, so that keys are answered meanwhile."""

import queue
import threading
from collections.abc import Callable
from typing import Any, NamedTuple

__all__ = ["Aside", "Outcome"]


class Outcome(NamedTuple):
    """What a piece of work gave, or raised."""

    kind: str
    value: Any
    error: Exception | None


class Aside:
    """Does work in threads, one piece of a kind at a time; they end with the process.

    Args:
        wake: is called from there when a piece has ended.
    """

    def __init__(self, wake: Callable[[], None]) -> None:
        self._wake = wake
        self._ended: queue.SimpleQueue[Outcome] = queue.SimpleQueue()
        self.busy: set[str] = set()

    def start(self, kind: str, work: Callable[[], Any]) -> bool:
        """Begin a piece of work, unless one of its kind is being done; tells whether it did."""
        if kind in self.busy:
            return False
        self.busy.add(kind)
        threading.Thread(target=self._do, args=(kind, work), daemon=True).start()
        return True

    def _do(self, kind: str, work: Callable[[], Any]) -> None:
        try:
            found = Outcome(kind, work(), None)
        except Exception as e:  # noqa: BLE001 - the loop tells it, or raises it again
            found = Outcome(kind, None, e)
        self._ended.put(found)
        self._wake()

    def ended(self) -> list[Outcome]:
        """Give what has ended since."""
        found = []
        while not self._ended.empty():
            found.append(self._ended.get())
            self.busy.discard(found[-1].kind)
        return found
