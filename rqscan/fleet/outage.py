"""Outage: a server that is away is told once, and once more when it is back."""

import select
import time

import redis
from msgspec.structs import replace

from rqscan.broker.connect import connect
from rqscan.errors import RedisUnavailable
from rqscan.fleet.signals import stop_signals
from rqscan.logs import Event, log
from rqscan.settings import Settings

__all__ = ["Outage", "wait_for_redis"]

REFUSED = " was refused: "
"""In the reason of a link that went down: the server's own words follow."""

TRY_S = 0.5
"""Pause between the tries of who waits for a first connection."""


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


def wait_for_redis(settings: Settings, **who: str) -> redis.Redis | None:
    """Open a long-lived process' client, however long Redis is away; None if told to stop.

    Raises:
        ConfigError, RedisUnavailable: Redis refuses us, or the embedded one does not start: waiting
            would not help.
    """
    brief = replace(settings, redis=replace(settings.redis, connect_timeout_s=1))
    outage = Outage(**who)
    told: list[str] = []
    with stop_signals(told.append) as woken:
        while not told:
            try:
                client = connect(brief)
            except RedisUnavailable as e:
                if not _may_pass(e.__cause__):
                    raise
                outage.begin(str(e))
                select.select([woken], [], [], TRY_S)
            else:
                outage.end()
                options = client.connection_pool.connection_kwargs
                options["socket_connect_timeout"] = settings.redis.connect_timeout_s
                return client
    return None


def _may_pass(error: BaseException | None) -> bool:
    refused = (redis.AuthenticationError, redis.exceptions.AuthorizationError)
    away = (redis.ConnectionError, redis.TimeoutError)
    return isinstance(error, away) and not isinstance(error, refused)
