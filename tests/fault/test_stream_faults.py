"""The stream's drain and its Redis, killed: each row arrives, once, and no other does."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from rqscan.settings import RedisSettings, Settings
from rqscan.store.drain import backlog, drain
from rqscan.store.outbox import Kept, Outbox
from rqscan.tally import Moved
from tests.fleets import Fleet
from tests.servers import wait_for
from tests.spools import a_record, in_store, plan, seen, settings_of

CHUNKS, ROWS = 300, 20
EXPECTED = [(chunk, 100 * chunk + n) for chunk in range(CHUNKS) for n in range(ROWS)]

DRAIN = """
import sys
from rqscan.store.drain import drain
from rqscan.tally import Moved
from tests.spools import settings_of
# some hundred rows a second: there is time to be killed
settings = settings_of(*sys.argv[1:3], redis_url=sys.argv[3], drain_rows_per_s=20_000)
drain(settings, Moved(), by_force=True, on_batch=lambda: print("moved", flush=True))
"""


@pytest.fixture
def settings(mariadb, home, stream_server):
    made = settings_of(
        home, mariadb.database_url(), mode="redis_stream", redis_url=stream_server.url
    )
    plan(made, CHUNKS)
    return made


def fill(settings, chunks=range(CHUNKS)):
    outbox = Outbox(settings)
    for chunk in chunks:
        record = a_record(chunk, *(seen(100 * chunk + n) for n in range(ROWS)))
        assert outbox.record(record) is Kept.SPOOLED
    outbox.close()


def draining(settings):
    argv = [settings.home, settings.database.url, settings.spool.redis_url]
    env = os.environ | {"PYTHONPATH": str(Path(__file__).resolve().parents[2])}
    return subprocess.Popen(
        [sys.executable, "-c", DRAIN, *argv], stdout=subprocess.PIPE, text=True, env=env
    )


def test_a_drain_of_the_stream_that_is_killed_again_and_again_moves_each_row_once(settings):
    fill(settings)
    kills = 0
    while backlog(settings).records and kills < 100:
        with draining(settings) as child:
            kills += bool(child.stdout.readline())
            child.kill()
    assert kills > 2
    assert in_store(settings) == (EXPECTED, {"finished": CHUNKS})
    assert backlog(settings).rows == 0


def test_a_redis_that_is_killed_under_writer_and_drain_costs_no_row(settings, stream_server):
    parts = [range(n, n + CHUNKS // 3) for n in range(0, CHUNKS, CHUNKS // 3)]
    for part in parts:
        fill(settings, part)
        with draining(settings) as child:
            child.stdout.readline()
            stream_server.kill()
            assert child.wait(60) == 0
        stream_server.start()
        # the next writer finds the server back, the one after that may not
        Path(settings.home, "stream.away").unlink(missing_ok=True)
    drain(settings, Moved(), by_force=True)
    assert in_store(settings) == (EXPECTED, {"finished": CHUNKS})
    assert backlog(settings).records == 0


@pytest.fixture
def fleet(home, mariadb, redis_server, stream_server, tmp_path):
    made = Fleet(
        Settings(home=str(home), redis=RedisSettings(url=redis_server.url)),
        mariadb, redis_server, tmp_path,
        RQSCAN_SPOOL_MODE="redis_stream", RQSCAN_SPOOL_REDIS_URL=stream_server.url,
    )  # fmt: skip
    yield made
    made.rig.close()


def test_rows_go_through_the_stream_by_themselves_and_no_file_is_made(fleet):
    fleet.wait_until_done()
    wait_for(lambda: fleet.spool()["records"] == 0)
    assert fleet.arrived() == fleet.expected
    assert fleet.spool()["stream_up"] is True
    assert not Path(fleet.settings.home, "spool.db").exists()
    assert not fleet.worker.of("errand_failed")


def test_rows_of_a_store_that_is_away_wait_in_the_stream(fleet, mariadb, stream_server):
    fleet.wait_until_done(5)
    mariadb.kill()
    fleet.worker.wait_for_event("store_lost")
    fleet.wait_until_done()
    assert fleet.progress().chunks.failed == 0
    kept = fleet.spool()
    assert kept["rows"] > 0
    assert (kept["store_up"], kept["mode"]) == (False, "redis_stream")
    assert not Path(fleet.settings.home, "spool.db").exists()
    stream_server.kill()
    stream_server.start()
    mariadb.start()
    fleet.worker.wait_for_event("store_back", timeout=90)
    wait_for(lambda: fleet.spool()["records"] == 0, 90)
    assert fleet.arrived() == fleet.expected


def test_a_stream_that_goes_away_is_told_once_and_the_file_takes_over(fleet, stream_server):
    fleet.wait_until_done(5)
    stream_server.kill()
    lost = fleet.worker.wait_for_event("stream_lost")
    assert "cannot use Redis" in lost["reason"]
    fleet.wait_until_done()
    assert fleet.progress().chunks.failed == 0
    assert fleet.spool()["stream_up"] is False
    stream_server.start()
    fleet.worker.wait_for_event("stream_back", timeout=90)
    wait_for(lambda: fleet.spool()["records"] == 0)
    assert fleet.arrived() == fleet.expected
    assert len(fleet.worker.of("stream_lost")) == 1
