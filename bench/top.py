"""`rqscan top` beside `rq info` and rq-dashboard: what one refresh costs, and how a start feels.

Everybody watches the same fleet, which is only in a private Redis (a unix socket, no persistence).
The larger takes some 15 s to make, and 1.8 GB of memory. Counts are the same on every machine; of
times only what stands side by side says something elsewhere. The tables are Markdown, as in
docs/benchmarks.md.
"""

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).resolve().parents[1]))  # for tests.servers

from jobs_rig.figures import missed
from jobs_rig.rig import ROOT, Rig, rig
from top_rig.fake import Shape, beating, fill
from top_rig.measure import (
    DASHBOARD,
    DELAY_S,
    LOOK,
    RQ_INFO,
    SCREEN,
    Probe,
    contenders,
    cost,
    counted,
    starts,
)

SHAPES = {
    "small": Shape(200, 20, 8, 100_000, 1_000),
    "large": Shape(1_000, 50, 100, 1_000_000, 5_000),
}
REFRESHES = {"small": 8, "large": 4}
SLOW = {RQ_INFO: 2, DASHBOARD: 2}  # refreshes of those with seconds of work, large
STARTS = {"small": 10, "large": 3}
MOST_TRIPS, MOST_CPU_MS, MOST_FIRST_MS = 2, 50, 150  # the targets, of the small fleet

Results = dict[str, dict[str, Any]]
HEAD = (
    "round trips", "commands", "kB out of Redis", "its CPU, ms", "Redis' CPU, ms", "takes, ms",
    f"with {1000 * DELAY_S:g} ms more a trip",
)  # fmt: skip


def main() -> None:
    asked = arguments()
    found: dict[str, Results] = {}
    with rig() as place:
        for key in asked.only:
            print(f"bench: making {SHAPES[key]}", file=sys.stderr)
            names = fill(place.client, SHAPES[key])
            with beating(place.client, names):
                found[key] = measure(place, key, asked)
    if asked.json:
        print(json.dumps(found, indent=1))
        return
    for key, results in found.items():
        print_costs(SHAPES[key], results)
    print_starts(found)
    print_targets(found)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--only", nargs="+", choices=SHAPES, default=list(SHAPES))
    parser.add_argument("--theirs", default=str(ROOT / ".venv-bench/bin/python"), metavar="PYTHON",
                        help="that has rq-dashboard (default: %(default)s)")  # fmt: skip
    parser.add_argument("--minutes", type=float, default=10, help="after which nothing starts")
    parser.add_argument("--json", action="store_true", help="print every figure as one object")
    asked = parser.parse_args()
    asked.deadline = time.monotonic() + 60 * asked.minutes
    return asked


def measure(place: Rig, key: str, asked: argparse.Namespace) -> Results:
    """Give what one fleet costs each to watch: counts once, times in rounds, and starts."""
    sides = contenders(asked.theirs, SHAPES[key].failed)
    found: Results = {}
    probe = Probe(place)

    def attempt(name: str, what: str, run: Callable[[], Any]) -> None:
        if time.monotonic() > asked.deadline:
            print(f"bench: no time left for {what} of {name}", file=sys.stderr)
            return
        print(f"{key}: {what} of {name}", file=sys.stderr)
        try:
            figure = run()
            found.setdefault(name, {}).setdefault(what, []).append(figure)
        except Exception as e:  # noqa: BLE001 - one that fails must not hide the others
            print(f"bench: {what} of {name} failed: {e}", file=sys.stderr)

    for side in sides:
        times = 1 if side.name in SLOW else 3
        attempt(side.name, "trips", partial(counted, place, probe, side, times))
    for number in range(asked.rounds):
        shift = number % len(sides)  # nobody always follows the same neighbour
        for side in sides[shift:] + sides[:shift]:
            times = SLOW.get(side.name, REFRESHES[key]) if key == "large" else REFRESHES[key]
            trips = found.get(side.name, {}).get("trips")
            known = round(trips[0]["commands"]) if trips and side.name == SCREEN else None
            attempt(side.name, "cost", partial(cost, place, probe, side, times, known))
    for _ in range(STARTS[key]):
        for name, is_ours in ((SCREEN, True), (RQ_INFO, False)):
            attempt(name, "start", partial(starts, place, is_ours=is_ours))
    return found


def print_costs(shape: Shape, results: Results) -> None:
    print(f"\n| one refresh of {shape} | {' | '.join(HEAD)} |")
    print("|---|" + "---:|" * len(HEAD))
    rows = {name: figures(runs) for name, runs in results.items()}
    for name, row in rows.items():
        print(f"| {name} | {' | '.join(map(shown, row))} |")
    for name, row in rows.items():
        if name not in {LOOK, SCREEN} and LOOK in rows:
            times = [its / mine if its and mine else None
                     for its, mine in zip(row, rows[LOOK], strict=True)]  # fmt: skip
            print(f"| {name} : {LOOK} | {' | '.join(map(shown, times))} |")


def figures(runs: dict[str, Any]) -> list[float | None]:
    """Give one contender's row, medians of its rounds."""
    (trips,), costs = runs.get("trips", [{}]), runs.get("cost", [])
    measured = [middle([one[key] for one in costs])
                for key in ("commands", "kb", "cpu_ms", "redis_ms", "wall_ms")]  # fmt: skip
    return [trips.get("trips"), *measured, trips.get("delayed_ms")]


def middle(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return statistics.median(known) if known else None


def shown(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:,.0f}" if value >= 20 else f"{value:.1f}".removesuffix(".0")  # noqa: PLR2004


def print_starts(found: dict[str, Results]) -> None:
    print("\n| from the start of the process, on a terminal, ms: median, highest | first line "
          "| first figures | all |")  # fmt: skip
    print("|---|---:|---:|---:|")
    for key, results in found.items():
        for name, what in ((SCREEN, "`rqscan top`"), (RQ_INFO, "`rq info`")):
            if runs := results.get(name, {}).get("start"):
                cells = [spread(column) for column in zip(*runs, strict=True)]
                print(f"| {what}, {SHAPES[key].workers:,} workers | {' | '.join(cells)} |")


def spread(seconds: Sequence[float | None]) -> str:
    known = [1000 * one for one in seconds if one is not None]
    return f"{statistics.median(known):,.0f}, {max(known):,.0f}" if known else "-"


def print_targets(found: dict[str, Results]) -> None:
    small = found.get("small", {})
    print()
    for name in (LOOK, SCREEN):
        trips, _, _, cpu_ms, *_ = figures(small.get(name, {}))
        if trips is not None and cpu_ms is not None:
            print(f"{name}, {SHAPES['small'].workers} workers: {shown(trips)} round trips and "
                  f"{cpu_ms:.0f} ms of CPU a refresh; target {MOST_TRIPS} and {MOST_CPU_MS}"
                  f"{missed(trips > MOST_TRIPS or cpu_ms > MOST_CPU_MS)}")  # fmt: skip
    if runs := small.get(SCREEN, {}).get("start"):
        first_ms = 1000 * statistics.median(run[0] for run in runs)
        print(f"`rqscan top`: first frame after {first_ms:.0f} ms; target {MOST_FIRST_MS}"
              f"{missed(first_ms > MOST_FIRST_MS)}")  # fmt: skip


if __name__ == "__main__":
    main()
