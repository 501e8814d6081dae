"""Idleness: whether the network on the way to the store is calm, by the traffic of its interface.

The counters of /proc/net/dev are read once a second, and only while rows wait for that: a moving
average of what was received and sent, without the drain's own bytes, is held against a bound.
"""

import time
from datetime import datetime, timedelta
from pathlib import Path

from rqscan import clock
from rqscan.tally import Idleness, Link

__all__ = ["SAMPLE_S", "Calm", "Traffic", "waiting"]

SAMPLE_S = 1.0

MEMORY = 0.4
"""Part of the average that is left after a second: traffic that stops is forgotten with the first
calm sample, and traffic that starts is noticed with the second."""

CAP, BUSY = 2.0, 1.5
"""Times the bound: a sample counts as so much at most, else the average would remember a busy link
for longer the faster it is; and an average above the other ends the idleness at once."""

IN_MINUTES_S = 90
"""A time that long is told in minutes."""


class Calm:
    """Judges samples of traffic: idle once their average was below the bound for long enough.

    Args:
        bound_bits_per_s: below it is calm.
        for_s: how long it must be calm.
        is_idle: how to begin.
    """

    def __init__(self, bound_bits_per_s: float, for_s: float, *, is_idle: bool = False) -> None:
        self._bound, self._for_s, self.is_idle = bound_bits_per_s, for_s, is_idle
        self._average: float | None = None  # bits/s, of capped samples
        self.calm_s = 0.0  # so far without a break

    def add(self, bits_per_s: float, seconds: float) -> None:
        """Judge a sample."""
        capped = min(bits_per_s, CAP * self._bound)
        last = capped if self._average is None else self._average
        self._average = average = capped + (last - capped) * MEMORY**seconds
        is_calm = average < self._bound
        self.calm_s = round(self.calm_s + seconds, 3) if is_calm else 0.0
        if average > BUSY * self._bound:
            self.is_idle = False
        elif is_calm and self.calm_s >= self._for_s:
            self.is_idle = True

    def interrupt(self) -> None:
        """End the idleness for something else than traffic."""
        self.calm_s, self.is_idle = 0.0, False


class Traffic:
    """Measures a link, at most once in `SAMPLE_S` however often it is asked to.

    Args:
        link: what to measure, and its bound.
        for_s: how long it must be calm.
        is_idle: how to begin.
        where: the jobs are that keep it from being idle.
    """

    def __init__(
        self, link: Link, for_s: float, *, is_idle: bool = False, where: str = "here"
    ) -> None:
        self.link, self._for_s, self._where = link, for_s, where
        bound = link.below_bits_per_s if link.interfaces else float("inf")
        self._calm = Calm(bound, for_s, is_idle=is_idle)
        self._before: tuple[float, int] | None = None  # monotonic, bytes that are not our own
        self._rate: float | None = None  # bits/s
        self._is_working, self._fault = False, link.fault
        self.deadline = 0.0  # monotonic: of the next sample

    @property
    def is_idle(self) -> bool:
        """Tell whether it was when last looked at."""
        return self._calm.is_idle

    def look(self, *, is_working: bool = False, own_bytes: int = 0) -> bool:
        """Take a sample if it is time to, and tell whether the link is idle.

        Args:
            is_working: jobs run or wait here.
            own_bytes: that our own drain has sent and received since it began.
        """
        now = time.monotonic()
        if now < self.deadline:
            return self.is_idle
        self.deadline, self._is_working = now + SAMPLE_S, is_working
        before, self._before = self._before, (now, self._bytes() - own_bytes)
        if before:
            seconds = now - before[0]
            rate = max(0.0, (self._before[1] - before[1]) * 8 / seconds)
            self._rate = float("inf") if self._fault else rate
            self._calm.add(self._rate, seconds)
        if is_working:
            self._calm.interrupt()
        return self.is_idle

    def words(self) -> str:
        """Say why it is idle, or why not."""
        names, note = "+".join(self.link.interfaces), self.link.note
        parts = [f"jobs run or wait {self._where}"] if self._is_working else []
        if self._fault:
            parts.append(self._fault)
        elif not names:
            parts.append("the database is on this host")
        elif self._rate is None:
            parts.append(f"the traffic on {names} is being measured")
        else:
            rate, most = (_mbits(x) for x in (self._rate, self.link.below_bits_per_s))
            parts.append(f"{rate} Mbit/s on {names}, {most} allowed{note and f' ({note})'}")
        if not self.is_idle and self._calm.calm_s:
            parts.append(f"calm for {self._calm.calm_s:.0f} of {self._for_s:g} s")
        return ", ".join(parts)

    def _bytes(self) -> int:
        """Read how much the interfaces have received and sent: fields 1 and 9, see proc_net(5)."""
        if self.link.fault or not self.link.interfaces:
            return 0
        lines = Path("/proc/net/dev").read_text("ascii", "replace").splitlines()
        found = {name.strip(): line.split() for name, _, line in (x.partition(":") for x in lines)}
        missing = [name for name in self.link.interfaces if name not in found]
        self._fault = f"there is no interface {missing[0]}" if missing else ""
        mine = [found[name] for name in self.link.interfaces if name in found]
        return sum(int(fields[0]) + int(fields[8]) for fields in mine)


def waiting(traffic: Traffic, oldest_at: datetime | None, max_delay_s: float) -> Idleness:
    """Tell how rows stand that wait for idleness."""
    if oldest_at is None:
        return Idleness(is_idle=traffic.is_idle, reason=traffic.words())
    forced_at = oldest_at + timedelta(seconds=max_delay_s)
    left_s = max(0.0, (forced_at - clock.now()).total_seconds())
    left = f"{left_s:.0f} s" if left_s < IN_MINUTES_S else f"{left_s / 60:.0f} min"
    reason = f"{traffic.words()}; forced in {left}"
    return Idleness(is_idle=traffic.is_idle, reason=reason, forced_at=forced_at)


def _mbits(bits: float) -> str:
    mbits = bits / 1e6
    return f"{round(mbits, 1 if mbits >= 1 else 3):g}"
