"""The first connection of a long-lived process, which waits for a Redis that is away."""

import select

import redis
from msgspec.structs import replace

from rqscan.broker.connect import connect
from rqscan.errors import RedisUnavailable
from rqscan.fleet.outage import Outage
from rqscan.fleet.signals import stop_signals
from rqscan.settings import Settings

__all__ = ["wait_for_redis"]

TRY_S = 0.5
"""Pause between two tries."""


def wait_for_redis(settings: Settings, **who: str) -> redis.Redis | None:
    """Open a long-lived process' client, however long Redis is away; None if told to stop.

    Raises:
        ConfigError, RedisUnavailable: Redis refuses us, or the embedded one does not start: waiting
            would not help.
    """
    brief = replace(settings, redis=replace(settings.redis, connect_timeout_s=1))
    outage = Outage(**who)
    told: list[str] = []
    client = None
    with stop_signals(told.append) as woken:
        while not (client or told):
            try:
                client = connect(brief)
            except RedisUnavailable as e:
                if not _may_pass(e.__cause__):
                    raise
                outage.begin(str(e))
                select.select([woken], [], [], TRY_S)
    if client is None:
        return None
    if told:  # while it connected
        client.close()
        return None
    outage.end()
    options = client.connection_pool.connection_kwargs
    options["socket_connect_timeout"] = settings.redis.connect_timeout_s
    return client


def _may_pass(error: BaseException | None) -> bool:
    refused = (redis.AuthenticationError, redis.exceptions.AuthorizationError)
    away = (redis.ConnectionError, redis.TimeoutError)
    return isinstance(error, away) and not isinstance(error, refused)
