"""Connections to Redis for commands: the URL forms of the contract, time-outs and retries.

The worker's loop owns its sockets (`rqscan.broker.link`); everyone else uses a client from here.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import reduce
from operator import or_
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

import redis
from redis.backoff import ExponentialWithJitterBackoff, NoBackoff
from redis.retry import Retry

from rqscan import clock
from rqscan.broker import embedded
from rqscan.broker.dial import KEEPALIVE
from rqscan.broker.endpoint import Endpoint, Tls
from rqscan.errors import ConfigError, RedisUnavailable
from rqscan.settings import Settings, mask_url

__all__ = ["connect", "endpoint_of", "impatient", "later", "outage"]

ANSWER_S = 5
"""Longest wait for an answer once connected."""

IMPATIENT_S = 2
"""The same for loops that look again by themselves: so long they are deaf at most."""


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


def endpoint_of(client: redis.Redis) -> Endpoint:
    """Tell as data what a client connects to, and how.

    Raises:
        ConfigError: its connections are of a kind that our own links cannot make.
    """
    pool = client.connection_pool
    kind, options = pool.connection_class, dict(pool.connection_kwargs)
    # Sentinel's are subclasses: their address is found by blocking questions
    if kind not in {redis.Connection, redis.SSLConnection, redis.UnixDomainSocketConnection}:
        raise ConfigError(f"a worker cannot use a Redis client with {kind.__name__}")
    if options.get("ssl_validate_ocsp") or options.get("ssl_validate_ocsp_stapled"):
        raise ConfigError("a worker cannot use a Redis client with OCSP validation")
    made: Any = kind(**options)  # never connected: it knows every default
    login = [made.username] if made.username else []
    login += [made.password or ""] if login or made.password else []
    provider = made.credential_provider

    def ask_provider() -> tuple[str, ...]:
        try:
            found: tuple[str, ...] = provider.get_credentials()
        except redis.RedisError as e:
            raise OSError(str(e)) from e
        return found

    return Endpoint(
        where=str(made.path) if hasattr(made, "path") else (made.host, int(made.port)),
        url=_url(pool),
        db=int(made.db),
        login=tuple(login),
        provider=ask_provider if provider else None,
        tls=_tls(made) if kind is redis.SSLConnection else None,
    )


def _tls(made: Any) -> Tls:
    # What can't be right is told by the first try: a file that is not there yet may come.
    return Tls(
        keyfile=made.keyfile, certfile=made.certfile, password=made.certificate_password,
        cert_reqs=int(made.cert_reqs), check_hostname=made.check_hostname,
        flags_on=int(reduce(or_, made.ssl_include_verify_flags or (), 0)),
        flags_off=int(reduce(or_, made.ssl_exclude_verify_flags or (), 0)),
        ca_certs=made.ca_certs, ca_data=made.ca_data, ca_path=made.ca_path,
        min_version=made.ssl_min_version, ciphers=made.ssl_ciphers,
    )  # fmt: skip


def _url(pool: redis.ConnectionPool) -> str:
    options = pool.connection_kwargs
    user = quote(options.get("username") or "", safe="")
    password = quote(options.get("password") or "", safe="")
    login = f"{user}:{password}@" if user or password else ""
    db = options.get("db") or 0
    if path := options.get("path"):
        return f"unix://{login}{quote(path)}?{urlencode({'db': db})}"
    secure = issubclass(pool.connection_class, redis.SSLConnection)
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
