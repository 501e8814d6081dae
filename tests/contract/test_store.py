"""One suite for the store over SQLite and a real MariaDB."""

import os
import random
import re
import sqlite3
import subprocess
import sys
import tempfile
import threading
import tracemalloc
from contextlib import closing
from datetime import UTC, datetime, timedelta
from importlib.resources import files
from pathlib import Path
from urllib.parse import urlsplit

import pymysql
import pytest

from rqscan.errors import ConfigError, HomeUnavailable, StoreUnavailable, UsageError
from rqscan.model import COVERAGE, ChunkRecord, Counts, Observation, Scan
from rqscan.settings import DatabaseSettings, Settings
from rqscan.states import ChunkState, ScanState
from rqscan.store import migrate
from rqscan.store.chunks import Chunks
from rqscan.store.database import Database
from rqscan.store.dialects import dialect_of
from rqscan.store.migrate import open_current
from rqscan.store.outbox import Kept, Outbox
from rqscan.store.repository import Repository
from tests.databases import MariaDB
from tests.servers import free_port

T0 = datetime(2026, 11, 24, 10, 0, 0, 123456, tzinfo=UTC)
MINUTE = timedelta(minutes=1)


def settings_for(home, url=None) -> Settings:
    return Settings(home=str(home), database=DatabaseSettings(url=url))


@pytest.fixture(params=["sqlite", "mariadb"])
def settings(request, tmp_path):
    if request.param == "sqlite":
        return settings_for(tmp_path)
    return settings_for(tmp_path, request.getfixturevalue("mariadb").database_url())


@pytest.fixture
def sqlite_settings(tmp_path):
    return settings_for(tmp_path)


@pytest.fixture
def mysql_settings(mariadb, tmp_path):
    return settings_for(tmp_path, mariadb.database_url())


@pytest.fixture
def database(settings):
    with open_current(settings) as opened:
        yield opened


@pytest.fixture
def store(database):
    return Repository(database)


def a_scan(scan_id="s1", *, name="office", at=T0, chunks=3) -> Scan:
    return Scan(
        scan_id=scan_id,
        name=name,
        queue="wakaka",
        kinds=["ports"],
        targets=["127.0.0.0/24"],
        params={"ports": {"ports": "22,80"}},
        seed=2**63 - 1,
        hosts_per_chunk={"ports": 64},
        chunks=chunks,
        probes=512,
        due_at=at,
        requested_at=at,
    )


def planned(store, scan_id="s1", *, chunks=3, **more) -> Scan:
    scan = a_scan(scan_id, chunks=chunks, **more)
    assert store.add_plan(scan, ((n, "ports") for n in range(chunks)))
    return scan


def seen(host="127.0.0.1", port=22, *, state="open", at=T0, **more) -> Observation:
    return Observation(host=host, port=port, state=state, observed_at=at, **more)


def a_record(*observations, chunk=0, scan_id="s1", generation=1, attempt=1, **more) -> ChunkRecord:
    return ChunkRecord(
        **{
            "scan_id": scan_id,
            "chunk": chunk,
            "generation": generation,
            "attempt": attempt,
            "kind": "ports",
            "state": ChunkState.FINISHED,
            "worker": "w1",
            "started_at": T0,
            "finished_at": T0 + MINUTE,
            "probes": 10,
            "observations": list(observations),
        }
        | more
    )


def dump(database) -> dict[str, list]:
    tables = ("meta", "scans", "chunks", "observations")
    with database.transaction(read_only=True) as connection:
        content = {}
        for table in tables:
            cursor = connection.cursor()
            cursor.execute(f"SELECT * FROM {table} ORDER BY 1, 2")
            content[table] = list(cursor.fetchall())
        return content


def hosts_and_ports(rows):
    return [(row.host, row.port) for row in rows]


# Plans


def test_plan_is_written_once_and_stands(store, database):
    scan = planned(store)
    before = dump(database)
    assert not store.add_plan(a_scan(name="other", chunks=1), [(7, "banner")])
    assert dump(database) == before
    assert store.scan("s1") == scan
    assert store.progress("s1").chunks == Counts(3)
    assert store.progress("s1").state is ScanState.QUEUED


def test_plan_is_not_written_in_part_when_its_chunks_fail(store, database):
    def chunks():
        yield from ((n, "ports") for n in range(1500))
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        store.add_plan(a_scan(), chunks())
    assert dump(database)["scans"] == dump(database)["chunks"] == []
    assert planned(store)


