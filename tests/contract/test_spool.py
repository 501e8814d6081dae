"""The spool and its drain over SQLite and a real MariaDB."""

import os
import sqlite3
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import pytest
from msgspec import json
from msgspec.structs import replace

from rqscan.errors import Fault, HomeUnavailable, StoreUnavailable
from rqscan.home import beside, keep_id, known_id
from rqscan.settings import SpoolSettings
from rqscan.states import ChunkState
from rqscan.store.breaker import Breaker
from rqscan.store.chunks import Chunks
from rqscan.store.database import Database
from rqscan.store.drain import Held, drain
from rqscan.store.migrate import open_current
from rqscan.store.outbox import Kept, Outbox
from rqscan.store.repository import Repository
from rqscan.store.spool import Spool
from rqscan.tally import Moved
from tests.spools import a_record, drained, in_store, plan, seen, settings_of


@pytest.fixture(params=["sqlite", "mariadb"])
def settings(request, home):
    url = None
    if request.param == "mariadb":
        url = request.getfixturevalue("mariadb").database_url()
    made = settings_of(home, url)
    plan(made)
    return made


@pytest.fixture
def spool(settings):
    return Spool(settings)


def test_what_is_spooled_arrives_and_leaves_nothing(settings, spool):
    for chunk in range(3):
        spool.append(a_record(chunk, seen(chunk), seen(chunk, state="coverage", host="127.0.0.2")))
    before = spool.status()
    assert (before.records, before.rows, before.quarantined) == (3, 6, 0)
    assert before.oldest_at
    assert drained(settings) == Moved(rows=6)
    rows, states = in_store(settings)
    assert rows == [(0, 0), (0, 0), (1, 1), (1, 1), (2, 2), (2, 2)]
    assert states == {"finished": 3}
    assert (spool.status().records, spool.status().oldest_at) == (0, None)


def test_what_was_drained_and_not_removed_changes_nothing(settings, spool, monkeypatch):
    spool.append(a_record(0))
    monkeypatch.setattr(Spool, "remove", lambda *_: os._exit(9))
    pid = os.fork()
    if not pid:
        drained(settings)
        os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 9
    monkeypatch.undo()
    before = in_store(settings)
    assert before[0] == [(0, 1000)]
    assert spool.status().records == 1
    assert drained(settings).rows == 1
    assert in_store(settings) == before


def test_late_record_overwrites_nothing(settings, spool):
    spool.append(a_record(0, seen(1)))
    spool.append(a_record(1, state=ChunkState.PLANNED, error="TimeoutError: \udcff"))
    with open_current(settings) as database:
        Repository(database).record(a_record(0, seen(2), attempt=2))
        Repository(database).record(a_record(1, seen(3), attempt=2))
    assert drained(settings) == Moved(fenced=2)
    assert in_store(settings)[0] == [(0, 2), (1, 3)]


def test_what_was_kept_stands_until_its_chunk_has_run_anew(settings, spool):
    """Redis has forgotten that it had ended, so it was planned again, before the drain came."""
    with open_current(settings) as database:
        chunks, store = Chunks(database), Repository(database)
        for chunk in range(3):
            spool.append(a_record(chunk, seen(chunk)))
        spool.append(a_record(2, seen(9), attempt=2, state=ChunkState.FAILED, error="E: x"))
        chunks.mark_enqueued("s1", range(3))
        (planned,) = chunks.pages("s1")
        chunks.raise_generation("s1", planned)
        chunks.cancel_some("s1", [1])
        moved = drained(settings)
        assert (moved.rows, moved.fenced) == (2, 2)
        assert in_store(settings) == ([(0, 0), (2, 2)], {"finished": 2, "cancelled": 1})
        (page,) = chunks.pages("s1")
        assert [(one.generation, one.attempt) for one in page] == [(2, 0)] * 3
        late = a_record(0, seen(5), state=ChunkState.FAILED, generation=2, error="E: x")
        assert not store.record(late)  # it is finished, with rows
        assert store.record(a_record(0, seen(6), generation=2))
        assert not store.record(a_record(2, seen(7)))  # nobody kept that
        spool.append(a_record(0, seen(0)))
        assert drained(settings).fenced == 1
    assert in_store(settings)[0] == [(0, 6), (2, 2)]


