"""Outage: a server that is away is told once, and once more when it is back."""

import time

from rqscan.logs import Event, log

__all__ = ["Outage"]


class Outage:
    """Redis as one process sees it; `who` goes into each record of the log."""

    def __init__(self, **who: str) -> None:
        self._who = who
        self._since: float | None = None

    @property
    def away_s(self) -> float:
        """How long Redis has been away; 0 while it is there."""
        return 0.0 if self._since is None else time.monotonic() - self._since

    def begin(self, reason: str) -> None:
        """Note that Redis is away, however often that is seen."""
        if self._since is None:
            self._since = time.monotonic()
            log(Event.REDIS_LOST, **self._who, reason=reason)

    def end(self) -> None:
        """Note that Redis answers."""
        if self._since is not None:
            log(Event.REDIS_BACK, **self._who, away_s=round(self.away_s, 1))
            self._since = None
