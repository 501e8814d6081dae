"""Our worker beside stock RQ, Celery, dramatiq and huey: jobs/s, cost, latency, memory.

Everybody runs the same two functions on the same private Redis (a unix socket, no persistence),
in rounds in which each contender has its turn; a ratio compares two runs of one round. Machines
and their load differ, so only ratios and CPU time per job mean something elsewhere.
"""

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).resolve().parents[1]))  # for tests.servers

from jobs_rig import measure
from jobs_rig.contenders import CONTENDERS, Contender
from jobs_rig.figures import missed, percentile, spread
from jobs_rig.rig import Rig, rig

RATIOS = [  # ours, theirs, how many times their jobs/s the median is to be at least
    ("fresh x1", "RQ Worker x1", 5),
    ("fresh x4", "RQ Worker x1", 5),
    ("fresh x4", "RQ Worker x4", None),
    ("fresh, SQLite x1", "RQ Worker x1", None),
    ("fresh x1", "Celery, 1 task a child x1", None),
    ("plain x1", "RQ Worker x1", 2.5),
    ("reused x1", "RQ SimpleWorker x1", 6),
    ("reused x4", "RQ SimpleWorker x4", 6),
    ("plain, reused x1", "RQ SimpleWorker x1", None),
    *(
        (f"reused x{size}", f"{theirs} x{size}", 1)
        for theirs in ("Celery", "dramatiq", "huey")
        for size in (1, 4)
    ),
    ("reused x8", "dramatiq, 8 threads x1", 1),
    *((f"{way} x{size}", f"{way} x1", None) for way in ("fresh", "reused") for size in (2, 8, 16)),
]
LATENCIES = [  # contender, who enqueues
    ("fresh x1", "via_rqscan"),
    ("reused x1", "via_rqscan"),
    ("plain x1", "via_rqscan_queue"),
    ("plain x1", "via_rq_json"),
    ("plain, reused x1", "via_rq_json"),
    *((name, CONTENDERS[name].client) for name in ("RQ Worker x1", "RQ SimpleWorker x1")),
    *((name, CONTENDERS[name].client) for name in ("Celery x1", "dramatiq x1", "huey x1")),
]
ONCE = ["fresh x1", "fresh x4", "reused x1", "plain x1", "RQ Worker x1", "RQ SimpleWorker x1"]
ONCE += ["Celery x1", "dramatiq x1", "huey x1"]
IDLE = ["fresh x1", "RQ Worker x1", "Celery x1", "dramatiq x1", "huey x1"]
HOLDING = ["fresh x1", "fresh x4", "fresh x16", "reused x4", "RQ Worker x1", "RQ Worker x4"]
HOLDING += ["RQ SimpleWorker x1", "Celery x1", "Celery x4", "dramatiq x4", "huey x4"]
SECTIONS = ("throughput", "requests", "latency", "idle", "memory")

Results = dict[str, list[Any]]


def main() -> None:
    asked = arguments()
    found: dict[str, Results] = {section: {} for section in asked.only}
    with rig() as place:
        for number in range(asked.rounds):
            for section in asked.only:
                if number == 0 or section in {"throughput", "latency"}:
                    one_round(place, section, number, asked, found[section])
    if asked.json:
        print(json.dumps(found, indent=1))
        return
    for section in asked.only:
        print(f"\n## {section}")
        PRINTERS[section](found[section])


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, help="of throughput and latency (default: 5)")
    parser.add_argument("--seconds", type=float, help="that a run is to take (default: 2)")
    parser.add_argument("--quick", action="store_true", help="2 rounds of 0.5 s")
    parser.add_argument("--only", nargs="+", choices=SECTIONS, default=SECTIONS)
    parser.add_argument("--match", nargs="+", default=["*"], help="contenders, as shell patterns")
    parser.add_argument("--minutes", type=float, default=30, help="after which no run starts")
    parser.add_argument("--json", action="store_true", help="print every figure as one object")
    asked = parser.parse_args()
    asked.rounds = asked.rounds or (2 if asked.quick else 5)
    asked.seconds = asked.seconds or (0.5 if asked.quick else 2.0)
    asked.deadline = time.monotonic() + 60 * asked.minutes
    return asked


def one_round(
    place: Rig, section: str, number: int, asked: argparse.Namespace, found: Results
) -> None:
    runs = list(plan(section, asked))
    shift = number % len(runs)  # nobody always follows the same neighbour
    for label, run in runs[shift:] + runs[:shift]:
        if not any(fnmatch(label, pattern) for pattern in asked.match):
            continue
        if time.monotonic() > asked.deadline:
            print(f"bench: no time left for {section}: {label}", file=sys.stderr)
            continue
        print(f"round {number + 1}, {section}: {label}", file=sys.stderr)
        try:
            found.setdefault(label, []).append(run(place))
        except Exception as e:  # noqa: BLE001 - one that fails must not hide the others
            print(f"bench: {label} failed: {e}", file=sys.stderr)
            found.setdefault(label, []).append(None)


