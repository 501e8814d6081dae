"""What a server does to its clients: each row arrives once, and only poison is quarantined."""

import threading
from contextlib import ExitStack, closing, contextmanager, suppress
from itertools import takewhile

import pytest
from msgspec import json

from rqscan.errors import Fault, StoreUnavailable
from rqscan.home import keep_id, known_id
from rqscan.store.breaker import Breaker
from rqscan.store.database import Database
from rqscan.store.drain import Held, drain
from rqscan.store.intake import Intake, _keyed
from rqscan.store.mysql import TURNS, MySql
from rqscan.store.outbox import Kept, Outbox
from rqscan.store.spool import Spool
from rqscan.tally import Moved
from tests.servers import wait_for
from tests.spools import a_record, drained, in_store, plan, seen, settings_of

CHUNKS, ROWS = 60, 20
EXPECTED = [(chunk, 100 * chunk + n) for chunk in range(CHUNKS) for n in range(ROWS)]
LARGE = {"banner": "x" * 5_000_000}  # a row that might be too large for a packet, and is not


@pytest.fixture
def settings(mariadb, home):
    made = settings_of(home, mariadb.database_url())
    plan(made, CHUNKS)
    return made


@pytest.fixture
def spool(settings):
    return Spool(settings)


@pytest.fixture
def outbox(settings):
    with closing(Outbox(settings)) as made:
        yield made


@pytest.fixture
def root(mariadb):
    """Give a cursor of the server's administrator."""
    with closing(mariadb.connect(autocommit=True)) as connection, connection.cursor() as cursor:
        yield cursor


@contextmanager
def globally(root, name, value):
    """Set a variable of the server for new sessions, and set it back."""
    root.execute(f"SELECT @@GLOBAL.{name}")
    (before,) = root.fetchone()
    root.execute(f"SET GLOBAL {name} = %s", [value])
    try:
        yield
    finally:
        root.execute(f"SET GLOBAL {name} = %s", [before])


def sessions(root, settings):
    name = settings.database.url.partition("?")[0].rpartition("/")[2]
    root.execute("SELECT id FROM information_schema.processlist WHERE db = %s", [name])
    return [number for (number,) in root.fetchall()]


def counted(root, what):
    """Give a number that the server's InnoDB keeps."""
    root.execute("SELECT count FROM information_schema.innodb_metrics WHERE name = %s", [what])
    return root.fetchone()[0]


def whole(chunk, **more):
    return a_record(chunk, *(seen(100 * chunk + n) for n in range(ROWS)), **more)


def arrived(settings):
    """Drain, and give what the store has then; nothing may be left or in quarantine."""
    drained(settings)
    status = Spool(settings).status()
    assert (status.records, status.quarantined) == (0, 0)
    return in_store(settings)[0]


# Sessions that the server ends


@pytest.fixture
def small_batches(monkeypatch):
    monkeypatch.setattr("rqscan.store.spool.BATCH_RECORDS", 2)


@pytest.fixture
def short_lived(monkeypatch):
    """Have the server end our sessions that say nothing for a second."""
    monkeypatch.setattr("rqscan.store.mysql.SILENT_S", 1)


@pytest.mark.usefixtures("short_lived")
def test_a_session_that_expires_between_two_records_is_made_anew(root, settings, outbox):
    for chunk in range(3):
        assert outbox.record(whole(chunk)) is Kept.STORED
        wait_for(lambda: not sessions(root, settings))
    assert arrived(settings) == EXPECTED[: 3 * ROWS]


@pytest.mark.usefixtures("short_lived", "small_batches")
def test_sessions_that_expire_in_a_long_drain_are_made_anew(root, settings, spool):
    for chunk in range(6):
        spool.append(whole(chunk))
    moved = drained(settings, on_batch=lambda: wait_for(lambda: not sessions(root, settings)))
    assert moved == Moved(rows=6 * ROWS)
    assert arrived(settings) == EXPECTED[: 6 * ROWS]


@pytest.mark.usefixtures("short_lived")
def test_who_falls_silent_in_mid_transaction_holds_up_nobody_for_long(settings, outbox):
    with Database.open(settings) as frozen:

        def fall_silent():
            with frozen.transaction() as connection:
                assert Intake(frozen)._record(connection, whole(0))
                assert outbox.record(whole(0, attempt=2)) is Kept.STORED

        with pytest.raises(StoreUnavailable):
            fall_silent()
    assert arrived(settings) == EXPECTED[:ROWS]


