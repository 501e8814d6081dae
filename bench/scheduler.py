"""Our scheduler beside rq-scheduler, RQ's CronScheduler and Celery beat: how late, at what cost.

Everybody has the same entries on the same private Redis (a unix socket, no persistence), in rounds
in which each contender has its turn. Nobody runs what is enqueued: a reader that blocks on the
queue takes it out and notes when. Due times are whole seconds, so that all of a second fall due at
once. Machines and their load differ, so only what stands side by side means something elsewhere.
"""

import argparse
import json
import statistics
import sys
import time
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).resolve().parents[1]))  # for tests.servers

from jobs_rig.figures import missed, percentile
from jobs_rig.rig import rig
from scheduler_rig.contenders import CONTENDERS, OURS
from scheduler_rig.measure import Shape, measure

SHAPES = {
    "10x10": Shape(10, 1),
    "1000x10": Shape(1_000, 100),
    "10000x10": Shape(10_000, 1_000),
    "10000x100": Shape(10_000, 100),
}
FEW, MANY, BUSY = "10x10", "10000x10", "10000x100"
LATE_MS = 100  # 99 % of the runs of BUSY are fired within that
MOST_GROWTH = 1.5  # times the CPU of FEW that MANY costs, with as many due
WINDOW_S, QUICK_S = 7, 3
QUICK_SHAPES = (FEW, BUSY)
SLOWER = "rq-scheduler, 1 s"  # left out by --quick

ROLES = {"main": ("main",), "child": ("below", "gone"), "redis": ("redis",)}
ALL = ("main", "below", "gone", "redis")

Results = dict[str, dict[str, list[dict[str, Any]]]]


def main() -> None:
    asked = arguments()
    found: Results = {key: {} for key in asked.only}
    with rig() as place:
        for number in range(asked.rounds):
            for key in asked.only:
                names = [name for name in CONTENDERS if is_asked(name, asked)]
                shift = number % len(names)  # nobody always follows the same neighbour
                for name in names[shift:] + names[:shift]:
                    if time.monotonic() > asked.deadline:
                        print(f"bench: no time left for {name}, {key}", file=sys.stderr)
                        continue
                    print(f"round {number + 1}, {SHAPES[key]}: {name}", file=sys.stderr)
                    try:
                        run = measure(place, name, SHAPES[key], window_s(name, key, asked))
                        found[key].setdefault(name, []).append(run)
                    except Exception as e:  # noqa: BLE001 - one that fails must not hide the others
                        print(f"bench: {name}, {key} failed: {e}", file=sys.stderr)
    if asked.json:
        print(json.dumps(found, indent=1))
        return
    for key, runs in found.items():
        print_shape(SHAPES[key], runs)
    print_targets(found)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--quick", action="store_true", help=f"{QUICK_S} s each of the extremes")
    parser.add_argument(
        "--only", nargs="+", choices=SHAPES, help="entries x due a second (default: all)"
    )
    parser.add_argument("--match", nargs="+", default=["*"], help="contenders, as shell patterns")
    parser.add_argument("--minutes", type=float, default=20, help="after which no run starts")
    parser.add_argument("--json", action="store_true", help="print every figure as one object")
    asked = parser.parse_args()
    asked.only = asked.only or (QUICK_SHAPES if asked.quick else tuple(SHAPES))
    asked.deadline = time.monotonic() + 60 * asked.minutes
    return asked


def is_asked(name: str, asked: argparse.Namespace) -> bool:
    if asked.quick and name == SLOWER:
        return False
    return any(fnmatch(name, pattern) for pattern in asked.match)


def window_s(name: str, key: str, asked: argparse.Namespace) -> int:
    """Give the length of a window: those that are compared hold all of a scheduler's cycle."""
    if asked.quick:
        return QUICK_S
    return max(WINDOW_S, CONTENDERS[name].cycle_s if key in {FEW, MANY, BUSY} else 0)


def print_shape(shape: Shape, runs: dict[str, list[dict[str, Any]]]) -> None:
    print(f"\n## {shape}")
    print(f"{'':19} {'came':>12}  {'ms late in the queue':>21}  {'ms late fired':>13}  "
          f"{'CPU s a minute, median:':>29}  start-up")  # fmt: skip
    print(f"{'':19} {'of asked':>12}  {'p50, p99, max':>21}  {'p50, p99':>13}  "
          f"{'scheduler + child + redis':>29}  {'s':>8}")  # fmt: skip
    for name, rounds in runs.items():
        late = pooled(rounds, "late_s")
        came = f"{sum(run['made'] for run in rounds)} of {len(late)}"
        fired = in_ms(pooled(rounds, "fired_s"), 0.5, 0.99)
        cpu = " + ".join(f"{cpu_s(rounds, *roles):.2f}" for roles in ROLES.values())
        start_up_s = statistics.median(run["start_up_s"] for run in rounds)
        print(f"{name:19} {came:>12}  {in_ms(late, 0.5, 0.99, 1):>21}  {fired:>13}  {cpu:>29}  "
              f"{start_up_s:8.1f}")  # fmt: skip


def print_targets(found: Results) -> None:
    print()
    if ours := found.get(BUSY, {}).get(OURS):
        late_ms = 1000 * percentile(pooled(ours, "fired_s"), 0.99)
        print(f"{SHAPES[BUSY]}: 99 % of ours fired within {late_ms:.0f} ms; target {LATE_MS}"
              f"{missed(late_ms > LATE_MS)}")  # fmt: skip
    few, many = found.get(FEW, {}), found.get(MANY, {})
    for name in [name for name in few if name in many]:
        alone, whole = (growth(few[name], many[name], *roles) for roles in (ROLES["main"], ALL))
        target = ""
        if name == OURS:
            target = f"; target {MOST_GROWTH}{missed(max(alone, whole) > MOST_GROWTH)}"
        print(f"CPU of {MANY} to that of {FEW}, {name}: {alone:.1f} times the scheduler's, "
              f"{whole:.1f} times all{target}")  # fmt: skip


def growth(few: list[dict[str, Any]], many: list[dict[str, Any]], *roles: str) -> float:
    return cpu_s(many, *roles) / cpu_s(few, *roles)


def cpu_s(rounds: list[dict[str, Any]], *roles: str) -> float:
    return statistics.median(sum(run["cpu_s_per_min"][role] for role in roles) for run in rounds)


def pooled(rounds: list[dict[str, Any]], key: str) -> list[float]:
    return sorted(late for run in rounds for late in run.get(key, ()))


def in_ms(late: list[float], *shares: float) -> str:
    return ", ".join(f"{1000 * percentile(late, share):.0f}" for share in shares) if late else ""


if __name__ == "__main__":
    main()
