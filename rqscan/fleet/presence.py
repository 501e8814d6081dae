"""Presence: what a worker tells the fleet about itself at each beat."""

import contextlib
import os
import socket
import time
from collections import deque
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from msgspec import Struct, field

from rqscan import clock
from rqscan.broker.payload import PROTOCOL
from rqscan.fleet.reports import JobReport, SpoolReport
from rqscan.installed import versions

__all__ = [
    "Clockwork",
    "Presence",
    "client_name",
    "flat",
    "memory_bytes",
]


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
        self.offset_s: float | None = None
        """The offset measured best, None before the first answer."""
        self.error_s: float | None = None
        """Bound of the offset's error: half the shortest round trip."""

    def ask(self) -> None:
        """Note the time: a command that answers with Redis' time goes out now."""
        self._sent = (time.monotonic(), clock.now().timestamp() - clock.offset_s())

    def answer(self, redis_time: float) -> None:
        """Take Redis' time (Unix seconds) from the answer that has just come."""
        began, host_time = self._sent
        trip = time.monotonic() - began
        self._samples.append((trip, redis_time - host_time - trip / 2))
        shortest, offset = min(self._samples)
        self.offset_s, self.error_s = offset, shortest / 2
        clock.correct(offset)


def flat(fields: dict[str, Any]) -> list[Any]:
    """Lay out a mapping as a script's arguments."""
    return [part for pair in fields.items() for part in pair]


def client_name(boot: str) -> str:
    """Name a worker's command connection: an id alone may be another's after a restart of Redis."""
    return f"rqscan-{boot}"
