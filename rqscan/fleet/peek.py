"""Peek: hears what stock RQ enqueues, which rings no bell.

The sweeper blocks on each queue itself, by a move from the queue's head to the same place: it
answers once there is a job and takes nothing away. One worker listens for the whole fleet, and
wakes one by the bell.
"""

import selectors
import time
from collections.abc import Iterable
from functools import partial
from typing import Any

from rqscan.broker import keys
from rqscan.broker.endpoint import Endpoint
from rqscan.broker.link import LOST, Link, NoAnswer

__all__ = ["Peek"]

BLOCK_S = 600
"""Longest block; that a connection is gone is told by the one that beats."""

AGAIN_S = (0.03, 0.5)
"""Shortest and longest pause after an answer: as long as jobs wait, the next comes at once.
Doubled while there is nobody to wake, or nobody may take the first of them."""

REFUSED_S = 1.0
"""Pause where the command is not allowed: the sweep rings each second."""


class Peek:
    """Listens on the queues that a sweeper is told.

    Args:
        endpoint: of the Redis to use.
        selector: the loop's.
        command: the link to ring a queue's bell by.
    """

    def __init__(self, endpoint: Endpoint, selector: selectors.BaseSelector, command: Link) -> None:
        self._endpoint, self._selector, self._command = endpoint, selector, command
        self._links: dict[str, Link] = {}
        self._at: dict[str, float] = {}  # monotonic: when to block again
        self._pause_s: dict[str, float] = {}
        self._first: dict[str, Any] = {}  # the job that was first when it answered last

    @property
    def deadline(self) -> float:
        """Monotonic time at which `check` has something to do."""
        dues = [link.deadline for link in self._links.values()]
        dues += [self._at[name] for name, link in self._links.items() if link.is_up]
        return min(dues, default=float("inf"))

    def watch(self, queues: Iterable[str]) -> None:
        """Listen on these queues and no others."""
        wanted = set(queues)
        for name in self._links.keys() - wanted:
            self._links.pop(name).close()
        for name in wanted - self._links.keys():
            self._at[name], self._pause_s[name] = 0.0, AGAIN_S[0]
            self._links[name] = Link(
                self._endpoint, self._selector, partial(self._at.update, {name: 0.0}),
                lambda _reason: None, blocking_s=BLOCK_S,
            )  # fmt: skip

    def check(self) -> None:
        """Connect where that is due, and block again."""
        now = time.monotonic()
        for name, link in self._links.items():
            link.check()
            if link.is_up and not link.is_waiting and now >= self._at[name]:
                queue = keys.queue(name)
                then = partial(self._on, name)
                link.send("BLMOVE", queue, queue, "LEFT", "LEFT", BLOCK_S, then=then)
                self._at[name] = float("inf")
            link.flush()

    def _on(self, name: str, answer: Any) -> None:
        shortest_s, _ = AGAIN_S
        if answer is LOST or answer is None:
            self._pause(name, shortest_s)
        elif isinstance(answer, NoAnswer):
            self._pause(name, REFUSED_S)
        else:
            self._pause(name, self._pause_s[name])
            is_stuck, self._first[name] = self._first.get(name) == answer, answer
            then = partial(self._on_rung, name, is_stuck=is_stuck)
            self._command.send("LPUSH", keys.bell(name), "1", then=then)
            self._command.send("LTRIM", keys.bell(name), 0, 0)

    def _on_rung(self, name: str, rings: Any, *, is_stuck: bool) -> None:
        shortest_s, longest_s = AGAIN_S
        # A bell that still rang has nobody who waits for it: all are busy, and claim by themselves.
        is_busy = is_stuck or (isinstance(rings, int) and rings > 1)
        self._pause(name, min(2 * self._pause_s[name], longest_s) if is_busy else shortest_s)

    def _pause(self, name: str, pause_s: float) -> None:
        self._at[name], self._pause_s[name] = time.monotonic() + pause_s, pause_s
