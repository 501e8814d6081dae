"""Left over: follow-ups whose worker died before they were done; the sweeper has them done.

See `rqscan.fleet.stable.follow_up` for what they are.
"""

import time
from collections.abc import Callable
from typing import Any

from rqscan.broker import keys, scripts
from rqscan.broker.link import LOST, Link, NoAnswer
from rqscan.fleet.outage import Outage

__all__ = ["LeftOver"]

SOON_S, LATE_S = 2.0, 120.0
"""A new sweeper looks soon, since a worker may have died, then less and less often."""

AGAIN_S = 130
"""How long one is left to the worker that took it: longer than a follow-up may take."""

ENDS = {"finished", "failed", "stopped", "canceled", "retry"}

MOST = 10
"""Taken at once: each waits for a work-horse of the sweeper."""


class LeftOver:
    """The sweeper's look at what nobody has followed up.

    Args:
        outage: told what Redis does not take.
        follow_up: called with end and job of each.
    """

    def __init__(self, outage: Outage, follow_up: Callable[[str, str], None]) -> None:
        self._outage, self._follow_up = outage, follow_up
        self._pause_s = SOON_S
        self.deadline = float("inf")  # monotonic time of the next look

    def assign(self, *, is_sweeper: bool) -> None:
        """Learn whether to look, as each beat tells."""
        if not is_sweeper:
            self.deadline = float("inf")
        elif self.deadline == float("inf"):
            self._pause_s, self.deadline = SOON_S, time.monotonic()

    def look(self, link: Link) -> None:
        """Take what is due if we are the sweeper."""
        if time.monotonic() >= self.deadline:
            self.deadline = time.monotonic() + self._pause_s
            self._pause_s = min(2 * self._pause_s, LATE_S)
            link.send(
                "EVALSHA",
                scripts.FOLLOW_UP.sha,
                1,
                keys.FOLLOW_UPS,
                MOST,
                AGAIN_S,
                then=lambda answer: self._take(link, answer),
            )

    def _take(self, link: Link, answer: Any) -> None:
        if isinstance(answer, NoAnswer):
            if answer is not LOST:
                self._outage.refused("follow-up", answer)
            return
        for member in answer:
            end, colon, job_id = member.decode(errors="replace").partition(":")
            if colon and end in ENDS:
                self._follow_up(end, job_id)
            else:  # nobody of ours has written that
                link.send("ZREM", keys.FOLLOW_UPS, member)
