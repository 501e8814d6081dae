"""Presence: what a worker tells the fleet about itself at each beat."""

import contextlib
import os
import platform
import socket
import time
from collections import deque
from collections.abc import Iterable
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import msgspec
import redis
from msgspec import Struct, field

from rqscan import __version__, clock
from rqscan.broker import keys
from rqscan.broker.payload import PROTOCOL
from rqscan.errors import FailedError
from rqscan.fleet.reports import JobReport, SpoolReport

__all__ = [
    "Clockwork",
    "Presence",
    "client_name",
    "flat",
    "is_listening",
    "memory_bytes",
    "refuse_living_namesake",
    "registered",
    "versions",
]


FORGET_S = 3600
"""A worker without a beat for so long is no longer listed."""


@cache
def versions() -> dict[str, str]:
    """Give the versions that matter between hosts."""
    found = {name: version(name) for name in ("rq", "redis")}
    return {"rqscan": __version__, **found, "python": platform.python_version()}


class Presence(Struct, frozen=True, kw_only=True):
    """A worker's record in Redis (`keys.record`)."""

    name: str
    host: str = field(default_factory=socket.gethostname)
    pid: int = field(default_factory=os.getpid)
    boot: str  # random per process: tells a restart from a namesake
    client_id: int  # of its command connection: gone means that the worker is gone
    state: str
    queues: list[str]
    concurrency: int
    lease_s: float  # age of the last beat from which it counts as lost
    jobs: list[JobReport]
    versions: dict[str, str] = field(default_factory=versions)
    protocol: int = PROTOCOL
    store_id: str = ""  # empty: not known yet
    mismatch: str = ""  # why it claims nothing: it is of another fleet
    holds: str = ""  # why it claims nothing for a while
    spool: SpoolReport | None = None
    clock_offset_s: float | None  # Redis' clock minus this host's
    clock_error_s: float | None = None  # how far off that may be
    utc_offset_s: int = field(default_factory=lambda: time.localtime().tm_gmtoff)
    rss_bytes: int
    done: int
    failed: int

    @property
    def spool_rows(self) -> int | None:
        """How many rows this host keeps, as of the beat."""
        return self.spool.rows if self.spool else None


def memory_bytes(pids: Iterable[int]) -> int:
    """Give the resident memory of this process and of `pids` together."""
    pages = 0
    for pid in (os.getpid(), *pids):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # it has just ended
            pages += int(Path(f"/proc/{pid}/statm").read_text("ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


class Clockwork:
    """Measures Redis' clock against this host's, and corrects `rqscan.clock` by it.

    Source: F. Cristian, "Probabilistic clock synchronization" (1989): half the round trip is
    taken for the way back, and the sample with the shortest round trip errs least.
    """

    SAMPLES = 16

    def __init__(self) -> None:
        self._samples: deque[tuple[float, float]] = deque(maxlen=self.SAMPLES)
        self._sent: tuple[float, float] = (0.0, 0.0)

    @property
    def offset_s(self) -> float | None:
        """The offset measured best, None before the first answer."""
        return min(self._samples)[1] if self._samples else None

    @property
    def error_s(self) -> float | None:
        """Bound of the offset's error: half the shortest round trip."""
        return min(self._samples)[0] / 2 if self._samples else None

    def ask(self) -> None:
        """Note the time: a command that answers with Redis' time goes out now."""
        self._sent = (time.monotonic(), clock.now().timestamp() - clock.offset_s())

    def answer(self, redis_time: float) -> None:
        """Take Redis' time (Unix seconds) from the answer that has just come."""
        began, host_time = self._sent
        trip = time.monotonic() - began
        self._samples.append((trip, redis_time - host_time - trip / 2))
        offset = self.offset_s
        assert offset is not None
        clock.correct(offset)


def flat(fields: dict[str, Any]) -> list[Any]:
    """Lay out a mapping as a script's arguments."""
    return [part for pair in fields.items() for part in pair]


def registered(client: redis.Redis) -> dict[str, tuple[float, bytes]]:
    """Give the workers of the last hour, lost ones too: age of the last beat, and the record."""
    now, _ = client.time()
    beats: Any = client.zrangebyscore(keys.PRESENCE, now - FORGET_S, "+inf", withscores=True)
    names = {name.decode(errors="replace"): max(0.0, now - beat_at) for name, beat_at in beats}
    records: Any = client.mget(map(keys.record, names)) if names else []
    return {n: (a, raw or b"") for (n, a), raw in zip(names.items(), records, strict=True)}


def is_listening(client: redis.Redis, queue: str) -> bool:
    """Tell whether a worker that lives takes jobs from a queue."""
    now, _ = client.time()
    beats: Any = client.zrange(keys.PRESENCE, 0, -1, withscores=True)
    for name, beat_at in beats:
        worker = _read(client, name.decode())
        if worker and queue in worker.queues and now - beat_at < worker.lease_s:
            return True
    return False


NAMESAKE_S = 0.1
"""How often a starting worker looks for a beat of another one of its name."""


def client_name(boot: str) -> str:
    """Name a worker's command connection: an id alone may be another's after a restart of Redis."""
    return f"rqscan-{boot}"


def refuse_living_namesake(client: redis.Redis, name: str) -> None:
    """Make sure that no other worker of this name lives; one that seems to has a lease to beat.

    Raises:
        FailedError: one does; says where.
    """
    other = _read(client, name)
    clients = client.client_list(client_id=[other.client_id]) if other else []
    if not other or all(one["name"] != client_name(other.boot) for one in clients):
        return
    # A host that lost its power says no goodbye, so its connection proves nothing: a beat does.
    beat_at, until = client.zscore(keys.PRESENCE, name), time.monotonic() + other.lease_s
    while time.monotonic() < until:
        if client.zscore(keys.PRESENCE, name) != beat_at:
            raise FailedError(
                f"worker name {name!r} is held by a worker that lives: pid {other.pid} on "
                f"{other.host}; choose another --name or stop that one"
            )
        time.sleep(NAMESAKE_S)


def _read(client: redis.Redis, name: str) -> Presence | None:
    raw: Any = client.get(keys.record(name))
    try:
        return msgspec.json.decode(raw or b"", type=Presence)
    except msgspec.MsgspecError:  # gone, or of another version
        return None
