"""One run: a scheduler with its entries, a window of whole seconds, and what it made in it."""

import math
import time
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from shutil import rmtree
from typing import Any

from jobs_rig.rig import ROOT, Fleet, Rig
from msgspec import json

from rqscan import clock
from rqscan.broker import keys
from rqscan.schedule.misfire import Run
from rqscan.settings import Settings
from rqscan.store.journal import Journal
from rqscan.store.migrate import open_current
from scheduler_rig.clients.grid import ANCHOR, first_dues
from scheduler_rig.contenders import CLIENTS, CONTENDERS, OURS, run_of

__all__ = ["Shape", "measure"]

START_S = 60  # longest wait until all entries are known
SETTLE_S = 4  # from then on, before anything counts
LAST_S = 2  # for what is late at the end
LOOK_S = 0.25
QUEUES = [keys.queue("default"), "default"]  # RQ's and ours, Celery's

Came = dict[tuple[int, float], float]
"""A run, by entry and due time → when it was fired, or came into the queue."""


@dataclass(frozen=True)
class Shape:
    """So many entries, each due every so many seconds."""

    entries: int
    every_s: int

    @property
    def per_s(self) -> int:
        return self.entries // self.every_s

    def __str__(self) -> str:
        return f"{self.entries:,} entries, {self.per_s} due a second"

    def asked(self, anchor: int, begin: float, end: float) -> Iterable[tuple[int, float]]:
        """Give the runs that fall due in between."""
        for entry, first in enumerate(first_dues(anchor, self.entries, self.every_s)):
            skipped = max(0, math.ceil((begin - first) / self.every_s))
            for due in range(first + skipped * self.every_s, math.ceil(end), self.every_s):
                yield entry, due


def measure(rig: Rig, name: str, shape: Shape, seconds: int) -> dict[str, Any]:
    """Give start-up and CPU seconds, and how late each run of the window was, in order.

    `late_s` is of runs that came into the queue, `fired_s` of ours alone: when Redis put it on the
    list of runs. One that did not come counts as late as it is at the end.
    """
    _clear(rig)
    side, is_ours, anchor = CONTENDERS[name], name == OURS, int(_now())
    if is_ours:
        _write_entries(rig.folder, shape, anchor)
    with Fleet(rig, [side.command], rig.environ(_environ(rig.folder, shape) | side.env)) as fleet:
        launched = time.monotonic()
        if not fleet.wait_for(lambda: _is_ready(rig, shape, is_ours=is_ours), START_S):
            raise RuntimeError(f"not ready in {START_S} s")
        start_up_s = time.monotonic() - launched
        if not is_ours:
            anchor = int(rig.client.get(ANCHOR))
        begin = math.ceil(max(_now() + SETTLE_S, anchor + 1)) - 0.5
        seen = _read(rig, fleet, begin)
        cpu, at = fleet.cpu(), time.monotonic()
        seen += _read(rig, fleet, begin + seconds)
        spent, took = fleet.cpu() - cpu, time.monotonic() - at
        seen += _read(rig, fleet, begin + seconds + LAST_S)
        ended = _now()
        fired = _on_list(rig) if is_ours else {}
    came = {run_of(job_id): t for job_id, t in seen} if is_ours else _paired(
        rig, name, seen, list(first_dues(anchor, shape.entries, shape.every_s)), shape.every_s
    )  # fmt: skip
    asked = list(shape.asked(anchor, begin, begin + seconds))
    found = {
        "start_up_s": start_up_s,
        "cpu_s_per_min": {role: 60 * used / took for role, used in spent.items()},
        "made": sum(run in came for run in asked),
        "late_s": _lateness(asked, came, ended),
    }
    if is_ours:
        found["fired_s"] = _lateness(asked, fired | _in_journal(rig), ended)
    return found


def _now() -> float:
    return clock.now().timestamp()


def _lateness(asked: list[tuple[int, float]], came: Came, ended: float) -> list[float]:
    return sorted(came.get(run, ended) - run[1] for run in asked)


def _clear(rig: Rig) -> None:
    rig.client.flushall()
    rmtree(rig.folder / "home", ignore_errors=True)
    for path in rig.folder.glob("beat*"):
        path.unlink()


def _environ(folder: Path, shape: Shape) -> dict[str, str]:
    return {
        "PYTHONPATH": f"{ROOT}:{CLIENTS}",
        "BENCH_ENTRIES": str(shape.entries),
        "BENCH_EVERY_S": str(shape.every_s),
        "RQSCAN_CONFIG": str(folder / "rqscan.toml"),
    }


def _write_entries(folder: Path, shape: Shape, anchor: int) -> None:
    tables = [
        f'[[schedule]]\nname = "e{number}"\nevery_s = {shape.every_s}\n'
        f'start = {datetime.fromtimestamp(due, UTC):%Y-%m-%dT%H:%M:%SZ}\noverlap = "run"\n'
        'scan = { targets = ["127.0.0.1"], ports = "80" }\n'
        for number, due in enumerate(first_dues(anchor, shape.entries, shape.every_s))
    ]
    (folder / "rqscan.toml").write_text("\n".join(tables), "utf-8")


def _is_ready(rig: Rig, shape: Shape, *, is_ours: bool) -> bool:
    if is_ours:
        return bool(rig.client.zcard(keys.SCHEDULE) == shape.entries)
    return rig.client.get(ANCHOR) is not None


def _read(rig: Rig, fleet: Fleet, until: float) -> list[tuple[bytes, float]]:
    """Take out of the queue what comes until then, and note when."""
    seen = []

    def look() -> bool:
        while (left_s := until - _now()) > 0:
            if not (came := rig.client.blpop(QUEUES, min(LOOK_S, left_s))):
                return False
            seen.append((came[1], _now()))
        return True

    fleet.wait_for(look, math.inf, 0)
    return seen


def _paired(
    rig: Rig, name: str, seen: list[tuple[bytes, float]], firsts: list[int], every_s: int
) -> Came:
    """Hold the runs of each entry against its due times: the third against the third."""
    counts: dict[int, int] = defaultdict(int)
    came = {}
    for piece, at in seen:
        entry = CONTENDERS[name].entry_of(rig.client, piece)
        came[entry, firsts[entry] + counts[entry] * every_s] = at
        counts[entry] += 1
    return came


def _on_list(rig: Rig) -> Came:
    """Give runs of ours that are fired and not made yet."""
    pairs = rig.client.zrange(keys.RUNS, 0, -1, withscores=True)
    runs = ((json.decode(raw, type=Run), at) for raw, at in pairs)
    return {(int(run.entry.name[1:]), run.due.timestamp()): at for run, at in runs}


def _in_journal(rig: Rig) -> Came:
    with open_current(Settings(home=str(rig.folder / "home"))) as database:
        runs = Journal(database).runs(None, 1_000_000)
    return {(int(run.name[1:]), run.due_at.timestamp()): run.fired_at.timestamp() for run in runs}