def test_a_session_that_is_killed_in_mid_transaction_keeps_nothing_of_it(
    root, settings, outbox, monkeypatch
):
    put, kills = Intake._put, iter(range(2))

    def killed(self, connection, record, keyed):
        put(self, connection, record, keyed)
        if next(kills, None) is not None:
            root.execute(f"KILL {connection.thread_id()}")

    monkeypatch.setattr(Intake, "_put", killed)
    assert outbox.record(whole(0)) is Kept.SPOOLED
    assert in_store(settings)[0] == []
    with pytest.raises(StoreUnavailable):
        drained(settings)
    assert in_store(settings)[0] == []
    assert arrived(settings) == EXPECTED[:ROWS]


@pytest.mark.usefixtures("small_batches")
@pytest.mark.parametrize("how", ["KILL", "KILL QUERY"])
def test_sessions_that_are_killed_at_any_moment_lose_and_double_nothing(
    mariadb, settings, outbox, how
):
    ended, kills = threading.Event(), []

    def kill():
        with closing(mariadb.connect(autocommit=True)) as connection, connection.cursor() as other:
            while not ended.wait(0.01):
                for number in sessions(other, settings):
                    with suppress(Exception):  # it has ended already
                        other.execute(f"{how} {number}")
                        kills.append(number)

    killer = threading.Thread(target=kill)
    killer.start()
    try:
        for attempt in takewhile(lambda _: len(kills) < 30, range(1, 100)):
            for chunk in range(CHUNKS):
                Breaker(settings.home).close()  # each is to try the store
                kept = outbox.record(whole(chunk, attempt=attempt))
                assert kept in {Kept.STORED, Kept.SPOOLED}
            with suppress(StoreUnavailable):
                drained(settings)
    finally:
        ended.set()
        killer.join()
    assert len(kills) >= 30
    assert arrived(settings) == EXPECTED


# A server that takes no writes


def test_what_a_read_only_server_does_not_take_is_kept(root, mariadb, home):
    url = mariadb.database_url()
    root.execute("CREATE USER IF NOT EXISTS scan@localhost")
    root.execute("GRANT ALL ON `rqscan\\_%`.* TO scan@localhost")
    settings = settings_of(home, url.replace("//root@", "//scan@"))
    plan(settings)
    with closing(Outbox(settings)) as outbox:
        assert outbox.record(whole(0)) is Kept.STORED
        with globally(root, "read_only", 1):
            assert outbox.record(whole(1)) is Kept.SPOOLED
            away = Breaker(settings.home).away()
            assert (away.fault, "make the server writable" in away.reason) == (Fault.REFUSED, True)
            assert outbox.record(a_record(2, seen(9_000, data=LARGE))) is Kept.SPOOLED
            for _ in range(2):
                with pytest.raises(StoreUnavailable, match="make the server writable"):
                    drained(settings)
            assert Spool(settings).status().records == 2
            assert Spool(settings).status().quarantined == 0
        assert arrived(settings) == [*EXPECTED[: 2 * ROWS], (2, 9_000)]
        assert outbox.record(whole(0, attempt=2)) is Kept.STORED
    assert arrived(settings) == [*EXPECTED[: 2 * ROWS], (2, 9_000)]


# Others in the way


@pytest.fixture
def impatient(monkeypatch):
    """Have the server give up waiting for a lock after a second, and the drain after two tries."""
    connect = MySql.connect

    def connect_and_set(self):
        connection = connect(self)
        connection.query("SET innodb_lock_wait_timeout = 1")
        return connection

    monkeypatch.setattr(MySql, "connect", connect_and_set)
    monkeypatch.setattr("rqscan.store.intake.KEPT_BUSY_S", 1)


@pytest.mark.usefixtures("impatient")
def test_a_drain_that_others_hold_up_keeps_all_and_goes_on_later(settings, spool, outbox):
    for chunk in range(3):
        spool.append(whole(chunk))
    with Database.open(settings) as other, other.transaction() as connection:
        connection.cursor().execute("UPDATE chunks SET worker = 'x' WHERE chunk = 1")
        with pytest.raises(StoreUnavailable, match="try again") as caught:
            drained(settings)
        assert caught.value.fault is Fault.BUSY
        assert Breaker(settings.home).away() is None
        assert spool.status().records == 3
        assert outbox.record(whole(3)) is Kept.STORED
    assert arrived(settings) == EXPECTED[: 4 * ROWS]