def test_record_of_another_store_waits_for_it(settings, spool):
    own = known_id(settings)
    keep_id(settings, "0" * 32)
    spool.append(a_record(0))
    keep_id(settings, own)
    spool.append(a_record(1))
    assert drained(settings).rows == 1
    assert in_store(settings)[0] == [(1, 1001)]
    assert spool.status().records == 1


def test_record_of_an_unknown_chunk_is_quarantined_whole(settings, spool):
    spool.append(a_record(7, seen(1), seen(2)))
    assert drained(settings) == Moved(quarantined=1)
    (entry,) = spool.quarantined()
    assert (entry.code, entry.rows) == ("unknown_chunk", 2)
    assert len(json.decode(entry.record)["observations"]) == 2
    assert spool.drop([entry.id, 99]) == [entry.id]
    assert spool.status().quarantined == 0


NO_STATE, LONG_STATE = {"state": None}, {"state": "x" * 65}


@pytest.mark.parametrize(
    ("store", "bad", "code"),
    [
        ("sqlite", NO_STATE, "unreadable"),
        ("sqlite", {"port": 2**64}, "OverflowError"),
        ("mariadb", NO_STATE, "unreadable"),
        ("mariadb", LONG_STATE, "1406"),
        ("mariadb", {"port": 2**40}, "1264"),
        ("mariadb", {"proto": "é"}, "1366"),
    ],
)
def test_poison_rows_are_quarantined_and_the_rest_of_their_chunk_is_stored(
    request, home, store, bad, code
):
    is_server = store == "mariadb"
    url = request.getfixturevalue("mariadb").database_url() if is_server else None
    settings = settings_of(home, url)
    plan(settings)
    spool, outbox = Spool(settings), Outbox(settings)
    odd = {3, 200, 201}
    rows = [
        seen(**{"host": f"10.0.0.{n % 250}", "port": n} | (bad if n in odd else {}))
        for n in range(500)
    ]
    assert outbox.record(a_record(0, *rows)) is Kept.SPOOLED
    assert outbox.record(a_record(1)) is Kept.STORED  # the store is well: only the rows are not
    spool.append(a_record(2))
    moved = drained(settings)
    assert (moved.rows, moved.quarantined) == (498, 3)
    stored, states = in_store(settings)
    good = [(0, n) for n in range(500) if n not in odd]
    assert stored == [*good, (1, 1001), (2, 1002)]
    assert states == {"finished": 3}
    entries = list(spool.quarantined())
    hosts = [json.decode(entry.record)["observations"][0]["host"] for entry in entries]
    assert sorted(hosts) == ["10.0.0.200", "10.0.0.201", "10.0.0.3"]
    assert {(entry.code, entry.rows) for entry in entries} == {(code, 1)}
    assert spool.status().records == 0
    # asked again, the store says the same again
    assert spool.put_back(entry.id for entry in entries) == [entry.id for entry in entries]
    assert spool.status().records == 3
    assert drained(settings) == Moved(quarantined=3)
    outbox.close()


def test_rows_put_back_join_those_of_their_attempt(mariadb, home):
    settings = settings_of(home, mariadb.database_url())
    plan(settings)
    spool = Spool(settings)
    spool.append(a_record(0, seen(1), seen(2, proto="é"), seen(3)))
    assert drained(settings).rows == 2
    (entry,) = spool.quarantined()
    with Database.open(settings) as database, database.transaction() as connection:
        connection.cursor().execute(
            "ALTER TABLE observations MODIFY proto VARCHAR(16) CHARACTER SET utf8mb4"
        )
    spool.put_back([entry.id])
    assert drained(settings) == Moved(rows=1)
    assert in_store(settings)[0] == [(0, 1), (0, 2), (0, 3)]
    with open_current(settings) as database:
        assert Repository(database).progress("s1").observations == 3


def test_row_larger_than_a_packet_is_quarantined(mariadb, home):
    settings = settings_of(home, mariadb.database_url())
    plan(settings)
    outbox = Outbox(settings)
    large = seen(2, data={"banner": "x" * 17_000_000})
    assert outbox.record(a_record(0, seen(1), large, seen(3))) is Kept.SPOOLED
    outbox.close()
    moved = drained(settings)
    assert (moved.rows, moved.quarantined) == (2, 1)
    assert in_store(settings)[0] == [(0, 1), (0, 3)]


