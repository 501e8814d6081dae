"""One run: private servers, a fleet, faults for some minutes, time to settle, the account."""

import os
import random
import shutil
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import redis

from bench.chaos import ours, stock
from bench.chaos.faults import Faults
from bench.chaos.fleet import Fleet, Host, spawn
from bench.chaos.observer import Observer
from bench.chaos.stage import Stage
from bench.chaos.store import Store
from bench.chaos.verdict import Report
from rqscan.broker import keys
from tests.servers import RedisServer

__all__ = ["run"]

TICK_S = 0.02
SCHEDULE_S = 6.0
"""The schedulers go on for so long after the last fault: what one began to fire is finished."""

SETTLE_S = 60.0
"""Longest wait after the last fault without any job ending."""

DRAIN_S = 180.0
"""Longest wait for the spools after that: a store that was away is tried after up to a minute."""

ENOUGH = {False: 12, True: 100}
"""So many jobs may wait: few, so that queues run dry at times; with a database as many as go on for
some seconds while it is away and nothing can be planned."""


def run(
    system: str,
    seed: int,
    minutes: float,
    workers: int,
    *,
    no_links: str,
    may_lose_data: bool,
    has_database: bool,
) -> Report:
    """Run one system for some minutes under faults; `no_links` says why no link can be cut."""
    side: Any = {"ours": ours, "stock": stock}[system]
    folder = Path(tempfile.mkdtemp(prefix="rq-chaos-", dir="/tmp"))
    with ExitStack() as stack:
        (folder / "redis").mkdir()
        server = RedisServer(folder / "redis", None, "--bind", "0.0.0.0", tcp=not no_links)
        stack.callback(server.close)
        server.start()
        env = side.set_up(folder)
        store = Store(folder, workers, has_links=not no_links) if has_database else None
        if store:
            stack.callback(store.server.close)
            env |= store.start()
        fleet = Fleet(folder, side.command, env, side.UP)
        stray: list[str] = []
        stack.callback(lambda: stray.extend(fleet.close()))
        count = workers * ours.CAPACITY // side.CAPACITY
        fleet.hosts += [_host("worker", n, server) for n in range(count)]
        if side is ours:
            fleet.hosts += [_host("scheduler", n, server) for n in range(2)]
        for host in fleet.hosts:
            if store:
                store.join(host)
            fleet.start(host)
        load = spawn(
            [sys.executable, "-m", "bench.chaos.load", system, str(folder), str(seed),
             str(ENOUGH[has_database])],
            folder / "load.log", env | {"RQSCAN_REDIS_URL": server.url},
        )  # fmt: skip
        stack.callback(load.kill)
        client = server.client(socket_timeout=0.25, socket_connect_timeout=0.25)
        observer = Observer(client, fleet, side.QUEUES, side.CAPACITY)
        _wait_for_the_fleet(fleet, store)
        stage = Stage(random.Random(seed), server, fleet, observer, side.horses)
        faults = Faults(
            stage, store, has_links=not no_links, may_lose_data=may_lose_data, run_s=60 * minutes
        )
        until = time.monotonic() + 60 * minutes
        while time.monotonic() < until:
            _turn(faults, fleet, observer)
            if load.poll() is not None:
                raise SystemExit(f"chaos: the load ended by itself; see {folder}/load.log")
        faults.mend_all()
        load.terminate()
        _settle(client, observer, fleet, side.QUEUES)
        load.wait(30)
        if side is ours:
            _wait_for_the_spools(folder, fleet)
        tally = side.count(folder, client, {host.name for host in fleet.steady}, store)
        late = [f"{o.job} after {o.cause}" for o in observer.late]
        exits = [f"{e.name} with {e.code}: {e.last_words}" for e in fleet.exits]
    report = Report(
        system, seed, minutes, dict(faults.done), [f"cut links ({no_links})"] if no_links else [],
        tally, late, exits, stray, dict(observer.recovery), dict(observer.start), str(folder),
    )  # fmt: skip
    (folder / "story").write_text("\n".join([*faults.story, *observer.slow, *report.late]))
    if report.is_clean and not os.environ.get("KEEP"):
        shutil.rmtree(folder)
    return report


def _host(role: str, slot: int, server: RedisServer) -> Host:
    address = f"127.0.0.{(11 if role == 'worker' else 101) + slot}"
    url = f"redis://{address}:{server.port}/0" if server.port else server.url
    return Host(role, slot, address, url)


def _turn(faults: Faults, fleet: Fleet, observer: Observer) -> None:
    """Take one step, with all that is due."""
    observer.tick()
    try:
        faults.tick()
    except redis.RedisError:  # it went away in the middle of a look
        observer.expect_outage()
    fleet.supervise()
    time.sleep(TICK_S)


def _wait_for_the_fleet(fleet: Fleet, store: Store | None) -> None:
    until = time.monotonic() + 60
    while len(fleet.steady) < len(fleet.workers) or not (store is None or store.is_known()):
        fleet.supervise()
        if time.monotonic() > until:
            raise SystemExit(f"chaos: the workers did not start; see {fleet.folder}")
        time.sleep(TICK_S)


def _settle(client: redis.Redis, observer: Observer, fleet: Fleet, queues: list[str]) -> None:
    """Wait until all has ended, or for so long that nothing ends any more."""
    last, seen = time.monotonic(), -1
    schedule_until = last + SCHEDULE_S
    while time.monotonic() < last + SETTLE_S:
        observer.tick()
        fleet.supervise()
        time.sleep(TICK_S)
        if time.monotonic() > schedule_until:
            schedule_until = float("inf")
            fleet.stop("scheduler")
        if observer.redis_is_away:
            continue
        try:
            with client.pipeline(transaction=False) as pipe:
                for queue in queues:
                    pipe.llen(keys.queue(queue))
                    pipe.zcard(keys.registry("wip", queue))
                for queue in queues:
                    pipe.zcard(keys.registry("finished", queue))
                    pipe.zcard(keys.registry("failed", queue))
                (*numbers,) = pipe.execute()
        except redis.RedisError:
            continue
        left, ended = sum(numbers[: 2 * len(queues)]), sum(numbers[2 * len(queues) :])
        if ended != seen:
            last, seen = time.monotonic(), ended
        elif not left and schedule_until == float("inf") and time.monotonic() > last + 3:
            return


def _wait_for_the_spools(folder: Path, fleet: Fleet) -> None:
    """Wait until all that was spooled has been drained, or for long enough."""
    until = time.monotonic() + DRAIN_S
    spools = ours.spools(folder)
    while any(spool.status().records for spool in spools) and time.monotonic() < until:
        fleet.supervise()
        time.sleep(0.5)
