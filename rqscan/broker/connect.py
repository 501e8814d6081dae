"""Connections to Redis for commands: the URL forms of the contract, time-outs and retries.

The worker's loop owns its sockets (`rqscan.broker.link`); everyone else uses a client from here.
"""

import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from subprocess import SubprocessError
from typing import Any
from urllib.parse import quote, urlencode

import redis
from redis.backoff import ExponentialWithJitterBackoff, NoBackoff
from redis.retry import Retry

from rqscan import clock
from rqscan.broker import embedded
from rqscan.errors import ConfigError, RedisUnavailable, RqscanError
from rqscan.settings import Settings, mask_url

__all__ = ["KEEPALIVE", "connect", "impatient", "later", "outage", "revive", "url_of"]

ANSWER_S = 5
"""Longest wait for an answer once connected."""

IMPATIENT_S = 2
"""The same for loops that look again by themselves: so long they are deaf at most."""

KEEPALIVE = {
    socket.TCP_KEEPIDLE: 10,
    socket.TCP_KEEPINTVL: 3,
    socket.TCP_KEEPCNT: 3,
    socket.TCP_USER_TIMEOUT: 15_000,  # ms: a dropped link is noticed while data waits as well
}


def connect(settings: Settings) -> redis.Redis:
    """Open a client and see that Redis answers; starts the embedded server if none is configured.

    Sets this process' clock by Redis' (`rqscan.clock`), to half a round trip.

    Raises:
        ConfigError: the URL has no form that we know.
        RedisUnavailable: refused (at once), silent (after the connect time-out), or no server.
    """
    url = settings.redis.url or f"unix://{quote(str(embedded.ensure(Path(settings.home))))}"
    try:
        client = later(url, settings.redis.connect_timeout_s)
        with outage(url):
            client.ping()  # connected: what follows is one round trip
    except (ValueError, TypeError) as e:  # a part of the URL that no connection knows
        raise ConfigError(f"redis.url {mask_url(url)!r} can't be used: {e}") from None
    with outage(url):
        began = clock.now()
        seconds, microseconds = client.time()
        middle = began.timestamp() + (clock.now() - began).total_seconds() / 2
    clock.correct(clock.offset_s() + seconds + microseconds / 1e6 - middle)
    client.set_retry(Retry(ExponentialWithJitterBackoff(base=0.1, cap=1), 3))
    return client


def later(url: str, connect_timeout_s: float) -> redis.Redis:
    """Make a client that connects with its first command, and tries each command once.

    Raises:
        ValueError: the URL has no form that redis-py knows.
        TypeError: a part of it names no option of a connection.
    """
    options: dict[str, Any] = {
        "socket_connect_timeout": connect_timeout_s,
        "socket_timeout": ANSWER_S,
        "health_check_interval": 15,
        "client_name": "rqscan",
        "protocol": 2,  # RQ decodes RESP2 shapes, and every server since 5 speaks it
    }
    if not url.startswith("unix:"):
        options |= {"socket_keepalive": True, "socket_keepalive_options": KEEPALIVE}
    return redis.Redis.from_url(url, retry=Retry(NoBackoff(), 0), **options)


def impatient(client: redis.Redis) -> redis.Redis:
    """Make each wait of the client short and single: the caller's next turn is the retry."""
    short = {"socket_timeout": IMPATIENT_S, "socket_connect_timeout": IMPATIENT_S}
    client.connection_pool.connection_kwargs.update(short, retry=Retry(NoBackoff(), 0))
    client.connection_pool.disconnect()
    client.connection_pool.reset()  # connections that were made keep what they were made with
    return client


def revive(settings: Settings) -> None:
    """Start the embedded server again if it died under us; never waits, so look again."""
    if settings.redis.url is None:
        with suppress(OSError, SubprocessError, RqscanError):  # the next look tries again
            embedded.revive(Path(settings.home))


@contextmanager
def outage(url: str = "") -> Iterator[None]:
    """Turn redis-py's errors inside the block into one sentence.

    Raises:
        RedisUnavailable: Redis cannot be reached, refuses us or cannot be written.
    """
    try:
        yield
    except redis.RedisError as e:
        where = f" at {mask_url(url)}" if url else ""
        raise RedisUnavailable(
            f"cannot use Redis{where}: {str(e) or type(e).__name__}",
            advice="check redis.url (RQSCAN_REDIS_URL) and that the server runs and lets us in",
        ) from e


def url_of(client: redis.Redis) -> str:
    """Give the URL of a client that RQ's way of construction handed us, for work-horses.

    It may hold a password: never print it.
    """
    options = client.connection_pool.connection_kwargs
    user = quote(options.get("username") or "", safe="")
    password = quote(options.get("password") or "", safe="")
    login = f"{user}:{password}@" if user or password else ""
    db = options.get("db") or 0
    if path := options.get("path"):
        return f"unix://{login}{quote(path)}?{urlencode({'db': db})}"
    secure = issubclass(client.connection_pool.connection_class, redis.SSLConnection)
    host = options.get("host", "localhost")
    host = f"[{host}]" if ":" in host else host
    query = {
        name: value
        for name, value in options.items()
        if secure and name.startswith("ssl_") and isinstance(value, str)
    }
    return f"redis{'s' if secure else ''}://{login}{host}:{options.get('port', 6379)}/{db}" + (
        f"?{urlencode(query)}" if query else ""
    )
