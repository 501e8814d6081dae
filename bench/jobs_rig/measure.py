"""How each thing is measured: one contender, one run, bounded in time."""

import json
import time
from collections import Counter
from contextlib import ExitStack

from jobs_rig.contenders import Contender
from jobs_rig.counter import RequestCounter
from jobs_rig.rig import CLIENT_S, Fleet, Rig

__all__ = ["idle", "latency", "memory", "requests", "throughput"]

RUN_S = 30  # longest wait for the jobs of one run
SETTLE_S = 4  # after a start: registrations, and a first beat
CALM_S = 10  # before idleness is measured: connections to each queue are made one by one


def _fleet(stack: ExitStack, rig: Rig, side: Contender, *queues: str, url: str = "") -> Fleet:
    url = url or rig.server.url
    commands = side.commands(url, queues or ("default",))
    return stack.enter_context(Fleet(rig, commands, rig.environ(side.env, url)))


def _fill(rig: Rig, side: Contender, count: int) -> None:
    env = rig.environ(side.env)
    rig.drive(side.python, side.client, "fill", str(count), env=env, timeout_s=CLIENT_S)


def _left(rig: Rig, side: Contender) -> int:
    with rig.client.pipeline(transaction=False) as pipeline:
        for command in side.left:
            pipeline.execute_command(*command)
        return sum(pipeline.execute())


def throughput(rig: Rig, side: Contender, seconds: float) -> dict[str, object]:
    """Jobs/s and CPU ms per job, of a queue that is full before the workers start.

    The clock runs from the moment when a tenth of the jobs is done: starting up does not count.
    """
    rig.fresh()
    count = max(20, round(side.jobs_per_s * seconds))
    _fill(rig, side, count)
    with ExitStack() as stack:
        fleet = _fleet(stack, rig, side)
        left = count

        def is_below(most: int) -> bool:
            nonlocal left
            left = _left(rig, side)
            return left <= most

        fleet.wait_for(lambda: is_below(count - count // 10), RUN_S)
        began, first, cpu = time.monotonic(), left, fleet.cpu()
        is_whole = fleet.wait_for(lambda: is_below(0), RUN_S)
        took, used = time.monotonic() - began, fleet.cpu() - cpu
    done = first - left
    return {
        "jobs": done,
        "jobs_per_s": done / took,
        "cpu_ms": {role: 1000 * spent / max(1, done) for role, spent in used.items()},
        "is_whole": is_whole,
    }


def requests(rig: Rig, side: Contender, count: int) -> dict[str, object]:
    """What one job costs Redis, counted in front of it, from a tenth of the jobs done to the last.

    `executed` is what Redis itself counted (INFO commandstats) without the bench's own polls.
    """
    rig.fresh()
    _fill(rig, side, count)
    with ExitStack() as stack:
        counter = RequestCounter(rig.folder / "counter.sock", rig.server.socket)
        stack.enter_context(counter)
        fleet = _fleet(stack, rig, side, url=counter.url)
        left, polls = count, 0

        def is_below(most: int) -> bool:
            nonlocal left, polls
            left, polls = _left(rig, side), polls + 1
            return left <= most

        fleet.wait_for(lambda: is_below(count - count // 10), RUN_S, 0.02)
        first, polls = left, 0
        executed, (names, trips) = rig.executed(), counter.snapshot()
        fleet.wait_for(lambda: is_below(0), RUN_S, 0.02)
        names_after, trips_after = counter.snapshot()
        executed = rig.executed() - executed - polls * len(side.left) - 1  # the INFO itself
    done = max(1, first - left)
    return {
        "jobs": done,
        "requests": (names_after - names).total() / done,
        "trips": (trips_after - trips) / done,
        "executed": executed / done,
        "by_name": {name: n / done for name, n in (names_after - names).most_common(6)},
    }


def latency(rig: Rig, side: Contender, client: str, count: int) -> list[float]:
    """Seconds from before an enqueue to the job's first line, on an idle worker, in order."""
    rig.fresh()
    with ExitStack() as stack:
        _fleet(stack, rig, side)
        env, limit_s = rig.environ(side.env), CLIENT_S + count
        drive = [client, "latency", str(count), "0.05"]
        return sorted(json.loads(rig.drive(side.python, *drive, env=env, timeout_s=limit_s)))


def idle(rig: Rig, side: Contender, queues: int, seconds: float) -> list[dict[str, object]]:
    """Requests/s of two idle workers, the busier one first: one of ours is also the sweeper."""
    rig.fresh()
    names = ["default", *(f"q{number}" for number in range(1, queues))]
    with ExitStack() as stack:
        counters = [RequestCounter(rig.folder / f"{n}.sock", rig.server.socket) for n in range(2)]
        for counter in counters:
            stack.enter_context(counter)
            _fleet(stack, rig, side, *names, url=counter.url)
        time.sleep(CALM_S)
        before = [counter.snapshot()[0] for counter in counters]
        time.sleep(seconds)
        after = [counter.snapshot()[0] for counter in counters]
    found: list[Counter[str]] = [b - a for a, b in zip(before, after, strict=True)]
    found.sort(key=Counter.total, reverse=True)
    return [
        {"per_s": n.total() / seconds, "by_name": {k: v / seconds for k, v in n.most_common()}}
        for n in found
    ]


def memory(rig: Rig, side: Contender) -> float:
    """MB (10^6) of proportional set size of an idle worker with all its processes."""
    rig.fresh()
    with ExitStack() as stack:
        fleet = _fleet(stack, rig, side)
        fleet.wait_for(lambda: False, SETTLE_S, 0.1)
        return fleet.pss_bytes() / 1e6
