"""Tasks of the schedule, done by workers: a drain in each home that keeps rows, and a prune."""

from datetime import UTC, datetime, timedelta

import pytest
from msgspec.structs import replace

from rqscan import clock
from rqscan.schedule.scheduler import ScanScheduler
from rqscan.store.database import Database
from rqscan.store.journal import Journal
from tests.rig import Rig
from tests.servers import wait_for
from tests.spools import in_store, settings_of

QUEUES = {"one": "default", "two": "wakaka"}


@pytest.fixture
def client(redis_server):
    with redis_server.client() as found:
        yield found


@pytest.fixture
def fleet(settings, mariadb, tmp_path, short_path):
    """Give a worker of two homes each, whose rows would wait for minutes."""
    url = mariadb.database_url()
    settings = replace(settings, database=settings_of(short_path, url).database)
    rigs = []
    for name in ("one", "two"):
        home, folder = short_path / name, tmp_path / name
        home.mkdir()
        folder.mkdir()
        rig = Rig(replace(settings, home=str(home)), folder)
        rig.use_odd_kinds()
        rig.env |= {
            "RQSCAN_SPOOL_MODE": "spool_first", "RQSCAN_IDLE_FOR_S": "300",
            "RQSCAN_WORKER_HEARTBEAT_S": "0.5",
        }  # fmt: skip
        rig.worker(QUEUES[name], "--name", name)
        rigs.append(rig)
    yield settings, *rigs
    for rig in rigs:
        rig.close()


def run(client, settings, **entry):
    """Have an entry fall due; gives what came of it."""
    at = datetime.fromtimestamp(client.time()[0] + 2, UTC)
    table = {"name": f"n{len(settings.schedule)}", "at": at.isoformat()} | entry
    settings.schedule.append(table)
    ScanScheduler(connection=client, settings=settings).run(burst=True)
    wait_for(lambda: client.time()[0] >= at.timestamp())
    ScanScheduler(connection=client, settings=settings).run(burst=True)
    with Database.open(settings) as database:
        (made,) = Journal(database).runs(table["name"], 2)
    return made


def spooled(rig) -> int:
    return rig.json("spool", "status")["rows"]


def test_a_drain_goes_to_each_home_that_keeps_rows(client, fleet):
    settings, one, two = fleet
    none = run(client, settings, task="drain")
    assert (none.outcome, none.reason) == ("fired", "no home keeps rows")
    for rig, name in ((one, "one"), (two, "two")):
        argv = ("scan", "127.0.0.1", "--kind", "rows", "-p", "5", "-q", QUEUES[name])
        assert rig.json(*argv, RQSCAN_JOBS_PATH=rig.env["RQSCAN_JOBS_PATH"])["state"] == "finished"
        wait_for(lambda rig=rig, name=name: told_rows(rig, name) == 5)
    assert (spooled(one), spooled(two)) == (5, 5)
    later = run(client, settings, task="drain", when="idle", max_delay_s=600)
    assert later.reason == "sent to one (5 rows), two (5 rows)"
    assert (spooled(one), spooled(two)) == (5, 5)
    at_once = run(client, settings, task="drain")
    assert at_once.reason == "sent to one (5 rows), two (5 rows)"
    wait_for(lambda: (spooled(one), spooled(two)) == (0, 0))
    assert len(in_store(settings)[0]) == 10


def told_rows(rig, name) -> int | None:
    workers = rig.json("top", "--once")["workers"]
    return next(worker["spool_rows"] for worker in workers if worker["name"] == name)


def test_a_prune_is_done_by_one_worker(client, fleet):
    settings, one, _ = fleet
    assert one.json("scan", "127.0.0.1", "--kind", "rows", "-p", "5", "-q", QUEUES["one"])
    one.json("spool", "drain")
    with Database.open(settings) as database, database.transaction() as connection:
        old = clock.now() - timedelta(days=100)
        times = "started_at = %s, finished_at = %s"
        connection.cursor().execute(f"UPDATE chunks SET {times}", [old, old])
        connection.cursor().execute("UPDATE scans SET requested_at = %s", [old])
    made = run(client, settings, task="prune", older_than_s=90 * 86_400)
    assert made.outcome == "fired"
    assert made.reason in {"sent to one", "sent to two"}
    wait_for(lambda: in_store(settings) == ([], {}))


def test_the_upkeep_is_done_by_one_worker(client, fleet):
    settings, *_ = fleet
    made = run(client, settings, task="upkeep")
    assert (made.outcome, made.reason in {"sent to one", "sent to two"}) == ("fired", True)


def test_a_task_that_nobody_answers_has_failed(client, fleet):
    settings, one, two = fleet
    for rig in (one, two):
        for process in rig._started:
            process.kill()
            process.wait()
    made = run(client, settings, task="prune", older_than_s=90 * 86_400)
    assert (made.outcome, made.reason) == ("failed", "no worker in the fleet answers")