@pytest.mark.usefixtures("impatient")
def test_a_large_row_that_others_hold_up_is_not_taken_for_too_large(settings, spool):
    record = a_record(0, seen(1), seen(2))
    first, second = (row.port for row in _keyed(record, record.observations).values())
    # the row that is refused comes before the one that others hold up
    spool.append(a_record(0, seen(first, state="x" * 65), seen(second, data=LARGE)))
    with Database.open(settings) as other, other.transaction() as connection:
        Intake(other)._put(connection, a_record(5), _keyed(record, [seen(second)]))
        with pytest.raises(StoreUnavailable, match="try again"):
            drained(settings)
        assert (spool.status().records, spool.status().quarantined) == (1, 0)
        connection.rollback()
    assert drained(settings) == Moved(rows=1, quarantined=1)
    assert in_store(settings)[0] == [(0, second)]


def test_two_drains_that_lock_each_other_out_both_arrive(root, settings, short_path):
    """Each has one chunk and is held up at its rows; then each wants the other's."""
    home = short_path / "other home"
    home.mkdir()
    other = settings_of(home, settings.database.url)
    keep_id(other, known_id(settings))
    for one, chunks in ((settings, (0, 1)), (other, (1, 0))):
        for chunk in chunks:
            Spool(one).append(whole(chunk))
    before = counted(root, "lock_deadlocks")
    drains = [threading.Thread(target=drained, args=[one]) for one in (settings, other)]
    with Database.open(settings) as blocker, blocker.transaction() as connection:
        for chunk in range(2):
            keyed = _keyed(whole(chunk), whole(chunk).observations)
            Intake(blocker)._put(connection, whole(chunk), dict([*keyed.items()][:1]))
        for one in drains:
            one.start()
        wait_for(lambda: counted(root, "lock_row_lock_current_waits") == 2)
        connection.rollback()
    for one in drains:
        one.join(60)
    assert counted(root, "lock_deadlocks") > before
    assert Spool(other).status().records == Spool(settings).status().records == 0
    assert arrived(settings) == EXPECTED[: 2 * ROWS]


def test_so_many_homes_drain_at_once_and_the_others_wait_for_a_turn(settings, spool, monkeypatch):
    monkeypatch.setattr("rqscan.store.mysql.TURN_WAIT_S", 0)
    spool.append(whole(0))
    with ExitStack() as stack:
        others = [stack.enter_context(Database.open(settings)) for _ in range(TURNS)]
        for other in others:
            with other.transaction() as connection:
                assert other.dialect.take_turn(connection)
        with pytest.raises(Held, match="enough other homes drain into the database 'rqscan_"):
            drain(settings, Moved())
        assert spool.status().records == 1
        others[2].close()  # as the kernel does for a process that is killed
        wait_for(lambda: drains(settings))
    assert (spool.status().records, in_store(settings)[0]) == (0, EXPECTED[:ROWS])


def drains(settings) -> bool:
    try:
        drain(settings, Moved())
    except Held:
        return False
    return True


# Packets


@pytest.mark.parametrize("size", [70_000, 1_000_000, 5_000_000])
def test_only_a_row_larger_than_a_packet_is_quarantined(root, settings, outbox, size):
    with globally(root, "max_allowed_packet", 65_536):
        rows = [seen(n, data={"banner": "x" * 200}) for n in range(10_000, 12_000)]
        assert outbox.record(a_record(0, *rows)) is Kept.STORED
        large = seen(2, data={"banner": "y" * size})
        fits = seen(3, data={"banner": "z" * 60_000})
        assert outbox.record(a_record(1, seen(1), large, fits)) is Kept.SPOOLED
        Spool(settings).append(whole(2))
        assert drained(settings) == Moved(rows=2 + ROWS, quarantined=1)
        (entry,) = Spool(settings).quarantined()
        (row,) = json.decode(entry.record)["observations"]
        assert (row["port"], entry.code in {"1153", "too_large"}) == (2, True)
        stored = [(0, n) for n in range(10_000, 12_000)] + [(1, 1), (1, 3)]
        assert in_store(settings)[0] == stored + EXPECTED[2 * ROWS : 3 * ROWS]
