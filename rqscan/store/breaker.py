"""The breaker: whether the store may be tried, agreed on by all processes of a home in one file.

The first who finds the store away writes down when to try it next; from then on nobody waits for
it. Whoever comes when that time has come takes the turn to try, alone: success takes the file
away, failure sets a later time. While the store is there, asking costs one look for a file.
"""

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from time import monotonic

from msgspec import DecodeError, Struct, json, structs

from rqscan.chance import chance
from rqscan.errors import Fault

__all__ = ["PATIENCE_S", "Away", "Breaker"]

PATIENCE_S = 30.0
"""What is away is tried again by the drain, in whose way no job is; by a job only if no drain has
done so for that long."""

PAUSES_S = 0.5, 60.0
"""Bounds of the pause between two tries; the upper one is reached by doubling."""

LONG = {Fault.FULL, Fault.REFUSED}
"""What does not pass by itself in seconds: the longest pause from the start."""

TURN_S = 15.0
"""A try lasts so long at most, before another may have one: longer than a time-out to connect."""


class Away(Struct, frozen=True, kw_only=True):
    """What is known of a store that is away; times are monotonic, of this host since its start."""

    since: float
    until: float  # when to try it again
    tries: int
    fault: Fault
    reason: str


class Breaker:
    """The state of one home's store, or of another server that it can do without.

    A home that cannot be written has no breaker: then everybody tries for himself.
    """

    def __init__(self, home: str, server: str = "store") -> None:
        self._path = Path(home, f"{server}.away")

    def away(self) -> Away | None:
        """Tell what is known of the store if it is away."""
        with suppress(OSError), self._locked(os.O_RDWR) as fd:
            return _read(fd)
        return None

    def may_try(self, patience_s: float = 0) -> bool:
        """Tell whether the store may be tried now; if it is away that takes the turn to.

        Args:
            patience_s: leave the turn to others for so long once it is due.
        """
        with suppress(OSError), self._locked(os.O_RDWR) as fd:
            away, now = _read(fd), monotonic()
            if away and away.until + patience_s > now:
                return False
            if away:
                _write(fd, structs.replace(away, until=now + TURN_S))
        return True

    def open(self, fault: Fault, reason: str) -> None:
        """Note that the store was tried and is away."""
        with suppress(OSError), self._locked(os.O_RDWR | os.O_CREAT) as fd:
            known, now = _read(fd), monotonic()
            tries = known.tries + 1 if known else 1
            shortest_s, longest_s = PAUSES_S
            most_s = (
                longest_s if fault in LONG else min(longest_s, shortest_s * 2.0 ** min(tries, 10))
            )
            pause_s = shortest_s + (most_s - shortest_s) * chance()
            since = known.since if known else now
            away = Away(since=since, until=now + pause_s, tries=tries, fault=fault, reason=reason)
            _write(fd, away)

    def close(self) -> None:
        """Note that the store has answered."""
        if self._path.exists():
            with suppress(OSError):
                self._path.unlink()

    @contextmanager
    def _locked(self, flags: int) -> Iterator[int]:
        fd = os.open(self._path, flags | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            yield fd
        finally:
            os.close(fd)


def _read(fd: int) -> Away | None:
    try:
        away = json.decode(os.pread(fd, 65_536, 0), type=Away)
    except DecodeError:  # just made, or torn when its writer was killed
        return None
    # One from before the host's last start speaks of another clock.
    return away if away.since <= monotonic() and away.until <= monotonic() + sum(PAUSES_S) else None


def _write(fd: int, away: Away) -> None:
    os.ftruncate(fd, 0)
    os.pwrite(fd, json.encode(away), 0)
