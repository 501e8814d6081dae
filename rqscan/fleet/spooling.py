"""Spooling: what the spool of this home holds, as one worker sees it, and when it has it drained.

A look at the file (its size and times) tells that something was spooled; a child then says what,
and drains (`rqscan.fleet.drain_chore`); in the mode redis_stream there always is one, which waits
for what comes. While the spool is nearly full the worker claims nothing.
In the mode spool_first rows wait until the network on the way to the store is idle: while there are
any, its traffic is measured here (`rqscan.idle`), and during a drain by the child, which knows its
own part of it.
"""

import os
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import msgspec

from rqscan import clock
from rqscan.chance import chance
from rqscan.fleet.errands import Errands
from rqscan.fleet.reports import SpoolReport
from rqscan.home import spool_path, spool_stamp
from rqscan.idle import Traffic, waiting
from rqscan.logs import Event, log
from rqscan.settings import Settings
from rqscan.tally import Drainage, Go

__all__ = ["Spooling"]

LOOK_S = 5.0
"""Least pause between two children that only say how the spool stands."""

START_S = 0.5
"""Longest pause before a drain begins, drawn at random: a fleet must not begin at once."""

AGAIN_S = 10.0
"""Pause after a drain that moved nothing, though the store is there."""

HIGH, LOW = 0.8, 0.7
"""Parts of spool.max_bytes: from the one on nothing is claimed, below the other it is again."""

LEAST_FREE_BYTES = 10_000_000
"""A disk with less is as good as full."""


