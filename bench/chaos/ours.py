"""rqscan in a chaos run: what to start, what to enqueue, and the account of every chunk."""

import os
import sqlite3
import sys
from collections import Counter, defaultdict
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path
from typing import Any

import psutil
import redis
from msgspec import structs

from bench.chaos.chaos_kinds import PORTS
from bench.chaos.fleet import Host, title
from bench.chaos.rows import Found, Rows
from bench.chaos.store import ACCOUNT, Store
from bench.chaos.verdict import Tally
from rqscan import config
from rqscan.broker import keys
from rqscan.broker.connect import connect
from rqscan.scan.kinds import load_kinds
from rqscan.scan.plan import Plan, make_plan
from rqscan.scan.submit import submit
from rqscan.store.spool import Spool

__all__ = [
    "CAPACITY", "QUEUES", "UP", "Enqueuer", "command", "count", "horses", "set_up", "spools",
]  # fmt: skip

ROOT = Path(__file__).resolve().parents[2]
QUEUES = ["red", "green", "blue"]
UP = "worker_started"  # what a worker logs
CAPACITY = 2

SETTINGS = f"""
[worker]
max_lost = 1_000_000         # both limits have tests of their own
max_host_losses = 1_000_000
[spool]
drain_rows_per_s = 1_000     # what was kept for long comes in for seconds, and faults find it so
[jobs]
path = "{ROOT}/bench/chaos/chaos_kinds"
[queues]
{{queues}}
[[schedule]]
name = "often"
every_s = 7
queue = "blue"
scan = {{{{ targets = ["127.0.0.1-127.0.0.5"], kinds = ["nap"] }}}}
"""
KEPT_S = 7 * 86_400  # every record stays until the account


def set_up(folder: Path) -> dict[str, str]:
    """Write the settings; give the environment."""
    queues = "\n".join(f"{q} = {{ result_ttl_s = {KEPT_S}, timeout_s = 60 }}" for q in QUEUES)
    (folder / "rqscan.toml").write_text(SETTINGS.format(queues=queues))
    kept = {name: value for name, value in os.environ.items() if not name.startswith("RQSCAN_")}
    return kept | {"RQSCAN_HOME": str(folder / "home"), "PYTHONPATH": str(ROOT)}


def command(host: Host) -> list[str]:
    """Give what starts a worker or a scheduler."""
    if host.role == "scheduler":
        return [sys.executable, str(ROOT / "scheduler.py"), "--log-json"]
    queues = QUEUES[host.slot % 3 :] + QUEUES[: host.slot % 3]
    return [
        sys.executable, str(ROOT / "worker.py"), *queues, "--name", host.name,
        "--concurrency", str(CAPACITY), "--stop-timeout", "1", "--log-json",
    ]  # fmt: skip


def horses(host: Host) -> list[tuple[psutil.Process, str]]:
    """Give a worker's busy horses, each with its job."""
    found = []
    for process in host.tree():
        words = title(process).split()
        if words[:2] == ["rqscan", "horse"]:
            found.append((process, words[2]))
    return found


class Enqueuer:
    """Plans and submits scans of kind `nap`, as `rqscan scan` does."""

    def __init__(self, folder: Path) -> None:
        self._settings = config.load(str(folder / "rqscan.toml"))
        load_kinds(self._settings.jobs.path)
        self._client = connect(self._settings)

    def ask(self, queue: str, count: int) -> Plan:
        targets = [f"127.0.0.1-127.0.0.{count}"]
        return make_plan(settings=self._settings, targets=targets, kinds=["nap"], queue=queue)

    def put(self, plan: Plan) -> None:
        submit(plan, settings=self._settings, client=self._client)

    def waiting(self, queues: Iterable[str]) -> int:
        return sum(self._client.llen(queue) for queue in queues)


def spools(folder: Path) -> list[Spool]:
    """Give the spool of each home."""
    settings = config.load(str(folder / "rqscan.toml"))
    homes = sorted(folder.glob("home*"))
    return [Spool(structs.replace(settings, home=str(home))) for home in homes]


def count(folder: Path, client: redis.Redis, alive: set[str], store: Store | None) -> Tally:
    """Hold the plan in the store, its rows, the spools and Redis against each other."""
    chunks, found = _read(folder, store)
    tally = Tally(planned=len(chunks), rows=Rows())
    tally.rows.see(spools(folder))
    jobs = [f"{scan}-{chunk}-{generation}" for scan, chunk, generation, *_ in chunks]
    records = tally.read(client, jobs, QUEUES, alive)
    scans: dict[str, int] = {}
    for job, record, (scan, chunk, _, state, attempt, error, enqueued, told) in zip(
        jobs, records, chunks, strict=True
    ):
        scans[scan] = scans.get(scan, 0) + 1
        rows = found[scan, chunk].total()
        about = (
            f"{job}: store {state} (attempt {attempt}, rows {rows}, enqueued {enqueued}, {error}), "
            f"Redis {record}"
        )
        is_done = state == "finished"
        has_failed = not is_done and "failed" in {state, record.status}
        is_whole = tally.rows.add(about, chunk, told, found[scan, chunk], has_failed=has_failed)
        if rows > len(PORTS):
            tally.doubled.append(f"{about}: rows of several executions")
        if is_done and record.status == "failed":
            tally.contradicted.append(about)
        if is_done and is_whole:
            tally.finished += 1
        elif has_failed:
            tally.failed.append(f"{job}: {error or record.error}")
        elif not is_done and record.is_open:
            tally.open.append(about)
        else:
            tally.lost.append(about)
        tally.see(about, record)
    _count_progress(tally, client, scans)
    return tally


def _count_progress(tally: Tally, client: redis.Redis, scans: dict[str, int]) -> None:
    for scan, total in scans.items():
        progress: Any = client.hgetall(keys.progress(scan))
        if b"total" not in progress:
            continue  # ended before Redis lost its data: the store tells
        ended = sum(int(progress.get(what, 0)) for what in (b"done", b"failed", b"cancelled"))
        about = f"scan {scan}: {ended} of {total} counted, {progress}"
        if ended > total:
            tally.doubled.append(about)
        elif ended < total and not any(scan in one for one in (*tally.open, *tally.lost)):
            tally.uncounted.append(about)


def _read(folder: Path, store: Store | None) -> tuple[list[Any], dict[tuple[str, int], Found]]:
    """Give all chunks, and the rows of each."""
    found: dict[tuple[str, int], Found] = defaultdict(Counter)
    with closing(store.admin(database=ACCOUNT) if store else _sqlite(folder)) as connection:
        cursor = connection.cursor()
        cursor.execute(
            """SELECT scan_id, chunk, generation, state, attempt, error, enqueued_at, observations
               FROM chunks"""
        )
        chunks = [*cursor.fetchall()]
        cursor.execute("SELECT scan_id, chunk, host, port FROM observations")
        for scan, chunk, *place in cursor.fetchall():
            found[scan, chunk][*place] += 1
    return chunks, found


def _sqlite(folder: Path) -> sqlite3.Connection:
    (path,) = (path for path in (folder / "home").glob("*.db") if path.name != "spool.db")
    return sqlite3.connect(f"file:{path}?mode=ro", uri=True)
