"""Outage: a server that is away is told once, and once more when it is back."""

import time

from rqscan.logs import Event, log

__all__ = ["Outage"]

REFUSED = " was refused: "
"""In the reason of a link that went down: the server's own words follow."""


class Outage:
    """Redis as one process sees it; `who` goes into each record of the log."""

    def __init__(self, **who: str) -> None:
        self._who = who
        self._since: float | None = None
        self._refused: set[str] = set()  # what was told since Redis took everything

    @property
    def away_s(self) -> float:
        """How long Redis has been away; 0 while it is there."""
        return 0.0 if self._since is None else time.monotonic() - self._since

    def begin(self, reason: str) -> None:
        """Note that Redis is away, however often that is seen."""
        if self._since is None:
            self._since = time.monotonic()
            log(Event.REDIS_LOST, **self._who, reason=reason)
        elif REFUSED in reason:  # it was a dropped connection at first, and is a password now
            self.refused("connection", reason)

    def refused(self, what: str, error: object) -> None:
        """Note that the server answers, and takes something not; said once."""
        if what not in self._refused:
            self._refused.add(what)
            log(Event.REDIS_REFUSED, **self._who, what=what, reason=str(error))

    def end(self) -> None:
        """Note that Redis answers, and takes what we write."""
        if self._since is not None:
            log(Event.REDIS_BACK, **self._who, away_s=round(self.away_s, 1))
            self._since = None
            self._refused.clear()
