"""Spool and drain killed, cut off and out of disk: each row arrives, once, and no other does."""

import os
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from msgspec import json, msgpack

from rqscan.errors import Fault, HomeUnavailable, StoreUnavailable
from rqscan.store.breaker import Breaker
from rqscan.store.drain import drain
from rqscan.store.migrate import open_current
from rqscan.store.outbox import Kept, Outbox
from rqscan.store.spool import Spool
from rqscan.tally import Drainage, Go, Moved
from tests.databases import MariaDB
from tests.proxy import CutLink
from tests.servers import missing_right, wait_for
from tests.spools import a_record, drained, in_store, note_as_away, plan, seen, settings_of

ROOT = Path(__file__).resolve().parents[2]
CHUNKS, ROWS = 300, 20
EXPECTED = [(chunk, 100 * chunk + n) for chunk in range(CHUNKS) for n in range(ROWS)]

DRAIN = """
import sys
from rqscan.errors import ServiceUnavailable
from rqscan.store.drain import drain
from rqscan.tally import Moved
from tests.spools import settings_of
# some hundred rows a second: there is time to be killed
settings = settings_of(sys.argv[1], sys.argv[2], drain_rows_per_s=20_000)
try:
    drain(settings, Moved(), by_force=True, on_batch=lambda: print("moved", flush=True))
except ServiceUnavailable:
    sys.exit(3)
"""

APPEND = """
import sys
from rqscan.store.spool import Spool
from tests.spools import a_record, seen, settings_of
spool, first = Spool(settings_of(sys.argv[1])), int(sys.argv[2])
for chunk in range(first, 300):
    spool.append(a_record(chunk, *(seen(100 * chunk + n) for n in range(20))))
    print(chunk, flush=True)
"""


