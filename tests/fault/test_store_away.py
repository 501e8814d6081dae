"""The database goes away under a fleet that works: what it finds arrives, whole and once."""

import json
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
from msgspec.structs import replace

from rqscan.settings import DatabaseSettings
from tests.fleets import ROWS, Fleet
from tests.rig import Rig, Started
from tests.servers import wait_for
from tests.spools import note_as_away


@pytest.fixture
def rows():
    return ROWS


@pytest.fixture
def fleet(settings, mariadb, redis_server, tmp_path, rows):
    made = Fleet(settings, mariadb, redis_server, tmp_path, rows)
    yield made
    made.rig.close()


def keepers(worker: Started) -> list[psutil.Process]:
    """Give the children of a worker that keep the spool open."""
    found = []
    for child in psutil.Process(worker.process.pid).children():
        with suppress(FileNotFoundError, ProcessLookupError):
            if "spool.db-shm" in Path(f"/proc/{child.pid}/maps").read_text():
                found.append(child)
    return found


def test_while_the_store_is_away_a_child_of_the_worker_keeps_the_spool_open(fleet, mariadb):
    fleet.wait_until_done(3)
    mariadb.kill()
    note_as_away(fleet.settings.home)
    wait_for(lambda: keepers(fleet.worker))
    fleet.wait_until_done()
    mariadb.start()
    assert fleet.rig.json("spool", "drain")["left"] == 0
    assert fleet.arrived() == fleet.expected


@pytest.mark.parametrize("how", ["killed", "frozen"])
def test_rows_of_a_store_that_goes_away_arrive_once_it_is_back(fleet, mariadb, how):
    fleet.wait_until_done(5)
    mariadb.kill() if how == "killed" else mariadb.freeze()
    lost = fleet.worker.wait_for_event("store_lost")
    assert "cannot use" in lost["reason"]
    fleet.wait_until_done()
    assert fleet.progress().chunks.failed == 0
    kept = fleet.spool()
    assert 0 < kept["rows"] < len(fleet.expected)
    assert (kept["store_up"], kept["mode"]) == (False, "direct")
    shown = json.loads(fleet.rig.run("top", "--once", "--json").stdout)
    (worker,) = shown["workers"]
    assert worker["spool_rows"] == worker["spool"]["rows"] > 0
    assert worker["spool"]["oldest_s"] is not None
    mariadb.start() if how == "killed" else mariadb.thaw()
    back = fleet.worker.wait_for_event("store_back", timeout=90)
    wait_for(lambda: fleet.spool()["rows"] == 0, 30)
    assert fleet.arrived() == fleet.expected
    assert back["kept_rows"] >= kept["rows"] > 0
    scan = fleet.rig.json("scans")[0]
    assert (scan["state"], scan["observations"]) == ("finished", len(fleet.expected))
    assert len(fleet.worker.of("store_lost")) == len(fleet.worker.of("store_back")) == 1


def test_a_worker_that_is_killed_while_it_spools_loses_nothing(fleet, mariadb):
    fleet.wait_until_done(3)
    mariadb.kill()
    for done in (10, 20, 30):
        fleet.wait_until_done(done)
        fleet.worker.process.kill()
        fleet.worker.process.wait()
        fleet.worker = fleet.start()
    fleet.wait_until_done()
    mariadb.start()
    assert fleet.rig.json("spool", "drain")["left"] == 0
    assert fleet.arrived() == fleet.expected


def test_a_scan_ends_though_its_rows_are_still_spooled(settings, mariadb, redis_server, tmp_path):
    settings = replace(settings, database=DatabaseSettings(url=mariadb.database_url()))
    rig = Rig(settings, tmp_path)
    rig.use_odd_kinds()
    try:
        rig.env |= {"RQSCAN_SPOOL_MODE": "spool_first", "RQSCAN_IDLE_FOR_S": "300"}
        rig.worker("default")
        wait_for(lambda: list(Path(settings.home).glob("store-*")))
        ended = rig.json("scan", "127.0.0.1-127.0.0.3", "--kind", "rows", "-p", "5")
        assert (ended["state"], ended["observations"], ended["spooled"]) == ("finished", 15, 15)
        status = rig.json("spool", "status")
        assert (status["rows"], status["mode"], status["store_up"]) == (15, "spool_first", True)
        assert status["idle"]["forced_at"] > status["oldest_at"]
        assert status["idle"]["reason"] == "the database is on this host; forced in 5 min"
        assert rig.json("results") == []
        mariadb.freeze()
        assert rig.run("spool", "drain").returncode == 3
        mariadb.thaw()
        done = rig.json("spool", "drain")
        assert (done["drained"], done["left"], done["quarantined"]) == (15, 0, 0)
        assert len(rig.json("results")) == 15
    finally:
        rig.close()


def test_rows_wait_for_the_jobs_of_their_host(settings, redis_server, tmp_path):
    rig = Rig(settings, tmp_path)
    rig.use_odd_kinds()
    rig.env |= {"RQSCAN_SPOOL_MODE": "spool_first", "RQSCAN_IDLE_FOR_S": "0.5"}
    try:
        rig.worker("default", "-c", "2")
        long = rig.json("scan", "127.0.0.1", "--kind", "polite", "--no-wait")["scan_id"]
        wait_for((tmp_path / "polite").exists)
        assert rig.json("scan", "127.0.0.1", "--kind", "rows", "-p", "5")["state"] == "finished"

        def why() -> str:
            (worker,) = rig.json("top", "--once")["workers"]
            return worker["spool"]["idle"]["reason"] if worker["spool"]["idle"] else ""

        words = "jobs run or wait here, the database is on this host; forced in "
        wait_for(lambda: why().startswith(words))
        assert rig.json("results") == []
        rig.json("cancel", long)
        wait_for(lambda: len(rig.json("results")) == 5)
    finally:
        rig.close()


def test_rows_that_waited_long_enough_go_by_themselves(settings, redis_server, tmp_path):
    rig = Rig(settings, tmp_path)
    rig.use_odd_kinds()
    rig.env |= {"RQSCAN_SPOOL_MODE": "spool_first", "RQSCAN_SPOOL_MAX_DELAY_S": "1"}
    try:
        worker = rig.worker("default")
        assert rig.json("scan", "127.0.0.1", "--kind", "rows", "-p", "5")["state"] == "finished"
        wait_for(lambda: len(rig.json("results")) == 5)
        assert not worker.of("store_lost")
    finally:
        rig.close()


@pytest.mark.parametrize("rows", [150])  # of 40 chunks some 720 kB
def test_a_spool_that_is_nearly_full_holds_the_claims_until_it_is_drained(fleet, mariadb):
    mariadb.kill()
    assert fleet.worker.stop() == 0
    fleet.rig.env |= {"RQSCAN_WORKER_HEARTBEAT_S": "0.2", "RQSCAN_SPOOL_MAX_BYTES": "600000"}
    fleet.worker = fleet.start(horses=1)
    held = fleet.worker.wait_for_event("claims_held")
    assert "nearly full" in held["reason"]
    shown = json.loads(fleet.rig.run("top", "--once", "--json").stdout)
    assert shown["workers"][0]["state"] in {"suspended", "busy"}
    assert "claims held" in {trouble["what"] for trouble in shown["trouble"]}
    assert fleet.progress().chunks.failed == 0
    mariadb.start()
    assert fleet.rig.json("spool", "drain")["left"] == 0
    fleet.worker.wait_for_event("claims_resumed")
    fleet.wait_until_done()
    wait_for(lambda: fleet.spool()["rows"] == 0, 90)
    assert fleet.arrived() == fleet.expected