def plan(section: str, asked: argparse.Namespace) -> list[tuple[str, Callable[[Rig], Any]]]:
    """Give what is to run in one section: a label, and a call that takes the rig."""
    sides: dict[str, Contender] = CONTENDERS
    few = 30 if asked.quick else 150
    if section == "throughput":
        return [
            (name, lambda place, side=side: measure.throughput(place, side, asked.seconds))
            for name, side in sides.items()
        ]
    if section == "requests":
        return [
            (name, lambda place, side=sides[name]: measure.requests(place, side, 2 * few))
            for name in ONCE
        ]
    if section == "latency":
        return [
            (
                f"{name}, {client}",
                lambda place, side=sides[name], client=client: measure.latency(
                    place, side, client, few // 3
                ),
            )
            for name, client in LATENCIES
        ]
    if section == "idle":
        return [
            (
                f"{name}, {queues} queues",
                lambda place, side=sides[name], queues=queues: measure.idle(
                    place, side, queues, 6 if asked.quick else 20
                ),
            )
            for name in IDLE
            for queues in ((1,) if sides[name].queue_option == "" else (1, 8))
        ]
    return [(name, lambda place, side=sides[name]: measure.memory(place, side)) for name in HOLDING]


def print_throughput(found: Results) -> None:
    print(f"{'contender':28} jobs/s: min-median-max    CPU ms per job, median: "
          "main + below + gone + redis = all")  # fmt: skip
    for name, runs in found.items():
        whole = [run for run in runs if run]
        if not whole:
            print(f"{name:28} failed")
            continue
        rates = [run["jobs_per_s"] for run in whole]
        roles = [[run["cpu_ms"][role] for run in whole] for role in whole[0]["cpu_ms"]]
        cpu = [statistics.median(spent) for spent in roles]
        stalled = sum(not run["is_whole"] for run in whole)
        print(f"{name:28} {spread(rates):>22}    {' + '.join(f'{ms:.2f}' for ms in cpu)}"
              f" = {sum(cpu):.2f}{f'   stalled in {stalled} runs' if stalled else ''}")  # fmt: skip
    print(f"\n{'ratio of jobs/s, round by round':58} min-median-max  target")
    for ours, theirs, target in RATIOS:
        pairs = zip(found.get(ours, []), found.get(theirs, []), strict=False)
        ratios = [
            mine["jobs_per_s"] / its["jobs_per_s"]
            for mine, its in pairs
            if mine and its and its["jobs_per_s"]
        ]
        if ratios:
            print(f"{f'{ours} / {theirs}':58} {spread(ratios):>14}  {target or ''}"
                  f"{missed(statistics.median(ratios) < (target or 0))}")  # fmt: skip


def print_requests(found: Results) -> None:
    print(f"{'per job':20} requests  round trips  executed in Redis  most asked")
    for name, (run,) in found.items():
        if run:
            names = ", ".join(f"{key} {count:.2f}" for key, count in run["by_name"].items())
            print(f"{name:20} {run['requests']:8.2f}  {run['trips']:11.2f}  "
                  f"{run['executed']:17.1f}  {names}")  # fmt: skip


def print_latency(found: Results) -> None:
    print(f"{'enqueue to start, ms':40} p50 of each round: min-median-max    p99 likewise")
    for name, rounds in found.items():
        whole = [[1000 * s for s in run] for run in rounds if run]
        if whole:
            halves = [percentile(run, 0.5) for run in whole]
            tails = [percentile(run, 0.99) for run in whole]
            print(f"{name:40} {spread(halves):>33}    {spread(tails)}")


def print_idle(found: Results) -> None:
    print(f"{'requests/s of two idle workers':32} the one  the other  most asked by the one")
    for name, (run,) in found.items():
        if run:
            names = ", ".join(f"{key} {rate:.2f}" for key, rate in run[0]["by_name"].items())
            print(f"{name:32} {run[0]['per_s']:7.2f}  {run[1]['per_s']:9.2f}  {names}")


def print_memory(found: Results) -> None:
    print("MB of proportional set size (10^6 bytes) of an idle worker with all its processes")
    for name, (size,) in found.items():
        print(f"{name:20} {size:6.1f}" if size else f"{name:20} failed")


PRINTERS = {
    "throughput": print_throughput,
    "requests": print_requests,
    "latency": print_latency,
    "idle": print_idle,
    "memory": print_memory,
}


if __name__ == "__main__":
    main()
