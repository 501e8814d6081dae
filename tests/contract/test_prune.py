"""Retention over SQLite and a real MariaDB."""

import os
import signal
import threading
from datetime import timedelta
from itertools import count

import msgspec
import pytest

from rqscan import clock
from rqscan.cli import main
from rqscan.model import Scan
from rqscan.states import ChunkState
from rqscan.store import prune
from rqscan.store.drain import drain
from rqscan.store.intake import Taken
from rqscan.store.migrate import open_current
from rqscan.store.prune import Pruned, Pruner
from rqscan.store.queries import _Query
from rqscan.store.repository import Repository
from rqscan.store.spool import Spool
from rqscan.tally import Moved
from tests.spools import a_record, seen, settings_of

DAY = timedelta(days=1)
MONTH = 30 * DAY


@pytest.fixture(params=["sqlite", "mariadb"])
def settings(request, home):
    if request.param == "sqlite":
        return settings_of(home)
    return settings_of(home, request.getfixturevalue("mariadb").database_url())


@pytest.fixture
def database(settings):
    with open_current(settings) as opened:
        yield opened


def scanned(database, scan_id, ago, *, chunks=3, rows=4, ended=None) -> None:
    """Plan a scan that was asked for so long ago, and record its first chunks an hour later."""
    at = clock.now() - ago
    scan = Scan(
        scan_id=scan_id, name="n", queue="wakaka", kinds=["ports"], targets=["127.0.0.1"], seed=7,
        hosts_per_chunk={"ports": 1}, chunks=chunks, probes=chunks, requested_at=at,
    )  # fmt: skip
    store = Repository(database)
    assert store.add_plan(scan, ((n, "ports") for n in range(chunks)))
    times = {"started_at": at, "finished_at": at + timedelta(hours=1)}
    for chunk in range(chunks if ended is None else ended):
        seen_there = (seen(port, f"127.0.0.{chunk}", observed_at=at) for port in range(rows))
        assert store.record(a_record(chunk, *seen_there, scan_id=scan_id, **times))


def left(database) -> dict[str, dict[str, int]]:
    """Give how many scans, chunks and rows there are of each scan."""
    found = {}
    with database.transaction(read_only=True) as connection:
        for table in ("scans", "chunks", "observations"):
            cursor = connection.cursor()
            cursor.execute(f"SELECT scan_id, COUNT(*) FROM {table} GROUP BY scan_id")
            found[table] = dict(cursor.fetchall())
    return found


def pruned(database, age=MONTH, spooled=()) -> Pruned:
    pruner = Pruner(database, age, spooled)
    pruner.prune()
    return pruner.pruned


def test_old_scans_go_whole_and_the_others_stay_whole(database):
    scanned(database, "old", 31 * DAY)
    scanned(database, "older", 90 * DAY, rows=1_001)
    scanned(database, "failed", 40 * DAY, chunks=1, ended=0)
    failure = a_record(
        0, scan_id="failed", state=ChunkState.FAILED, finished_at=clock.now() - MONTH
    )
    assert Repository(database).record(failure)
    scanned(database, "empty", 31 * DAY, chunks=0)
    scanned(database, "young", 29 * DAY)
    scanned(database, "running", 90 * DAY, ended=2)
    scanned(database, "spooled", 90 * DAY)
    about = Pruner(database, MONTH, {"spooled"})
    before = left(database)
    about.count()
    assert left(database) == before
    assert about.pruned == Pruned(
        scans=4, chunks=7, observations=12 + 3_003 + 1, not_ended=1, spooled=1
    )
    assert pruned(database, spooled={"spooled"}) == about.pruned
    assert left(database) == {
        "scans": {"running": 1, "spooled": 1, "young": 1},
        "chunks": {"running": 3, "spooled": 3, "young": 3},
        "observations": {"running": 8, "spooled": 12, "young": 12},
    }
    assert pruned(database, spooled={"spooled"}) == Pruned(not_ended=1, spooled=1)


def test_end_of_a_scan_counts_and_not_its_start(database):
    scanned(database, "long", 90 * DAY)
    late = {"finished_at": clock.now() - DAY, "attempt": 2}
    Repository(database).record(a_record(2, scan_id="long", **late))
    assert pruned(database) == Pruned()
    assert pruned(database, timedelta(0)).scans == 1


def test_scan_that_is_resumed_meanwhile_stays(database, monkeypatch):
    scanned(database, "s", 90 * DAY)
    find = Pruner._old

    def find_and_resume(pruner):
        found = find(pruner)
        with database.transaction() as connection:
            connection.cursor().execute("UPDATE chunks SET state = 'planned' WHERE chunk = 1")
        return found

    monkeypatch.setattr(Pruner, "_old", find_and_resume)
    assert pruned(database) == Pruned()
    assert left(database)["chunks"] == {"s": 3}


def test_prune_that_is_killed_anywhere_harms_nothing_and_is_gone_on_with(
    settings, database, monkeypatch
):
    monkeypatch.setattr(prune, "BATCH", 2)
    scanned(database, "young", DAY)
    for calls in count(1):
        scanned(database, f"old{calls}", 90 * DAY, chunks=5, rows=3)
        database.close()
        pid = os.fork()
        if not pid:
            _prune_and_die_after(settings, calls)
        end = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        if not end:
            break
        assert end == -signal.SIGKILL
        found = left(database)
        assert set(found["observations"]) <= set(found["chunks"])
        whole = {"scans": 1, "chunks": 5, "observations": 15}
        for scan_id in found["scans"]:  # who can be found is whole
            if scan_id != "young":
                assert {table: found[table][scan_id] for table in found} == whole
        about = Pruner(database, MONTH, ())
        about.count()
        done = pruned(database)
        assert done == about.pruned
        assert done.chunks == sum(n for name, n in found["chunks"].items() if name != "young")
        assert left(database) == {
            "scans": {"young": 1}, "chunks": {"young": 3}, "observations": {"young": 12}
        }  # fmt: skip
    assert calls > 20