def test_two_planners_of_one_scan_make_one_plan(settings):
    with open_current(settings):
        pass
    made, start = [], threading.Barrier(2)

    def plan(count):
        with open_current(settings) as database:
            start.wait(10)
            made.append(Repository(database).add_plan(a_scan(), [(n, "p") for n in range(count)]))

    threads = [threading.Thread(target=plan, args=(count,)) for count in (1100, 1200)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert sorted(made) == [False, True]
    with open_current(settings) as database:
        assert Repository(database).progress("s1").chunks.total in {1100, 1200}


def test_memory_stays_flat_when_a_plan_is_big(sqlite_settings):
    with open_current(sqlite_settings) as database:
        store = Repository(database)
        planned(store, "small", chunks=2_000)
        tracemalloc.start()
        planned(store, "big", chunks=100_000)
        chunks = Chunks(database)
        chunks.mark_enqueued("big", range(0, 100_000, 2))
        left = sum(map(len, chunks.unenqueued("big")))
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert left == 50_000
        assert store.progress("big").chunks.total == 100_000
        assert peak < 4_000_000


def test_unknown_scan_is_named_with_a_guess(store):
    planned(store, "nightly-20261124T020000Z")
    with pytest.raises(UsageError, match="no scan 'nightly-20261124T02000Z'; did you mean 'nigh"):
        store.scan("nightly-20261124T02000Z")
    with pytest.raises(UsageError, match=r"no scan 'x'; rqscan scans lists them"):
        store.scan("x")
    with pytest.raises(UsageError, match=r"no scan 'näme'; rqscan scans lists them"):
        store.scan("näme")


def test_scans_come_newest_first_with_their_counts(store):
    assert store.scans(10) == []
    assert store.latest_scan() is None
    old = planned(store, "old", at=T0)
    new = planned(store, "new", name="lab", at=T0 + MINUTE, chunks=1)
    planned(store, "empty", at=T0 - MINUTE, chunks=0)
    store.record(a_record(seen(), scan_id="old", chunk=1))
    assert [scan.scan_id for scan, _ in store.scans(10)] == ["new", "old", "empty"]
    assert [scan.scan_id for scan, _ in store.scans(1)] == ["new"]
    assert [progress for _, progress in store.scans(3)] == [
        store.progress(scan_id) for scan_id in ("new", "old", "empty")
    ]
    assert store.latest_scan() == new
    assert store.latest_scan("office") == old
    assert store.latest_scan("nobody") is None


# Records


def test_progress_is_derived_from_the_records(store):
    planned(store)
    store.record(a_record(seen(), seen(port=23), seen(port=None, state=COVERAGE), probes=100))
    late = {"started_at": T0 - MINUTE, "finished_at": T0 + 9 * MINUTE}
    store.record(a_record(chunk=1, state=ChunkState.FAILED, error="it broke", probes=1, **late))
    running = store.progress("s1")
    assert running.chunks == Counts(3, 1, 1)
    assert (running.observations, running.probes) == (2, 101)
    assert (running.started_at, running.finished_at) == (T0 - MINUTE, None)
    assert running.state is ScanState.RUNNING
    store.record(a_record(chunk=2, state=ChunkState.CANCELLED))
    ended = store.progress("s1")
    assert ended.finished_at == T0 + 9 * MINUTE
    assert ended.state is ScanState.CANCELLED


def test_record_written_twice_changes_nothing(store, database):
    planned(store)
    record = a_record(*(seen(port=port) for port in range(1, 1_501)), seen("10.0.0.1"))
    assert store.record(record)
    before = dump(database)
    assert len(before["observations"]) == 1_501
    assert store.record(record)
    assert dump(database) == before


def test_newer_attempt_replaces_the_rows_of_an_older_one(store):
    planned(store)
    store.record(a_record(seen(port=22), seen(port=23), attempt=1))
    assert store.record(a_record(seen(port=23), seen(port=24), attempt=2))
    assert hosts_and_ports(store.rows()) == [("127.0.0.1", 23), ("127.0.0.1", 24)]
    assert store.record(a_record(seen(port=80), generation=2, attempt=1))
    assert hosts_and_ports(store.rows()) == [("127.0.0.1", 80)]


@pytest.mark.parametrize(
    "older", [{"generation": 2, "attempt": 1}, {"generation": 1, "attempt": 9}]
)
def test_older_attempt_is_fenced(store, database, older):
    planned(store)
    store.record(a_record(seen(port=22), generation=2, attempt=2))
    before = dump(database)
    assert not store.record(a_record(seen(port=99), worker="orphan", **older))
    assert dump(database) == before


def test_unknown_chunk_is_not_recorded(store, database):
    planned(store)
    before = dump(database)
    assert not store.record(a_record(seen(), chunk=3))
    assert not store.record(a_record(seen(), scan_id="nobody"))
    assert dump(database) == before


def test_rows_that_are_refused_leave_no_record(store, database):
    planned(store)
    before = dump(database)
    bad = seen(state=None)
    with pytest.raises((sqlite3.IntegrityError, pymysql.err.IntegrityError)):
        store.record(a_record(*(seen(port=port) for port in range(1, 1_200)), bad))
    assert dump(database) == before
    assert store.record(a_record(seen()))


def test_later_observation_stays_where_two_chunks_saw_the_same(store):
    planned(store)
    store.record(a_record(seen(state="closed", at=T0 + MINUTE, data={"v": 2}), chunk=0))
    store.record(a_record(seen(state="open", at=T0, data={"v": 1}), chunk=1))
    (row,) = store.rows()
    assert (row.state, row.data, row.observed_at) == ("closed", {"v": 2}, T0 + MINUTE)
    store.record(a_record(seen(state="open", at=T0 + 2 * MINUTE, data={"v": 3}), chunk=1))
    (row,) = store.rows()
    assert (row.state, row.data, row.observed_at) == ("open", {"v": 3}, T0 + 2 * MINUTE)


def test_chunks_recorded_at_the_same_time_do_not_deadlock(settings):
    with open_current(settings) as database:
        planned(Repository(database), chunks=40)
    errors, start = [], threading.Barrier(4)

    def work(first):
        try:
            with Database.open(settings) as database:
                start.wait(10)
                for n in range(first, 40, 4):
                    shared = seen("127.9.9.9", at=T0)
                    rows = [seen(f"127.0.{n}.{host}") for host in range(50)]
                    Repository(database).record(a_record(*rows, shared, chunk=n))
        except Exception as error:  # noqa: BLE001 - whatever it is, the test shows it
            errors.append(error)

    threads = [threading.Thread(target=work, args=(first,)) for first in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert errors == []
    with open_current(settings) as database:
        assert sum(1 for _ in Repository(database).rows()) == 40 * 50 + 1
        assert Repository(database).progress("s1").state is ScanState.FINISHED


@pytest.mark.parametrize(
    "text", ["naïve", "\U0001f600 \U00020000", "a\x00b\\'\"%s:name;\n", "\u2028", "x" * 100_000]
)
def test_any_text_comes_back_as_it_was(store, text):
    planned(store)
    store.record(a_record(seen(data={"banner": text, text: [1.5, None]}), error=text, worker="wé"))
    (row,) = store.rows()
    assert row.data == {"banner": text, text: [1.5, None]}
    assert row.worker == "wé"


def test_no_text_leaves_its_quotes(store):
    """What a host has said is written into statements."""
    planned(store)
    draw = random.Random(7)
    letters = "\\'\"`%;-#/*() \0\n\r\x1a\x08aé\U0001f600"
    texts = ["".join(draw.choices(letters, k=draw.randint(1, 30))) for _ in range(600)]
    texts += ["\\", "\\'", "'); DROP TABLE observations; -- ", "%s", "%(host)s", "\\\\'"]
    store.record(a_record(*(seen(port=n, state=t, data={t: t}) for n, t in enumerate(texts))))
    assert [(row.state, row.data) for row in store.rows()] == [(t, {t: t}) for t in texts]


def test_error_that_is_no_unicode_is_recorded(store, database):
    planned(store)
    assert store.record(a_record(state=ChunkState.FAILED, error="no file '\udcff'"))
    assert "no file '?'" in dump(database)["chunks"][0]


# Rows


def test_hosts_sort_as_numbers_and_ports_too(store):
    planned(store)
    hosts = ["10.0.0.10", "10.0.0.9", "9.255.0.1", "::1", "fe80::2", "fe80::10", "127.0.0.1", "h-1"]
    store.record(a_record(*(seen(host, port) for host in hosts for port in (1000, 80, 9))))
    order = ["9.255.0.1", "10.0.0.9", "10.0.0.10", "127.0.0.1", "::1", "fe80::2", "fe80::10", "h-1"]
    assert hosts_and_ports(store.rows("s1")) == [(h, p) for h in order for p in (9, 80, 1000)]
    assert hosts_and_ports(store.rows()) == hosts_and_ports(store.rows("s1"))


def test_link_local_addresses_of_two_links_are_two_hosts(store):
    planned(store)
    store.record(a_record(seen("fe80::1%eth0"), seen("fe80::1%eth1"), seen("fe80::1")))
    assert [row.host for row in store.rows()] == ["fe80::1", "fe80::1%eth0", "fe80::1%eth1"]
    assert [row.host for row in store.rows(host="fe80::1%eth1")] == ["fe80::1%eth1"]


def test_rows_are_chosen_by_each_filter(store):
    planned(store)
    planned(store, "s2")
    store.record(a_record(seen("127.0.0.1", 22), seen("127.0.0.2", 80, at=T0 + MINUTE)))
    store.record(a_record(seen("127.0.0.1", None, state="up"), chunk=1, kind="alive"))
    store.record(a_record(seen("127.0.0.1", 443), scan_id="s2"))
    everything = [("127.0.0.1", None), ("127.0.0.1", 22), ("127.0.0.1", 443), ("127.0.0.2", 80)]
    assert hosts_and_ports(store.rows()) == everything
    assert hosts_and_ports(store.rows("s2")) == [("127.0.0.1", 443)]
    assert hosts_and_ports(store.rows("nobody")) == hosts_and_ports(store.rows("öffnung")) == []
    assert hosts_and_ports(store.rows("s2", kind="öffnung")) == []
    assert hosts_and_ports(store.rows(host="127.0.0.2")) == [("127.0.0.2", 80)]
    assert hosts_and_ports(store.rows("s2", host="127.0.0.2")) == []
    assert hosts_and_ports(store.rows(port=22)) == [("127.0.0.1", 22)]
    assert hosts_and_ports(store.rows(kind="alive")) == [("127.0.0.1", None)]
    assert hosts_and_ports(store.rows(since=T0 + MINUTE)) == [("127.0.0.2", 80)]
    assert hosts_and_ports(store.rows(limit=2)) == everything[:2]
    assert hosts_and_ports(store.rows(limit=0)) == []


def test_coverage_rows_come_only_when_asked_for_one_a_chunk(store):
    planned(store)
    for chunk in (0, 1):
        counts = seen(port=None, state=COVERAGE, data={"probes": chunk})
        store.record(a_record(seen(port=22), counts, chunk=chunk))
    assert hosts_and_ports(store.rows()) == [("127.0.0.1", 22)]
    assert sorted(row.data["probes"] for row in store.rows(coverage=True) if not row.port) == [0, 1]


def test_first_and_last_seen_span_all_scans(store):
    for number in range(3):
        planned(store, f"s{number}", at=T0 + number * MINUTE)
        state = "closed" if number == 2 else "open"
        rows = [
            seen(port=22, at=T0 + number * MINUTE),
            seen(port=80, state=state, at=T0 + number * MINUTE),
        ]
        store.record(a_record(*rows, scan_id=f"s{number}"))
    still, changed = store.rows("s2")
    assert (still.first_seen, still.observed_at, still.last_seen) == (
        T0,
        T0 + 2 * MINUTE,
        T0 + 2 * MINUTE,
    )
    assert changed.first_seen == changed.last_seen == T0 + 2 * MINUTE
    assert next(iter(store.rows("s0"))).last_seen == T0 + 2 * MINUTE
    (was_open, _) = [row for row in store.rows(port=80) if row.state == "open"]
    assert (was_open.first_seen, was_open.last_seen) == (T0, T0 + MINUTE)


def test_rows_stream_in_pages_while_others_write_and_ask(store):
    planned(store, chunks=2)
    hosts = [f"10.0.{a}.{b}" for a in range(10) for b in range(250)]
    store.record(a_record(*(seen(host) for host in hosts)))
    rows, given = store.rows("s1"), []
    for row in rows:
        given.append(row.host)
        if len(given) == 1_200:
            store.record(a_record(seen("10.0.0.0", 1), seen("11.0.0.0"), chunk=1))
    assert given == [*hosts, "11.0.0.0"]
    many = [seen("12.0.0.1", port) for port in range(2_100)]
    store.record(a_record(*many, chunk=1))
    assert [row.port for row in store.rows(host="12.0.0.1")] == list(range(2_100))
    assert len(list(store.rows("s1", limit=1_001))) == 1_001


def test_reading_rows_sorts_nothing_and_holds_a_page(sqlite_settings):
    with open_current(sqlite_settings) as database:
        values = dict.fromkeys(
            ("port", "kind", "since", "after_port", "after_kind", "after_proto", "after_state",
             "after_at", "after_key", "low", "high", "coverage", "page", "scan_id")
        )  # fmt: skip
        for query in (database.queries.rows_of_scan, database.queries.rows_of_all):
            with database.transaction(read_only=True) as connection:
                plan = connection.execute("EXPLAIN QUERY PLAN " + query.sql, values).fetchall()
            assert "observations_by_" in str(plan)
            assert "TEMP B-TREE" not in str(plan)
            assert "SCAN " not in str(plan)


def test_five_hundred_rows_are_two_statements(mysql_settings):
    def inserts(database):
        with database.transaction(read_only=True) as connection:
            cursor = connection.cursor()
            cursor.execute("SHOW SESSION STATUS LIKE 'Com_insert'")
            return int(cursor.fetchone()[1])

    with open_current(mysql_settings) as database:
        store, before = Repository(database), inserts(database)
        planned(store, chunks=500)
        assert inserts(database) == before + 3  # the scan, its chunks
        store.record(a_record(*(seen(port=port) for port in range(500))))
        assert inserts(database) == before + 5


# Connections


def kill(mariadb, database) -> None:
    admin = mariadb.connect()
    admin.cursor().execute(f"KILL {database._connection.thread_id()}")
    admin.close()


def test_lost_connection_is_replaced_between_transactions(mariadb, mysql_settings):
    with open_current(mysql_settings) as database:
        store = Repository(database)
        for number in range(3):
            planned(store, f"s{number}")
            kill(mariadb, database)
        assert len(store.scans(9)) == 3


def test_connection_lost_in_a_transaction_leaves_nothing_half_written(mariadb, mysql_settings):
    with open_current(mysql_settings) as database:
        store = Repository(database)

        def chunks():
            yield from ((n, "ports") for n in range(1_000))
            kill(mariadb, database)
            yield from ((n, "ports") for n in range(1_000, 3_000))

        with pytest.raises(StoreUnavailable, match="check that the server runs"):
            store.add_plan(a_scan(), chunks())
        assert dump(database)["scans"] == dump(database)["chunks"] == []
        assert planned(store)


def test_connection_lost_before_the_commit_leaves_nothing(mariadb, mysql_settings):
    with open_current(mysql_settings) as database:

        def write_and_lose():
            with database.transaction() as connection:
                database.queries.add_meta(connection, name="x", value="1")
                kill(mariadb, database)

        with pytest.raises(StoreUnavailable):
            write_and_lose()
        with database.transaction(read_only=True) as connection:
            assert database.queries.meta(connection, name="x") is None


def test_transactions_do_not_nest(database):
    with database.transaction(), pytest.raises(RuntimeError), database.transaction():
        pass
    with database.transaction():
        pass


def test_error_of_the_caller_rolls_back(database):
    def write_and_fail():
        with database.transaction() as connection:
            database.queries.add_meta(connection, name="x", value="1")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        write_and_fail()
    with database.transaction(read_only=True) as connection:
        assert database.queries.meta(connection, name="x") is None


def test_session_is_strict_and_speaks_utc(mysql_settings):
    with open_current(mysql_settings) as database, database.transaction() as connection:
        cursor = connection.cursor()
        cursor.execute("SELECT @@time_zone, @@autocommit, @@character_set_client")
        assert cursor.fetchone() == ("+00:00", 0, "utf8mb4")
        cursor.execute("SHOW VARIABLES LIKE 't%_isolation'")  # each server has its own name for it
        assert {value for _, value in cursor.fetchall()} == {"READ-COMMITTED"}
        with pytest.raises(pymysql.err.DataError):
            database.queries.add_meta(connection, name="x", value="y" * 300)


# Outbox


def test_outbox_writes_records_and_reports_the_fence(settings):
    with open_current(settings) as database:
        planned(Repository(database))
        outbox = Outbox(settings)
        assert outbox.record(a_record(seen(), attempt=2)) is Kept.STORED
        assert outbox.record(a_record(seen(port=1), attempt=1)) is Kept.REFUSED
        outbox.close()
        assert hosts_and_ports(Repository(database).rows()) == [("127.0.0.1", 22)]


def test_outbox_survives_a_lost_connection(mariadb, mysql_settings):
    with open_current(mysql_settings) as database:
        planned(Repository(database))
        outbox = Outbox(mysql_settings)
        for attempt in (1, 2):
            assert outbox.record(a_record(seen(), attempt=attempt)) is Kept.STORED
            kill(mariadb, outbox._database)
        assert outbox.record(a_record(seen(), attempt=3)) is Kept.STORED
        outbox.close()


# Migrations


def test_fresh_store_is_migrated_once_and_keeps_its_id(settings):
    with Database.open(settings) as database:
        assert migrate.current(database) == 0
        newest = len(migrate.pending(database))
        with pytest.raises(StoreUnavailable, match="rqscan db migrate"):
            Repository(database).store_id()
        assert len(migrate.apply(database)) == newest
        assert migrate.current(database) == newest
        assert migrate.pending(database) == migrate.apply(database) == []
        store_id = Repository(database).store_id()
        assert len(bytes.fromhex(store_id)) == 16
    with open_current(settings) as database:
        assert Repository(database).store_id() == store_id


def test_many_processes_migrate_at_once(settings):
    code = (
        "import sys; from rqscan.settings import Settings, DatabaseSettings\n"
        "from rqscan.store.migrate import open_current\n"
        "from rqscan.store.repository import Repository\n"
        "sys.stdin.readline()\n"
        "url = sys.argv[2] or None\n"
        "d = open_current(Settings(home=sys.argv[1], database=DatabaseSettings(url=url)))\n"
        "print(Repository(d).store_id()); d.close()\n"
    )
    root = Path(__file__).resolve().parents[2]
    processes = [
        subprocess.Popen(
            [sys.executable, "-W", "error", "-c", code, settings.home, settings.database.url or ""],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            env={**os.environ, "PYTHONPATH": str(root)},
        )
        for _ in range(4)
    ]  # fmt: skip
    for process in processes:
        process.stdin.write("go\n")
        process.stdin.flush()
    answers = [process.communicate(timeout=60) for process in processes]
    assert [stderr for _, stderr in answers] == [""] * 4
    with open_current(settings) as database:
        assert {stdout.strip() for stdout, _ in answers} == {Repository(database).store_id()}


def test_migration_goes_on_where_it_broke_off(mysql_settings):
    with Database.open(mysql_settings) as database:
        folder = files("rqscan.store") / "sql" / "migrations"
        first = (folder / "0001_initial.mysql.sql").read_text().split(";\n")[:3]
        with database.transaction() as connection:
            for statement in first:
                connection.cursor().execute(statement)
        assert migrate.current(database) == 0
        assert migrate.apply(database)
        assert Repository(database).store_id()


def alter(database, statement) -> None:
    with database.transaction() as connection:
        connection.cursor().execute(statement)


def test_newer_schema_is_refused(settings, database):
    alter(database, "INSERT INTO schema_migrations VALUES (9999, 'x', 'y', '2030-01-01 00:00:00')")
    with pytest.raises(StoreUnavailable, match="has migration 'x', which this older rqscan"):
        open_current(settings)
    with Database.open(settings) as horse:
        assert Repository(horse).store_id()


def test_changed_migration_is_refused(settings, database):
    alter(database, "UPDATE schema_migrations SET checksum = 'other' WHERE version = 1")
    with pytest.raises(StoreUnavailable, match="migration '0001_initial', whose text differs"):
        open_current(settings)


def test_migrator_waits_for_the_lock_of_another(mariadb, mysql_settings):
    admin = mariadb.connect(database=urlsplit(mysql_settings.database.url).path[1:])
    admin.cursor().execute("SELECT GET_LOCK(CONCAT('rqscan-', LEFT(SHA2(DATABASE(), 256), 32)), 0)")
    opened = []
    thread = threading.Thread(target=lambda: opened.append(open_current(mysql_settings)))
    thread.start()
    watch = mariadb.connect()
    cursor = watch.cursor()
    while not cursor.execute(
        "SELECT 1 FROM information_schema.processlist WHERE state = 'User lock'"
    ):
        assert thread.is_alive()
    assert not opened
    watch.close()
    admin.close()  # its holder is gone
    thread.join(20)
    assert Repository(opened[0]).store_id()
    opened[0].close()


# Where it cannot be opened


def test_default_is_a_file_of_the_owner_in_the_home(tmp_path):
    home = tmp_path / "a" / "home"
    with open_current(settings_for(home)):
        files = sorted(home.iterdir())
        assert [file.name for file in files] == ["rqscan.db", "rqscan.db-shm", "rqscan.db-wal"]
        assert {file.stat().st_mode & 0o777 for file in files} == {0o600}
    assert home.stat().st_mode & 0o777 == 0o700


def test_sqlite_is_durable_at_commit(sqlite_settings):
    with open_current(sqlite_settings) as database, database.transaction() as connection:
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        assert connection.execute("PRAGMA synchronous").fetchone() == (2,)


def test_sqlite_url_names_a_file(tmp_path):
    with open_current(settings_for("/nowhere", f"sqlite:///{tmp_path}/a%20b.db")) as database:
        assert (tmp_path / "a b.db").exists()
        assert str(tmp_path / "a b.db") in database.dialect.where


def refused(settings, kind=StoreUnavailable) -> str:
    with pytest.raises(kind) as caught:
        open_current(settings)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_missing_folder_is_named(tmp_path):
    message = refused(settings_for(tmp_path, f"sqlite:///{tmp_path}/none/x.db"))
    assert f"{tmp_path}/none/x.db" in message
    assert "No such file or directory" in message


def test_home_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    message = refused(settings_for(tmp_path / "file" / "home"), HomeUnavailable)
    assert f"{tmp_path}/file/home" in message


def test_file_that_is_no_database_is_named_and_kept(tmp_path):
    path = tmp_path / "rqscan.db"
    path.write_bytes(b"some notes of mine\n" * 100)
    message = refused(settings_for(tmp_path))
    assert "is not a database" in message
    assert str(path) in message
    assert path.read_bytes() == b"some notes of mine\n" * 100
    path.unlink()
    path.mkdir()
    assert str(path) in refused(settings_for(tmp_path))


def test_database_that_is_read_only_is_named(tmp_path):
    with open_current(settings_for(tmp_path)) as database:
        planned(Repository(database))
    uri = f"file:{tmp_path}/rqscan.db?mode=ro"
    with Database(dialect_of(settings_for(tmp_path))) as database:
        database._connection = sqlite3.connect(uri, uri=True, isolation_level=None)
        with pytest.raises(StoreUnavailable, match="readonly database; check that this user may"):
            Repository(database).record(a_record())


@pytest.mark.root
@pytest.mark.root
def test_file_of_another_user_is_refused(tmp_path):
    with tempfile.TemporaryDirectory() as folder:  # tmp_path lies below a folder of root's
        Path(folder).chmod(0o755)
        settings = settings_for(tmp_path, f"sqlite:///{folder}/x.db")
        with open_current(settings):
            pass
        missing = settings_for(tmp_path, f"sqlite:///{folder}/y.db")
        os.seteuid(65534)
        try:
            assert "check that this user may write the file" in refused(settings)
            assert "Permission denied; check its folder" in refused(missing)
        finally:
            os.seteuid(0)


def test_fresh_file_that_another_process_sets_up_is_waited_for(sqlite_settings):
    other = sqlite3.connect(f"{sqlite_settings.home}/rqscan.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    thread = threading.Thread(target=lambda: open_current(sqlite_settings).close())
    thread.start()
    thread.join(0.3)
    assert thread.is_alive()  # without retries SQLite refuses the switch to WAL at once
    other.close()
    thread.join(20)
    assert (Path(sqlite_settings.home) / "rqscan.db").read_bytes()[18] == 2  # WAL


def test_server_that_is_away_refuses_or_lacks_the_database_is_named(mariadb, tmp_path):
    def message(user="root:hunter2", database="none", socket=mariadb.socket):
        url = f"mysql+pymysql://{user}@localhost/{database}?unix_socket={socket}"
        return refused(settings_for(tmp_path, url))

    admin = mariadb.connect()
    admin.cursor().execute("DROP USER IF EXISTS alice@localhost")
    admin.cursor().execute("CREATE USER alice@localhost IDENTIFIED BY 'p@ss/wörd'")
    away, wrong = message(socket=tmp_path / "x"), message("alice:hunter2")
    missing, forbidden = message("root:"), message("alice:p%40ss%2Fw%C3%B6rd", "mysql")
    admin.cursor().execute("ALTER USER alice@localhost ACCOUNT LOCK")
    locked = message("alice:p%40ss%2Fw%C3%B6rd")
    admin.close()
    assert f"the database 'none' at {tmp_path}/x: Can't connect" in away
    assert "Access denied" in wrong
    assert "Unknown database 'none'; create it" in missing
    assert "Access denied" in forbidden
    assert "to database" in forbidden
    assert re.search("ccount is locked.*; check user, password and grants", locked)
    for text in (away, wrong, missing, forbidden, locked):
        assert "hunter2" not in text
        assert "p@ss" not in text


@pytest.fixture
def tls_database(short_path, certificate):
    options = [
        f"--ssl-{what}={file}" for what, file in zip(("key", "cert"), certificate, strict=True)
    ]
    options += ["--bind-address=127.0.0.1", f"--ssl-ca={certificate[1]}"]
    server = MariaDB(short_path, *options, port=free_port())
    yield server.start()
    server.close()


@pytest.mark.parametrize("account", ["REQUIRE SSL", ""])
def test_server_that_can_encrypt_is_spoken_to_so(tls_database, tmp_path, account):
    name = urlsplit(tls_database.database_url()).path[1:]
    with closing(tls_database.connect()) as admin:
        admin.cursor().execute(f"CREATE USER alice@'%' IDENTIFIED BY 'p@ss/wörd' {account}")
        admin.cursor().execute(f"GRANT ALL ON {name}.* TO alice@'%'")
    url = f"mysql+pymysql://alice:p%40ss%2Fw%C3%B6rd@127.0.0.1:{tls_database.port}/{name}"
    with open_current(settings_for(tmp_path, url)) as database:
        with database.transaction() as connection, connection.cursor() as cursor:
            cursor.execute("SHOW STATUS LIKE 'Ssl_cipher'")
            assert cursor.fetchone()[1]
        assert database.wire_bytes() > 1_000


def test_password_goes_to_a_server_without_tls_or_it_is_told_why_not(short_path, tmp_path):
    """MySQL wants it encrypted with a key of its own then, for which the driver lacks a package."""
    options = ["--bind-address=127.0.0.1", "--loose-skip-ssl", "--loose-tls-version="]
    server = MariaDB(short_path, *options, port=free_port()).start()
    try:
        name = urlsplit(server.database_url()).path[1:]
        with closing(server.connect()) as admin:
            admin.cursor().execute("CREATE USER alice@'%' IDENTIFIED BY 'p@ss'")
            admin.cursor().execute(f"GRANT ALL ON {name}.* TO alice@'%'")
            is_mysql = "MariaDB" not in admin.get_server_info()
        url = f"mysql+pymysql://alice:p%40ss@127.0.0.1:{server.port}/{name}"
        if is_mysql:
            message = refused(settings_for(tmp_path, url))
            assert "'cryptography' package is required" in message
            assert "turn on the server's TLS" in message
        else:
            open_current(settings_for(tmp_path, url)).close()
    finally:
        server.close()


def test_refused_port_is_named(tmp_path):
    url = "mysql+pymysql://u:hunter2@127.0.0.1:1/db"
    message = refused(settings_for(tmp_path, url))
    assert "the database 'db' at 127.0.0.1:1: Can't connect" in message
    assert "hunter2" not in message


@pytest.mark.parametrize(
    "url",
    [
        "hunter2",
        "",
        "postgresql://u:hunter2@h/db",
        "mysql://u:hunter2@h/db",
        "mysql+pymysql://u:hunter2@h",
        "mysql+pymysql://u:hunter2@h/",
        "mysql+pymysql://u:hunter2@h:port/db",
        "mysql+pymysql://u:hunter2/x@h/db",
        "mysql+pymysql://u:1/hunter2@h/db",
        "mysql+pymysql://u:1#hunter2@h/db",
        "mysql+pymysql://u:1?hunter2@h/db",
        "mysql+pymysql://u:p@[hunter2/db",
        "mysql+pymysql://u:p@h/db?password=hunter2",
        "sqlite://hunter2",
        "sqlite:///",
        "sqlite:///:memory:",
    ],
)
def test_bad_url_is_refused_without_its_text(tmp_path, url):
    with pytest.raises(ConfigError, match=r"database\.url must be like") as caught:
        open_current(settings_for(tmp_path, url))
    error = caught.value
    assert "hunter2" not in f"{error} {error.__cause__} {error.advice}"
    assert error.__suppress_context__ or error.__context__ is None


def test_no_repr_holds_the_password(mysql_settings, tmp_path):
    dialect = dialect_of(settings_for(tmp_path, "mysql+pymysql://u:hunter2@h/db"))
    assert "hunter2" not in f"{dialect!r} {dialect.where} {Database(dialect)!r}"