def test_many_records_go_in_batches_and_the_file_shrinks(settings, spool):
    plan(settings, 1_500, "big")
    for chunk in range(1_500):
        spool.append(a_record(chunk, *(seen(p) for p in range(3)), scan_id="big"))
    full = spool.status().bytes
    batches = []
    drain(settings, Moved(), on_batch=lambda: batches.append(spool.status().rows))
    assert len(batches) > 3
    assert spool.status().bytes < full / 4
    assert len(in_store(settings)[0]) == 3  # all chunks saw the same three


def test_spool_is_bounded_and_a_refused_record_leaves_no_trace(settings):
    small = replace(settings, spool=SpoolSettings(max_bytes=200_000))
    spool, kept = Spool(small), 0
    record = a_record(0, seen(data={"banner": "x" * 3_000}))
    with pytest.raises(HomeUnavailable, match="is full"):  # noqa: PT012 - at which is not said
        while kept < 1_000:
            spool.append(record)
            kept += 1
    assert kept > 10
    assert spool.status().records == kept
    assert spool.status().bytes <= 200_000


def test_only_one_drains_and_the_other_is_told_who(settings, spool):
    spool.append(a_record(0))
    told = []

    def ask():
        with pytest.raises(Held) as caught:
            drain(settings, Moved())
        told.append(str(caught.value))

    drain(settings, Moved(), on_batch=ask)
    assert str(os.getpid()) in told[0]


def test_broken_file_is_set_aside_and_what_can_be_read_is_saved(settings, spool):
    plan(settings, 400, "big")
    for chunk in range(400):
        spool.append(a_record(chunk, seen(chunk, data={"x": "y" * 900}), scan_id="big"))
    path = spool.file.path
    with path.open("r+b") as file:  # a page in the middle of the table
        file.seek(60 * 4096)
        file.write(os.urandom(3 * 4096))
    spool.append(a_record(0))  # may or may not meet the broken page: it is kept either way
    moved = drained(settings)
    assert len(moved.salvaged) == 1 or (drained(settings), moved.salvaged)
    rows, _ = in_store(settings)
    assert (0, 1000) in rows
    assert 380 < len(rows) <= 401
    assert len(set(rows)) == len(rows)


@pytest.mark.parametrize("damage", [b"", b"no database at all" * 500])
def test_file_that_is_no_spool_is_set_aside(settings, spool, damage):
    spool.append(a_record(0))
    spool.file.path.write_bytes(damage)
    spool.append(a_record(1))
    assert drained(settings).salvaged[0][1] == 0
    assert in_store(settings)[0] == [(1, 1001)]
    assert [p.name for p in spool.file.path.parent.glob("spool-broken*")] == [
        "spool-broken-1.saved"
    ]


def test_while_it_is_kept_open_its_log_stays(settings, spool):
    spool.append(a_record(0))
    log = beside(spool.file.path, "-wal")
    with spool.file.kept_open():
        spool.append(a_record(1))
        assert log.stat().st_size
        assert drained(settings) == Moved(rows=2)
    assert not log.exists()
    with spool.file.kept_open():
        spool.append(a_record(2))
    assert drained(settings) == Moved(rows=1)


def test_a_file_that_is_deleted_while_it_is_open_leaves_nothing_to_the_new_one(settings, spool):
    for chunk in range(3):
        spool.append(a_record(chunk))
    with spool.file.kept_open():
        spool.append(a_record(0))
        spool.file.path.unlink()
        spool.append(a_record(1))
        assert spool.status().records == 1
    assert drained(settings) == Moved(rows=1)


def test_whoever_keeps_open_what_is_set_aside_harms_nothing_of_the_new_file(settings, spool):
    spool.append(a_record(0))
    path, log = spool.file.path, beside(spool.file.path, "-wal")
    with ExitStack() as of_the_new:
        with spool.file.kept_open():
            spool.append(a_record(1))
            path.write_bytes(b"no database at all" * 500)
            beside(path, "-shm").unlink()  # else the log would stand in for the file
            spool.append(a_record(2))
            assert len([*path.parent.glob("spool-broken-1.db")]) == 1
            of_the_new.enter_context(Spool(settings).file.kept_open())
            spool.append(a_record(0))
            before = log.read_bytes()
            assert before
        assert log.read_bytes() == before
        assert spool.status().records == 2
        assert drained(settings).salvaged
    assert sorted(p.name for p in path.parent.glob("spool*") if p.suffix != ".ballast") == [
        "spool-broken-1.saved",
        "spool.db",
        "spool.lock",
    ]


