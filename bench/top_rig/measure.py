"""What one refresh costs Redis, the one who watches, and the one who waits for it."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import psutil
from jobs_rig.counter import RequestCounter
from jobs_rig.rig import Rig

from top_rig.watchers import OURS, PAUSE_S, RQ, Live, Piped, Screen, Served, Watcher

__all__ = [
    "DASHBOARD", "DELAY_S", "LOOK", "RQ_INFO", "SCREEN", "Probe", "contenders", "cost", "counted",
    "starts",
]  # fmt: skip

LOOK = "`rqscan top --json`"
SCREEN = "`rqscan top`, live"
RQ_INFO = "`rq info -i`"
DASHBOARD = "rq-dashboard"

READ_AT_ONCE = 1_000  # failed jobs that our live view reads in one refresh, each only once
IDLE_S = 4.0
DELAY_S = 0.001
FIGURES = rb"scan\.\d\d|node\d\d"  # names that only Redis can have told


@dataclass(frozen=True)
class Side:
    """One who watches: how it starts, and how many refreshes it has before any counts.

    The first ones are dearer: names are learned, modules loaded, failed jobs read.
    """

    name: str
    start: Callable[[Rig, str], Watcher]
    first: int = 1


def contenders(theirs: str, failed: int) -> list[Side]:
    """Give who watches a fleet; `theirs` is the Python that has rq-dashboard."""
    look = [*OURS, "--json", "-n", "1000", "-i", str(PAUSE_S)]
    info = [*RQ, "-i", str(PAUSE_S), "--url"]
    first = 2 + failed // READ_AT_ONCE
    return [
        Side(LOOK, lambda rig, url: Piped(rig, look, url, b"\n"), first),
        # longer pauses, so that no refresh begins while the last one's figures are taken
        Side(SCREEN, lambda rig, url: Live(rig, [*OURS, "-i", "1"], url), first + 1),
        Side(RQ_INFO, lambda rig, url: Piped(rig, [*info, url], url, b"Updated: ")),
        Side(DASHBOARD, lambda rig, url: Served(rig, theirs, url)),
    ]


@dataclass(frozen=True)
class Used:
    """What Redis has done so far."""

    at: float
    commands: int
    out_bytes: int
    cpu_s: float

    def __sub__(self, other: "Used") -> "Used":
        mine, its = vars(self), vars(other)
        return Used(**{name: mine[name] - its[name] for name in mine})


class Probe:
    """Redis' own figures, without what the probe itself and the beats of the fleet add."""

    BEAT_BYTES = len(":0\r\n")

    def __init__(self, rig: Rig) -> None:
        self._client = rig.client
        first, second = self.now(), self.now()
        self._own = second - first
        time.sleep(IDLE_S)
        idle = self.now() - second
        self._idle_cpu = idle.cpu_s / idle.at

    def since(self, before: Used) -> Used:
        used = self.now() - before
        return Used(
            used.at, used.commands - self._own.commands, used.out_bytes - self._own.out_bytes,
            max(0.0, used.cpu_s - used.at * self._idle_cpu),
        )  # fmt: skip

    def now(self) -> Used:
        found: dict[str, Any] = self._client.info("everything")
        calls = {name: stat["calls"] for name, stat in found.items() if name.startswith("cmdstat_")}
        beats = calls.pop("cmdstat_zadd")  # nobody who only reads sends one
        return Used(
            time.monotonic(),
            sum(calls.values()),
            int(found["total_net_output_bytes"]) - beats * self.BEAT_BYTES,
            float(found["used_cpu_user"]) + float(found["used_cpu_sys"]),
        )


def cost(rig: Rig, probe: Probe, side: Side, times: int, per_refresh: int | None) -> dict[str, Any]:
    """Give what one of so many refreshes costs.

    With `per_refresh`, commands of one, refreshes are counted by what Redis has executed: a screen
    is drawn for other reasons too.
    """
    with side.start(rig, rig.server.url) as watcher:
        watcher.refresh(side.first)
        before, cpu = probe.now(), _cpu_s(watcher)
        took = watcher.refresh(times)
        spent, used = _cpu_s(watcher) - cpu, probe.since(before)
    seen = round(used.commands / per_refresh) if per_refresh else times
    if not seen:
        raise RuntimeError(f"{used.commands} commands in {used.at:.1f} s")
    return {
        "commands": used.commands / seen,
        "kb": used.out_bytes / seen / 1e3,
        "cpu_ms": 1e3 * spent / seen,
        "wall_ms": None if took is None else 1e3 * took / seen,
        "redis_ms": 1e3 * used.cpu_s / seen,
    }


def _cpu_s(watcher: Watcher) -> float:
    times = psutil.Process(watcher.pid).cpu_times()
    return float(times.user + times.system)


def counted(rig: Rig, probe: Probe, side: Side, times: int) -> dict[str, Any]:
    """Give round trips and commands of one refresh, and how long it is if each takes `DELAY_S`."""
    path = rig.folder / "counter.sock"
    with RequestCounter(path, rig.server.socket, DELAY_S) as counter:
        if side.name == SCREEN:
            few, many = (_whole(rig, probe, counter, side.first + n) for n in (0, times))
            trips, commands = ((b - a) / times for a, b in zip(few, many, strict=True))
            return {"trips": trips, "commands": commands}
        with side.start(rig, counter.url) as watcher:
            watcher.refresh(side.first)
            before, used = counter.trips, probe.now()
            took = watcher.refresh(times)
            trips, used = counter.trips - before, probe.since(used)
    assert took is not None
    return {
        "trips": trips / times,
        "commands": used.commands / times,
        "delayed_ms": 1e3 * took / times,
    }


def _whole(rig: Rig, probe: Probe, counter: RequestCounter, refreshes: int) -> tuple[int, int]:
    """Give round trips and commands of a live view from its start to its end."""
    trips, used = counter.trips, probe.now()
    with Screen(rig, [*OURS, "-i", str(PAUSE_S), "-n", str(refreshes)], counter.url) as screen:
        screen.seconds_until_end()
    return counter.trips - trips, probe.since(used).commands


def starts(rig: Rig, *, is_ours: bool) -> tuple[float, float, float | None]:
    """Give seconds from the start of a process to its first line, to figures, and to its end."""
    command = OURS if is_ours else [*RQ, "--url", rig.server.url]
    with Screen(rig, command, rig.server.url) as screen:
        first = screen.seconds_until(rb"rqscan top" if is_ours else rb"\S")
        figures = screen.seconds_until(FIGURES)
        return first, figures, None if is_ours else screen.seconds_until_end()
