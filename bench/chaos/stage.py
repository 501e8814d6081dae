"""The stage: what every fault works with, and what is to be mended later."""

import heapq
import itertools
import random
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field

import psutil

from bench.chaos.fleet import Fleet, Host
from bench.chaos.observer import Observer
from tests.servers import RedisServer

__all__ = ["Fault", "Stage", "resume"]

Fault = Callable[[], str | None]
"""Says what it did, or None if it found no victim now."""


@dataclass
class Stage:
    """One run's server, fleet and observer, with the dice and the times of what is mended."""

    random: random.Random
    server: RedisServer
    fleet: Fleet
    observer: Observer
    horses: Callable[[Host], list[tuple[psutil.Process, str]]]
    _later: list[tuple[float, int, Callable[[], object]]] = field(default_factory=list)
    _order: "itertools.count[int]" = field(default_factory=itertools.count)

    def later(self, seconds: float, action: Callable[[], object]) -> None:
        """Do something so many seconds from now."""
        heapq.heappush(self._later, (time.monotonic() + seconds, next(self._order), action))

    def mend(self, until: float) -> None:
        """Do all that was to be done until a monotonic time."""
        while self._later and self._later[0][0] <= until:
            heapq.heappop(self._later)[2]()

    def happens(self, probability: float) -> bool:
        """Throw the dice."""
        return self.random.random() < probability

    def worker(self) -> Host | None:
        """Choose a worker that may go: another one serves."""
        steady = self.fleet.steady
        return self.random.choice(steady) if len(steady) > 1 else None

    def held(self, host: Host) -> list[str]:
        """Give the jobs that a worker holds."""
        return [] if self.observer.redis_is_away else self.observer.held_by([host.name])

    def freeze(self, processes: list[psutil.Process], longest_s: float) -> str:
        """SIGSTOP, and SIGCONT later."""
        seconds = self.random.uniform(0.3, longest_s)
        for process in processes:
            process.suspend()
        self.later(seconds, lambda: [resume(process) for process in processes])
        return f"{[process.pid for process in processes]} for {seconds:.1f} s"

    def silence(self, host: Host, why: str, back: Callable[[], object]) -> None:
        """Note that a worker is silent, watch its jobs, and bring it back after its lease."""
        host.away = why
        self.observer.watch(self.held(host), f"worker {why}", time.monotonic())

        def return_() -> None:
            back()
            host.away, host.up_at = "", time.monotonic()

        self.later(self.random.uniform(9, 13), return_)


def resume(process: psutil.Process) -> None:
    """SIGCONT to a process that may be gone."""
    with suppress(psutil.NoSuchProcess):
        process.resume()
