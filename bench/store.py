"""Rows into MariaDB, direct and through the spool, beside LOAD DATA and what else writes rows.

A private MariaDB on a unix socket; each run is a process with a fresh database, in rounds in which
each way has its turn: a ratio compares two runs of one round. Machines and their load differ, so
only ratios and CPU time mean something elsewhere.
"""

import argparse
import json
import os
import pickle
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from msgspec import msgpack

sys.path.append(str(Path(__file__).resolve().parents[1]))  # for tests.servers

from jobs_rig.figures import missed, percentile, spread
from store_rig.records import SCAN, records, settings_of

from rqscan.errors import Fault
from rqscan.fleet.drain_chore import STAY_S
from rqscan.store.breaker import Breaker
from rqscan.store.intake import _keyed, _rows
from rqscan.tally import Go
from tests.databases import MariaDB
from tests.spools import plan

BENCH = Path(__file__).resolve().parent
ENV = {"PYTHONPATH": f"{BENCH}:{BENCH.parent}"}
THEIRS = str(BENCH.parent / ".venv-bench/bin/python")
WAYS = ("ours", "load_data", "load_data_ready", "executemany", "sqlalchemy_core", "single")
SHAPES = ((1, 500), (100, 200), (1_000, 30), (10_000, 4))  # rows a chunk, chunks
TARGETS = {"load_data": 1.5, "load_data_ready": 1.5}  # our time to theirs, at most
DRAINED, LEAST_OF_DIRECT = (100, 1_000), 0.7  # rows a record
MOST_MS = 5  # of a job whose database is away
FEW, MANY = 10, 1_000  # chunks of a thousand rows, for memory
# as a server is set that is to take many rows; the loose ones are MariaDB's and MySQL's own
SERVER = (
    "--innodb-buffer-pool-size=1G", "--loose-innodb-log-file-size=512M",
    "--loose-innodb-redo-log-capacity=512M", "--local-infile=1",
)  # fmt: skip
SECTIONS = ("direct", "spool", "away", "memory")

Results = dict[str, list[Any]]