def _prune_and_die_after(settings, calls):
    """Be killed before the statement of that number; end with 0 if there are not so many."""
    statements = count(1)
    run = _Query.__call__

    def count_and_run(query, *args, **parameters):
        if next(statements) == calls:
            os.kill(os.getpid(), signal.SIGKILL)
        return run(query, *args, **parameters)

    _Query.__call__ = count_and_run
    with open_current(settings) as database:
        pruned(database)
    os._exit(0)


def test_late_record_of_a_pruned_scan_leaves_nothing(settings, database):
    scanned(database, "old", 90 * DAY)
    assert pruned(database).scans == 1
    late = a_record(0, scan_id="old", attempt=2)
    assert Repository(database).record_kept([(late, False)]) == [Taken.UNKNOWN]
    assert left(database) == {"scans": {}, "chunks": {}, "observations": {}}


def test_two_prunes_and_a_worker_are_not_in_each_others_way(settings, database, monkeypatch):
    monkeypatch.setattr(prune, "BATCH", 50)
    for number in range(4):
        scanned(database, f"old{number}", 90 * DAY, chunks=20, rows=20)
    scanned(database, "new", timedelta(0), chunks=40, ended=0)
    done, errors, start = [], [], threading.Barrier(3)

    def act(work):
        try:
            with open_current(settings) as mine:
                start.wait(10)
                work(mine)
        except Exception as error:  # noqa: BLE001 - whatever it is, the test shows it
            errors.append(error)

    def record(mine):
        for chunk in range(40):
            rows = (seen(port, f"127.1.0.{chunk}") for port in range(20))
            assert Repository(mine).record(a_record(chunk, *rows, scan_id="new"))

    def clean(mine):
        done.append(pruned(mine))

    threads = [threading.Thread(target=act, args=(work,)) for work in (clean, clean, record)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert errors == []
    assert sum(one.scans for one in done) == 4
    assert sum(one.chunks for one in done) == 80
    assert sum(one.observations for one in done) == 1_600
    assert left(database) == {
        "scans": {"new": 1}, "chunks": {"new": 40}, "observations": {"new": 800}
    }  # fmt: skip


# The command


@pytest.fixture
def command(settings, monkeypatch, capsys):
    monkeypatch.setenv("RQSCAN_HOME", settings.home)
    if settings.database.url:
        monkeypatch.setenv("RQSCAN_DATABASE_URL", settings.database.url)

    def run(*args):
        code = main(["db", "prune", *args])
        return (code, *capsys.readouterr())

    return run


def test_command_keeps_what_the_spool_and_the_quarantine_hold(settings, database, command):
    for scan_id in ("old", "spooled", "refused"):
        scanned(database, scan_id, 90 * DAY)
    spool = Spool(settings)
    long_ago = {"attempt": 2, "finished_at": clock.now() - 89 * DAY}
    spool.append(a_record(0, seen(state=None), scan_id="refused", **long_ago))
    drain(settings, Moved())
    assert spool.status().quarantined == 1
    spool.append(a_record(0, scan_id="spooled"))
    assert spool.scans() == {"spooled", "refused"}
    would = command("--older-than", "30d", "--dry-run", "--json")
    code, out, err = command("--older-than", "30d", "--json")
    assert (code, err) == (0, "")
    done, told = msgspec.json.decode(out), msgspec.json.decode(would[1])
    assert list(done) == ["before", "dry_run", "scans", "chunks", "observations", "runs", "kept"]
    assert (done.pop("dry_run"), told.pop("dry_run")) == (False, True)
    assert told.pop("before") < done.pop("before")
    kept = {"not_ended": 0, "spooled": 2}
    assert done == told == {"scans": 1, "chunks": 3, "observations": 12, "runs": 0, "kept": kept}
    assert set(left(database)["scans"]) == {"spooled", "refused"}


def test_command_tells_people_what_it_did(database, command):
    scanned(database, "old", 90 * DAY)
    scanned(database, "running", 90 * DAY, ended=0)
    code, out, err = command("--older-than", "12h", "--dry-run")
    assert code == 0
    assert out.startswith("1 scans, 3 chunks and 12 rows would be deleted, of scans that ended bef")
    assert err == (
        "1 older scans have not ended, and 0 have rows in this host's spool: they stay\n"
    )
    assert command("--older-than", "12h")[1].startswith("1 scans, 3 chunks and 12 rows were ")
    assert set(left(database)["scans"]) == {"running"}


@pytest.mark.parametrize(
    "age",
    ["", "x", "30", "-1d", "1.5d", "30 d", "٣d", "1y", "2026-01-01", "36501d", "9" * 30 + "d"],
)
def test_bad_age_is_one_sentence(command, age):
    code, out, err = command("--older-than", age)
    assert (code, out) == (2, "")
    said = err.splitlines()[-1]
    assert said.startswith("rqscan: error: Invalid value for '--older-than': expected an age like")
    assert said.endswith(f"12h or 90d, got: {age!r}")


def test_age_must_be_told(command):
    code, out, err = command()
    assert (code, out) == (2, "")
    assert err.endswith("rqscan: error: Missing option '--older-than'.\n")
