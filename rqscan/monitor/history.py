"""History: what was counted of each queue, in the last minute and in each of the last thirty.

A minute that is over does not change any more, so it is read once and kept.
"""

from collections import Counter
from typing import Annotated, Any

from msgspec import Meta

from rqscan.broker import keys
from rqscan.monitor.asking import Answers, pairs
from rqscan.monitor.figures import read

__all__ = ["MINUTES", "History"]

MINUTES = 30

BUCKETS = 60 // keys.STAT_S
"""Whole buckets of counts that make the last minute."""

Counts = dict[str, Annotated[int, Meta(ge=-(10**12), le=10**12)]]
Net = dict[str, tuple[int, int]]


class History:
    """The counts by queue.

    Depths are told backwards from the present one: what came in since was not there yet, what
    ended since was. They are approximate: a job counts as waiting until it has ended, so that what
    ran then is in them (and what runs now is not), and what is enqueued past rqscan, by RQ's own
    calls, is counted as coming in when it is claimed. They are never below 0.
    """

    def __init__(self) -> None:
        self._buckets: dict[int, Counts] = {}
        self._minutes: dict[int, Net] = {}
        self._bucket = self._minute = 0
        self._now: Net = {}
        self._rates: Counter[str] = Counter()
        self._past: dict[str, tuple[list[int], list[int]]] = {}

    def questions(self, at: float) -> Answers:
        """Give what is to be asked at a time (Unix seconds) of Redis' clock."""
        self._bucket, self._minute = int(at / keys.STAT_S), int(at / 60)
        buckets = range(self._bucket - BUCKETS, self._bucket)
        minutes = range(self._minute - MINUTES + 1, self._minute)
        self._past = {} if self._minutes.keys() ^ set(minutes) else self._past
        self._rates = Counter() if self._buckets.keys() ^ set(buckets) else self._rates
        self._buckets = {n: found for n, found in self._buckets.items() if n in buckets}
        self._minutes = {n: found for n, found in self._minutes.items() if n in minutes}
        return {
            "buckets": {n: ("HGETALL", keys.stat(n)) for n in buckets if n not in self._buckets},
            "minutes": {n: ("HGETALL", keys.minute(n)) for n in minutes if n not in self._minutes},
            "now": ("HGETALL", keys.minute(self._minute)),
        }

    def take(self, told: Answers) -> None:
        """Take the answers."""
        for n, flat in told["buckets"].items():
            if flat is not None:
                self._buckets[n] = _counts(flat)
        for n, flat in told["minutes"].items():
            if flat is not None:
                self._minutes[n] = _net(_counts(flat))
        self._now = _net(_counts(told["now"]))
        if not self._rates:
            for counts in self._buckets.values():
                self._rates.update(counts)

    def per_s(self, queue: str, what: str) -> float:
        """Give how many jobs of a queue came in or went out (in, out) a second."""
        return round(self._rates[f"{queue}:{what}"] / 60, 3)

    def depths(self, queue: str, depth: int | None) -> list[int]:
        """Give how many jobs waited at the end of each minute, and at last how many do."""
        if depth is None:
            return []
        since = depth + self._now.get(queue, (0, 0))[0]
        return [max(0, since + net) for net in self._of(queue)[0]] + [depth]

    def failures(self, queue: str) -> list[int]:
        """Give how many jobs failed in each minute, the present one at last."""
        return [*self._of(queue)[1], self._now.get(queue, (0, 0))[1]]

    def _of(self, queue: str) -> tuple[list[int], list[int]]:
        """Give what went less what came after the end of each minute that is over, and failures."""
        if queue not in self._past:
            nets, failed, since = [], [], 0
            for n in range(self._minute - 1, self._minute - MINUTES, -1):
                net, failures = self._minutes.get(n, {}).get(queue, (0, 0))
                nets.append(since)
                failed.append(failures)
                since += net
            self._past[queue] = nets[::-1], failed[::-1]
        return self._past[queue]


def _counts(flat: Any) -> Counts:
    found: Counts = read(Counts, pairs(flat), {})
    return found


def _net(counts: Counts) -> Net:
    """Give by queue what went less what came, and what failed."""
    net: dict[str, tuple[int, int]] = {}
    for field, count in counts.items():
        queue, _, what = field.rpartition(":")
        went, failed = net.get(queue, (0, 0))
        if what == "failed":
            net[queue] = went, failed + count
        elif what in {"out", "gone"}:
            net[queue] = went + count, failed
        elif what == "in":
            net[queue] = went - count, failed
    return net