class Rig:
    """The server, and what is run against it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.server = MariaDB(folder, *SERVER).start()
        self._homes = 0

    @contextmanager
    def store(self, chunks: int) -> Iterator[tuple[str, str]]:
        """Give a fresh home, and the URL of a fresh database where so many chunks are planned."""
        self._homes += 1
        home, url = str(self.folder / f"home{self._homes}"), self.server.database_url()
        plan(settings_of(home, url), chunks, SCAN)
        yield home, url
        with self.server.connect() as admin:
            admin.cursor().execute(f"DROP DATABASE {name_of(url)}")
        shutil.rmtree(home, ignore_errors=True)

    def run(self, script: str, *args: object, python: str = sys.executable) -> Any:
        argv = [python, str(BENCH / "store_rig" / script), *map(str, args)]
        done = subprocess.run(argv, env=ENV, stdout=subprocess.PIPE, check=True)
        return json.loads(done.stdout)

    @contextmanager
    def drain_child(self, home: str, url: str) -> Iterator[None]:
        """Have the child meanwhile that a worker has once the database is away for a while."""
        while not (away := Breaker(home).away()) or away.until < time.monotonic() + STAY_S:
            Breaker(home).open(Fault.FULL, "it is frozen")  # the pause is drawn
        argv = [sys.executable, "-m", "rqscan.fleet.drain_chore", "drain", str(os.getpid())]
        given = msgpack.encode((settings_of(home, url), Go.NOW))
        child = subprocess.Popen(argv, env=ENV, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL)
        assert child.stdin
        with child.stdin:
            child.stdin.write(given)
        while not Path(home, "spool.db-shm").exists():
            assert child.poll() is None
            time.sleep(0.01)
        yield
        child.kill()
        child.wait()

    def write(self, way: str, size: int, chunks: int) -> tuple[float, float, float]:
        """Give rows/s of one way, and CPU seconds a row: the client's and the server's."""
        python = THEIRS if way == "sqlalchemy_core" else sys.executable
        with self.store(chunks) as (home, url):
            server = {"socket": str(self.server.socket), "database": name_of(url), "url": url,
                      "home": home, "folder": str(self.folder), "pid": self.server.pid}  # fmt: skip
            rows = self.folder / f"rows-{size}-{chunks}.pickle"
            if not rows.exists():
                rows.write_bytes(pickle.dumps(tuples(size, chunks)))
            spent, cpu, its_cpu = self.run("write.py", way, json.dumps(server), rows, python=python)
            self.check(url, size * chunks)
        count = size * chunks
        return count / spent, cpu / count, its_cpu / count

    def check(self, url: str, rows: int) -> None:
        with self.server.connect(database=name_of(url)) as admin, admin.cursor() as cursor:
            cursor.execute("SELECT COUNT(*) FROM observations")
            assert cursor.fetchone() == (rows,)


def main() -> None:
    asked = arguments()
    found: dict[str, Results] = {section: {} for section in asked.only}
    folder = Path(tempfile.mkdtemp(prefix="rq-store-", dir="/tmp"))
    rig = Rig(folder)
    try:
        for number in range(asked.rounds):
            for section in asked.only:
                if number == 0 or section in {"direct", "spool"}:
                    print(f"round {number + 1}: {section}", file=sys.stderr)
                    MEASURES[section](rig, number, asked, found[section])
    finally:
        rig.server.close()
        shutil.rmtree(folder)
    if asked.json:
        print(json.dumps(found, indent=1))
        return
    for section in asked.only:
        print(f"\n## {section}")
        PRINTERS[section](found[section])


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, help="of direct and spool (default: 5)")
    parser.add_argument("--quick", action="store_true", help="2 rounds of a fifth of the rows")
    parser.add_argument("--only", nargs="+", choices=SECTIONS, default=SECTIONS)
    parser.add_argument("--json", action="store_true", help="print every figure as one object")
    asked = parser.parse_args()
    asked.rounds = asked.rounds or (2 if asked.quick else 5)
    asked.share = 5 if asked.quick else 1
    return asked


def name_of(url: str) -> str:
    return urlsplit(url).path[1:]


def tuples(size: int, chunks: int) -> list[list[tuple[Any, ...]]]:
    made = records(chunks, size)
    return [[*_rows(record, _keyed(record, record.observations))] for record in made]


def direct(rig: Rig, number: int, asked: argparse.Namespace, found: Results) -> None:
    for size, chunks in SHAPES:
        shift = number % len(WAYS)  # nobody always follows the same neighbour
        for way in WAYS[shift:] + WAYS[:shift]:
            some = max(2, chunks // asked.share)
            found.setdefault(f"{way} {size}", []).append(rig.write(way, size, some))


def spool(rig: Rig, _number: int, asked: argparse.Namespace, found: Results) -> None:
    for size, chunks in SHAPES:
        some = max(2, min(200, chunks) // asked.share)
        with rig.store(some) as (home, url):
            spent = rig.run("keep.py", "append", home, url, some, size)
        found.setdefault(f"append {size}", []).append(spent)
    for size in DRAINED:
        chunks = 30_000 // size // asked.share
        rate = rig.write("ours", size, chunks)[0]
        with rig.store(chunks) as (home, url):
            rig.run("keep.py", "append", home, url, chunks, size)
            done = rig.run("keep.py", "drain", home, url, chunks, size)
            rig.check(url, chunks * size)
        found.setdefault(f"drain {size}", []).append((done["rows"] / done["s"], rate))


def away(rig: Rig, _number: int, asked: argparse.Namespace, found: Results) -> None:
    few = 100 // asked.share
    for size in (1, 100):
        with rig.store(few) as (home, url):
            found[f"there {size}"] = rig.run("keep.py", "job", home, url, few, size)
        with rig.store(few) as (home, url):
            rig.server.freeze()
            try:
                first = rig.run("keep.py", "job", home, url, 1, size)  # it opens the breaker
                found[f"first {size}"] = first
                found[f"alone {size}"] = rig.run("keep.py", "job", home, url, few, size)
                with rig.drain_child(home, url):
                    found[f"away {size}"] = rig.run("keep.py", "job", home, url, few, size)
            finally:
                rig.server.thaw()


def memory(rig: Rig, _number: int, asked: argparse.Namespace, found: Results) -> None:
    for chunks in (FEW, MANY // asked.share):
        with rig.store(chunks) as (home, url):
            rig.run("keep.py", "append", home, url, chunks, 1_000)
            done = rig.run("keep.py", "drain", home, url, chunks, 1_000)
            rig.check(url, chunks * 1_000)
        found[f"drain of {chunks * 1_000} rows"] = [done]


def print_direct(found: Results) -> None:
    print(f"{'way, rows a chunk':24} rows/s: min-median-max   CPU us a row: client + server   "
          "times as long as LOAD DATA: min-median-max")  # fmt: skip
    for name, runs in found.items():
        size = name.split()[1]
        rates, *cpu = zip(*runs, strict=True)
        spent = " + ".join(f"{1e6 * statistics.median(one):5.1f}" for one in cpu)
        ratios = times_as_long(runs, found[f"load_data {size}"])
        print(f"{name:24} {spread(rates):>22}   {spent:>29}   {spread(ratios):>18}")
    for theirs, most in TARGETS.items():
        for size, _ in SHAPES:
            ratio = statistics.median(
                times_as_long(found[f"ours {size}"], found[f"{theirs} {size}"])
            )
            print(f"ours beside {theirs}, {size} rows a chunk: {ratio:.2f} times as long; "
                  f"target {most}{missed(ratio > most)}")  # fmt: skip


def times_as_long(mine: list[Any], theirs: list[Any]) -> list[float]:
    return [its[0] / my[0] for my, its in zip(mine, theirs, strict=True)]


def print_spool(found: Results) -> None:
    for name, runs in found.items():
        if name.startswith("append"):
            ms = sorted(1000 * one for run in runs for one in run)
            half, tail = percentile(ms, 0.5), percentile(ms, 0.99)
            print(f"{name} rows, ms: p50 {half:.2f}, p99 {tail:.2f}, of {len(ms)}")
        else:
            rates, ratios = [run[0] for run in runs], [run[0] / run[1] for run in runs]
            is_missed = statistics.median(ratios) < LEAST_OF_DIRECT
            print(f"{name} rows a record, rows/s: {spread(rates)}; of direct: {spread(ratios)}; "
                  f"target {LEAST_OF_DIRECT}{missed(is_missed)}")  # fmt: skip


def print_away(found: Results) -> None:
    for name, run in found.items():
        ms = sorted(1000 * one for one in run)
        half, tail = percentile(ms, 0.5), percentile(ms, 0.99)
        is_missed = name.startswith("away") and half > MOST_MS
        print(f"{name} rows, ms a job: p50 {half:.2f}, p99 {tail:.2f}{missed(is_missed)}")


def print_memory(found: Results) -> None:
    for name, (done,) in found.items():
        print(f"{name}: {done['rss_bytes'] / 1e6:.1f} MB at most, {done['rows'] / done['s']:.0f} "
              "rows/s")  # fmt: skip


MEASURES = {"direct": direct, "spool": spool, "away": away, "memory": memory}
PRINTERS = {
    "direct": print_direct,
    "spool": print_spool,
    "away": print_away,
    "memory": print_memory,
}


if __name__ == "__main__":
    main()