@contextmanager
def program(text, *arguments):
    """Run a program; it is killed at the end."""
    child = subprocess.Popen(
        [sys.executable, "-c", text, *map(str, arguments)],
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    try:
        yield child
    finally:
        child.kill()
        child.communicate()


def filled(home, url, chunks=CHUNKS):
    settings = settings_of(home, url)
    plan(settings, CHUNKS)
    spool = Spool(settings)
    for chunk in range(chunks):
        spool.append(a_record(chunk, *(seen(100 * chunk + n) for n in range(ROWS))))
    return settings


def test_a_drain_that_is_killed_again_and_again_moves_each_row_once(mariadb, home):
    url = mariadb.database_url()
    settings, kills = filled(home, url), 0
    while Spool(settings).status().records:
        with program(DRAIN, home, url) as child:
            if child.stdout.readline():
                kills += 1
    assert kills > 2
    assert in_store(settings) == (EXPECTED, {"finished": CHUNKS})


def test_a_database_that_is_killed_under_a_drain_gets_each_row_once(mariadb, home):
    url = mariadb.database_url()
    settings = filled(home, url)
    for _ in range(3):
        with program(DRAIN, home, url) as child:
            child.stdout.readline()
            mariadb.kill()
            assert child.wait(60) in {0, 3}
        mariadb.start()
    drain(settings, Moved(), by_force=True)
    assert in_store(settings) == (EXPECTED, {"finished": CHUNKS})


def test_what_a_killed_process_was_told_is_spooled_is_there(mariadb, home):
    settings = filled(home, mariadb.database_url(), chunks=0)
    done = 0
    while done < CHUNKS:
        with program(APPEND, home, done) as child:
            for _ in range(40):
                line = child.stdout.readline()
                done = int(line) + 1 if line else CHUNKS
            child.send_signal(signal.SIGKILL)
            rest = child.stdout.read().split()
            done = int(rest[-1]) + 1 if rest else done
    drain(settings, Moved())
    assert in_store(settings) == (EXPECTED, {"finished": CHUNKS})


@pytest.mark.parametrize("is_late", [False, True], ids=["before the commit", "after it"])
@pytest.mark.parametrize("by", ["outbox", "drain"])
def test_a_commit_that_is_cut_off_writes_each_row_once(mariadb, home, short_path, by, is_late):
    url = mariadb.database_url()
    through = short_path / "cut.sock"
    settings = settings_of(home, url.replace(str(mariadb.socket), str(through)))
    with CutLink(through, mariadb.socket, b"\x03COMMIT", cuts=0, is_late=is_late) as link:
        plan(settings)
        record = a_record(0, seen(1), seen(2))
        link.left = 1
        if by == "outbox":
            outbox = Outbox(settings)
            assert outbox.record(record) is Kept.SPOOLED
            outbox.close()
        else:
            Spool(settings).append(record)
            link.left = 3  # it looks at the schema and at the store's id first
            for _ in range(3):
                with pytest.raises(StoreUnavailable):
                    drain(settings, Moved(), by_force=True)
        assert link.left == 0
        drain(settings, Moved(), by_force=True)
        assert in_store(settings) == ([(0, 1), (0, 2)], {"finished": 1, "planned": 2})
    assert Spool(settings).status().records == 0


@contextmanager
def disk_of(megabytes, folder):
    folder.mkdir()
    argv = ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m", "tmpfs", str(folder)]
    if subprocess.run(argv, check=False, capture_output=True).returncode:
        missing_right("the right to mount a tmpfs")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


@pytest.fixture
def small_disk(tmp_path):
    with disk_of(8, tmp_path / "disk") as folder:
        yield folder


@pytest.fixture
def server_on_a_small_disk(short_path):
    with disk_of(192, short_path / "server") as folder:
        server = MariaDB(folder).start()
        yield server
        server.close()


def fill(folder):
    """Take all that is left of a disk."""
    with (folder / "of another").open("wb", buffering=0) as file:
        for _ in range(os.statvfs(folder).f_bavail):
            file.write(b"x" * 4096)
    assert os.statvfs(folder).f_bavail == 0


@pytest.mark.root
def test_a_full_disk_loses_nothing_and_can_be_drained(mariadb, small_disk):
    settings = settings_of(small_disk, mariadb.database_url())
    plan(settings, 2_000)
    spool, kept = Spool(settings), 0

    def append() -> None:
        spool.append(a_record(kept, seen(kept, data={"banner": "x" * 20_000})))

    with pytest.raises(HomeUnavailable, match=r"the space on it|free some"):  # noqa: PT012
        while kept < 2_000:
            append()
            kept += 1
    assert kept > 50
    fill(small_disk)
    drain(settings, Moved())
    assert in_store(settings)[0] == [(chunk, chunk) for chunk in range(kept)]
    assert spool.status().records == 0
    assert os.statvfs(small_disk).f_bavail > 0
    spool.append(a_record(kept))  # there is room again


@pytest.mark.root
def test_a_full_disk_of_the_server_loses_nothing(server_on_a_small_disk, home):
    server = server_on_a_small_disk
    settings = settings_of(home, server.database_url())
    plan(settings, CHUNKS)
    with closing(Outbox(settings)) as outbox:
        kept = []
        for chunk in range(CHUNKS):
            if chunk == CHUNKS // 2:
                fill(server.folder)
            rows = (seen(100 * chunk + n, data={"banner": "x" * 1_000}) for n in range(ROWS))
            kept.append(outbox.record(a_record(chunk, *rows)))
    assert set(kept) == {Kept.STORED, Kept.SPOOLED}
    assert Breaker(settings.home).away().fault is Fault.FULL
    with pytest.raises(StoreUnavailable, match="space on the server's disk"):
        open_current(settings_of(home, server.database_url()))
    with pytest.raises(StoreUnavailable, match="space on the server's disk"):
        drain(settings, Moved(), by_force=True)
    assert Spool(settings).status().records == kept.count(Kept.SPOOLED)
    (server.folder / "of another").unlink()
    assert drained(settings) == Moved(rows=ROWS * kept.count(Kept.SPOOLED))
    assert in_store(settings) == (EXPECTED, {"finished": CHUNKS})


def test_while_one_drains_another_waits_for_its_end(mariadb, home, rig):
    url = mariadb.database_url()
    settings = filled(home, url)
    rig.env["RQSCAN_DATABASE_URL"] = url
    with program(DRAIN, home, url) as child:
        child.stdout.readline()
        child.send_signal(signal.SIGSTOP)
        refused = rig.run("spool", "drain", "--timeout", "0.2")
        assert refused.returncode == 1
        assert str(child.pid) in refused.stderr
        child.send_signal(signal.SIGCONT)
        done = rig.json("spool", "drain")
        assert done["left"] == 0
        wait_for(lambda: child.poll() is not None)
    assert in_store(settings) == (EXPECTED, {"finished": CHUNKS})


@contextmanager
def drain_of_a_worker(settings):
    """Have the child that a worker starts while the store is away; with its stdout."""
    argv = [sys.executable, "-m", "rqscan.fleet.drain_chore", "drain", str(os.getpid())]
    given, pipe = msgpack.encode((settings, Go.NOW)), subprocess.PIPE
    with subprocess.Popen(argv, cwd=ROOT, stdin=pipe, stdout=pipe, stderr=pipe) as child:
        with child.stdin:
            child.stdin.write(given)
        yield child
        child.kill()


def test_the_drain_keeps_the_spool_open_while_the_store_is_away(mariadb, home):
    settings, log = settings_of(home, mariadb.database_url()), home / "spool.db-wal"
    plan(settings)
    Spool(settings).append(a_record(0))
    note_as_away(home)
    assert not log.exists()
    with drain_of_a_worker(settings) as child:
        wait_for(log.exists)
        Spool(settings).append(a_record(1))
        assert log.stat().st_size
        Breaker(home).close()
        told = json.decode(child.stdout.read(), type=Drainage)
    assert (told.moved.rows, told.backlog.rows, told.away) == (2, 0, None)
    assert not log.exists()
    assert in_store(settings)[0] == [(0, 1000), (1, 1001)]


def test_a_drain_that_waits_for_the_store_tells_how_the_spool_stands(mariadb, home):
    settings = settings_of(home, mariadb.database_url())
    plan(settings)
    Spool(settings).append(a_record(0))
    note_as_away(home)
    with drain_of_a_worker(settings) as child:
        told = json.decode(child.stdout.read(), type=Drainage)
    assert (told.backlog.rows, told.moved, told.away) == (1, Moved(), "its disk is full")
    assert told.again_in_s > 10


def test_a_drain_that_keeps_the_spool_open_may_be_killed_between_any_two_appends(mariadb, home):
    settings, kept = filled(home, mariadb.database_url(), chunks=1), 1
    note_as_away(home)
    for told in (20, 70, 130):
        with drain_of_a_worker(settings) as child, program(APPEND, home, kept) as appending:
            maps = Path(f"/proc/{child.pid}/maps")
            wait_for(lambda maps=maps: "spool.db-shm" in maps.read_text())
            while kept < told:
                kept = int(appending.stdout.readline()) + 1
            child.kill()
            child.wait()
            while kept < told + 20:
                kept = int(appending.stdout.readline()) + 1
    with program(APPEND, home, kept) as appending:
        assert appending.wait(60) == 0
    drained(settings)
    assert in_store(settings) == (EXPECTED, {"finished": CHUNKS})


def test_a_process_that_froze_while_it_wrote_hides_nothing_of_the_spool(mariadb, home, rig):
    url = mariadb.database_url()
    filled(home, url)
    rig.env["RQSCAN_DATABASE_URL"] = url
    with closing(sqlite3.connect(home / "spool.db", isolation_level=None)) as frozen:
        frozen.execute("BEGIN IMMEDIATE")
        assert rig.json("spool", "status")["rows"] == len(EXPECTED)