def test_spool_of_a_newer_program_is_left_alone(settings, spool):
    spool.append(a_record(0))
    with sqlite3.connect(spool.file.path) as connection:
        connection.execute("PRAGMA user_version = 9")
    connection.close()
    with pytest.raises(HomeUnavailable, match=r"format 9.*upgrade"):
        spool.append(a_record(1))


def test_many_processes_append_to_a_fresh_spool_at_once(settings, spool):
    program = (
        "import sys; sys.path[:0] = sys.argv[1:2]\n"
        "from tests.spools import *; from rqscan.store.spool import Spool\n"
        "s = Spool(settings_of(sys.argv[2]))\n"
        "for n in range(50): s.append(a_record(int(sys.argv[3]) * 50 + n, scan_id='big'))\n"
    )
    plan(settings, 200, "big")
    argv = [sys.executable, "-c", program, str(Path.cwd()), settings.home]
    children = [subprocess.Popen([*argv, str(n)]) for n in range(4)]
    assert [child.wait(60) for child in children] == [0] * 4
    assert spool.status().records == 200
    spool_first = replace(settings, spool=SpoolSettings(mode="spool_first"))
    assert Outbox(spool_first).record(a_record(0)) is Kept.SPOOLED
    assert drained(settings).rows == 201
    assert len(in_store(settings)[0]) == 201


def test_outbox_waits_for_a_dead_store_once(mariadb, home):
    settings = settings_of(home, mariadb.database_url())
    plan(settings)
    mariadb.kill()
    outbox = Outbox(settings)
    assert [outbox.record(a_record(n)) for n in range(3)] == [Kept.SPOOLED] * 3
    away = Breaker(settings.home).away()
    assert away
    assert away.tries == 1
    assert "check that the server runs" in away.reason
    with pytest.raises(StoreUnavailable):
        drain(settings, Moved(), by_force=True)
    assert Breaker(settings.home).away().tries == 2
    mariadb.start()
    assert drained(settings).rows == 3
    assert Breaker(settings.home).away() is None
    assert outbox.record(a_record(0, seen(9), attempt=2)) is Kept.STORED
    assert in_store(settings)[0] == [(0, 9), (1, 1001), (2, 1002)]
    outbox.close()


def test_a_schema_that_is_not_as_it_should_be_keeps_all_spooled(settings):
    rename = "ALTER TABLE observations RENAME TO {}".format
    outbox = Outbox(settings)
    with Database.open(settings) as database, database.transaction() as connection:
        connection.cursor().execute(rename("elsewhere"))
    assert outbox.record(a_record(0)) is Kept.SPOOLED
    assert outbox.record(a_record(1)) is Kept.SPOOLED
    assert Breaker(settings.home).away().fault is Fault.REFUSED
    with pytest.raises(StoreUnavailable, match="rqscan db migrate"):
        drain(settings, Moved(), by_force=True)
    assert (Spool(settings).status().records, Spool(settings).status().quarantined) == (2, 0)
    with Database.open(settings) as database, database.transaction() as connection:
        connection.cursor().execute("ALTER TABLE elsewhere RENAME TO observations")
    assert drained(settings).rows == 2
    outbox.close()


def test_a_record_waits_for_others_and_opens_no_breaker(mariadb, home, monkeypatch):
    monkeypatch.setattr(Database.write, "__defaults__", (0.0,))
    settings = settings_of(home, mariadb.database_url())
    plan(settings)
    outbox = Outbox(settings)
    with Database.open(settings) as other, other.transaction() as connection:
        connection.cursor().execute("UPDATE chunks SET worker = 'x' WHERE chunk = 0")
        assert outbox.record(a_record(0)) is Kept.SPOOLED  # after innodb_lock_wait_timeout
        assert Breaker(settings.home).away() is None
        assert outbox.record(a_record(1)) is Kept.STORED
    assert drained(settings).rows == 1
    outbox.close()
