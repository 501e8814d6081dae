"""The faults: drawn from a seeded generator, one every two seconds or so.

Those of Redis come in the last quarter of each minute, so that rescue by living workers can be
timed in the rest of it.
"""

import time
from collections import Counter
from contextlib import suppress

import psutil

from bench.chaos.databases import Databases
from bench.chaos.deaths import Deaths
from bench.chaos.outages import Outages
from bench.chaos.stage import Stage
from bench.chaos.store import Store

__all__ = ["Faults"]

DRAWS = 5
"""So many faults are tried in turn before one is due again: not each finds a victim."""

GAP_S = (0.4, 2.6)
CYCLE_S, CALM_SHARE = 60.0, 0.75


class Faults:
    """Breaks something at random moments, and mends it later."""

    def __init__(
        self,
        stage: Stage,
        store: Store | None,
        *,
        has_links: bool,
        may_lose_data: bool,
        run_s: float,
    ) -> None:
        self._stage = stage
        self.done: Counter[str] = Counter()
        self.story: list[str] = []
        self._cycle_s = min(CYCLE_S, run_s)
        self._began = self._next = time.monotonic()
        outages = Outages(stage)
        self._calm = Deaths(stage).weights | outages.of_keys
        if has_links:
            self._calm |= outages.of_links
        if store:
            self._calm |= Databases(stage, store, has_links=has_links).weights
        self._storm = self._calm | outages.of_redis
        if may_lose_data:
            self._storm |= outages.of_data

    def tick(self) -> None:
        """Do what is due: mend, and break."""
        now = time.monotonic()
        self._stage.mend(now)
        if now < self._next:
            return
        self._next = now + self._stage.random.uniform(*GAP_S)
        is_calm = (now - self._began) % self._cycle_s < CALM_SHARE * self._cycle_s
        choice = self._calm if is_calm else self._storm
        for _ in range(DRAWS):
            (fault,) = self._stage.random.choices([*choice], [*choice.values()])
            what = None
            with suppress(psutil.NoSuchProcess):  # gone by itself meanwhile
                what = fault()
            if what is not None:
                self.done[fault.__name__] += 1
                self.story.append(f"{now - self._began:8.2f} {fault.__name__} {what}")
                return

    def mend_all(self) -> None:
        """Do at once all that was to be mended later."""
        self._stage.mend(float("inf"))