class Spooling:
    """One worker's part in the spool of its home.

    Args:
        name: of the worker.
        settings: say where the home is and how large the spool may be.
        errands: has the child run.
        is_working: tells whether jobs run here, or may wait for us.
    """

    def __init__(
        self, name: str, settings: Settings, errands: Errands, *, is_working: Callable[[], bool]
    ) -> None:
        self._is_working = is_working
        self._name, self._settings, self._errands = name, settings, errands
        self._at = 0.0  # monotonic: of the next look at the file
        self._look_at = 0.0  # monotonic: from then on a change is looked into
        self._has_stream = settings.spool.mode == "redis_stream"
        self._drain_at = 0.0 if self._has_stream else float("inf")  # monotonic
        self._seen: tuple[int, ...] = (0,)  # the file's stamp when the last child began
        self._child: Go | None = None  # what the child that runs was told
        self._traffic: Traffic | None = None  # that rows wait for
        self._last: Drainage | None = None
        self._forced_at = float("inf")  # monotonic: from then on rows go whatever the traffic is
        self._lost_at: float | None = None  # monotonic: since when the store is away
        self._is_stream_lost = False
        self._kept = 0  # most rows that were seen meanwhile
        self.holds = ""  # why nothing is to be claimed

    @property
    def deadline(self) -> float:
        """Monotonic time at which `check` has something to do."""
        sample_at = self._traffic.deadline if self._traffic and self._measures else float("inf")
        return min(self._at, self._drain_at, sample_at)

    def check(self) -> bool:
        """Look at the file, and have a child see to it if that is due; tell if `holds` changed."""
        now, before = time.monotonic(), self.holds
        if now < self.deadline:
            return False
        self._at = now + self._settings.worker.heartbeat_s
        self._measure()
        stamp = spool_stamp(self._settings.home)
        self._judge(stamp[0])
        if self.holds and not before:
            self._drain_at = now
        has_changed = stamp != self._seen and now >= self._look_at
        if self._child is None and (now >= self._drain_at or has_changed):
            self._child = self._go()
            self._seen, self._look_at, self._drain_at = stamp, now + LOOK_S, float("inf")
            self._errands.run("drain", self._child, then=self._on_answer)
        return self.holds != before

    def drain_within(self, delay_s: float) -> None:
        """Have all go to the store that is kept by then, at the latest so many seconds from now."""
        self._forced_at = min(self._forced_at, time.monotonic() + delay_s)
        self._drain_at = min(self._drain_at, self._forced_at)

    def report(self) -> SpoolReport:
        """Give the figures for all to see."""
        home = self._settings.home
        if self._last is None:
            return SpoolReport(home=home, bytes=spool_stamp(home)[0])
        backlog, moved = self._last.backlog, self._last.moved
        most_s = self._oldest_s() + self._left_s
        rate = moved.rows / self._last.worked_s if moved.rows else None
        return SpoolReport(
            home=home,
            rows=backlog.rows,
            bytes=spool_stamp(home)[0],
            oldest_s=self._oldest_s() if backlog.oldest_at else None,
            quarantined=backlog.quarantined,
            drain_rows_per_s=rate and round(rate, 1),
            eta_s=round(backlog.rows / rate, 1) if rate else None,
            idle=waiting(self._traffic, backlog.oldest_at, most_s) if self._traffic else None,
        )

    def _go(self) -> Go:
        """Tell whether rows may go to the store now: the one place where that is asked.

        In the mode spool_first they wait until the network is idle, the oldest has waited long
        enough, or the spool is nearly full; else they go as soon as the store takes them.
        """
        spool = self._settings.spool
        if spool.mode != "spool_first" or self.holds or self._left_s <= 0:
            return Go.NOW
        return Go.WHILE_IDLE if self._traffic and self._traffic.is_idle else Go.WAIT

    @property
    def _measures(self) -> bool:
        """Tell whether no drain of ours adds to the traffic."""
        return self._child in {None, Go.WAIT}

    def _measure(self) -> None:
        if self._traffic is None or not self._measures:
            return
        was_idle = self._traffic.is_idle
        if self._traffic.look(is_working=self._is_working()) and not was_idle:
            self._drain_at = min(self._drain_at, time.monotonic() + START_S * chance())

    def _wait_for(self, last: Drainage, told: Go) -> None:
        """Measure anew after a drain, and where the way to the store is another."""
        if last.link is None or not last.backlog.records:
            self._traffic = None
        elif told is not Go.WAIT or self._traffic is None or self._traffic.link != last.link:
            for_s = self._settings.idle.for_s
            self._traffic = Traffic(last.link, for_s, is_idle=last.is_idle)

    @property
    def _left_s(self) -> float:
        """How long rows may still wait for an idle network."""
        left_s = self._settings.spool.max_delay_s - self._oldest_s()
        return min(left_s, self._forced_at - time.monotonic())

    def _oldest_s(self) -> float:
        """Tell how long the oldest record waits; 0 if there is none."""
        oldest_at = self._last.backlog.oldest_at if self._last else None
        if oldest_at is None:
            return 0.0
        return max(0.0, round((clock.now() - oldest_at).total_seconds(), 3))

    def _on_answer(self, answer: dict[str, Any] | None) -> None:
        now, told, self._child = time.monotonic(), self._child or Go.WAIT, None
        if answer is None:  # it has told why
            self._drain_at, self._traffic = now + AGAIN_S, None
            return
        self._last = last = msgspec.convert(answer, Drainage)
        self._tell(last)
        self._at = now  # there may be room again
        self._wait_for(last, told)
        if not last.backlog.records and last.away is None:
            self._forced_at = float("inf")
            if not self._has_stream:
                return
        pause_s = AGAIN_S
        if last.away is not None:
            pause_s = last.again_in_s or AGAIN_S
        elif self._go() is Go.WAIT:
            pause_s = self._left_s
        elif told is Go.WAIT:
            pause_s = START_S * chance()
        elif last.moved.rows or (
            self._has_stream and not last.is_elsewhere and not last.backlog.stream_away
        ):
            pause_s = 0.0
        self._drain_at = now + pause_s

    def _tell(self, last: Drainage) -> None:
        self._kept = max(self._kept, last.moved.rows + last.backlog.rows)
        if last.away is not None and self._lost_at is None:
            self._lost_at = time.monotonic()
            log(Event.STORE_LOST, worker=self._name, reason=last.away)
        elif last.away is None and self._lost_at is not None:
            away_s = round(time.monotonic() - self._lost_at, 1)
            log(Event.STORE_BACK, worker=self._name, away_s=away_s, kept_rows=self._kept)
            self._lost_at, self._kept = None, 0
        if is_lost := last.backlog.stream_away is not None:
            if not self._is_stream_lost:
                log(Event.STREAM_LOST, worker=self._name, reason=last.backlog.stream_away,
                    meanwhile="rows are kept in the spool's file")  # fmt: skip
        elif self._is_stream_lost:
            log(Event.STREAM_BACK, worker=self._name)
        self._is_stream_lost = is_lost
        for file, records in last.moved.salvaged:
            log(Event.SPOOL_BROKEN, worker=self._name, file=file, saved_records=records)
        if last.moved.quarantined:
            log(Event.ROWS_QUARANTINED, worker=self._name, entries=last.moved.quarantined,
                advice="see them with: rqscan spool quarantine list")  # fmt: skip

    def _judge(self, size: int) -> None:
        """Find out whether more can be spooled, and say so when that changes."""
        most, before = self._settings.spool.max_bytes, self.holds
        free_bytes = self._free_bytes()
        if size >= most * (LOW if before else HIGH):
            self.holds = f"the spool is nearly full: {size} of {most} bytes"
        elif self._last and self._last.backlog.records and free_bytes < LEAST_FREE_BYTES:
            self.holds = f"the spool's disk is nearly full: {free_bytes} bytes are free"
        else:
            self.holds = ""
        if self.holds and not before:
            log(Event.CLAIMS_HELD, worker=self._name, reason=self.holds)
        elif before and not self.holds:
            log(Event.CLAIMS_RESUMED, worker=self._name)

    def _free_bytes(self) -> float:
        with suppress(OSError):
            disk = os.statvfs(spool_path(self._settings.home).parent)
            return disk.f_bavail * disk.f_frsize
        return float("inf")
