"""Redis loses what it held, or is away: the plan brings it back; what was removed stays away."""

import json

import pytest

from rqscan.broker import keys
from tests.servers import wait_for

SHORT = ("127.0.0.1-127.0.0.8", "-p", "1-20", "--queue", "wakaka")
LONG = ("127.0.0.1-127.0.0.60", "-p", "1-65535", "--queue", "wakaka")


@pytest.fixture
def client(redis_server):
    with redis_server.client() as found:
        yield found


def state_of(rig, scan_id):
    return {scan["scan_id"]: scan["state"] for scan in rig.json("scans")}[scan_id]


def the_only_scan(rig):
    (scan,) = wait_for(lambda: rig.json("scans"), 30)
    return scan["scan_id"]


def printed(started):
    """Give the object that a command with --json printed among its other lines."""
    lines = started.log.read_text().splitlines()
    return next(json.loads(line) for line in lines if line.startswith("{"))


def test_the_fleet_brings_back_what_a_flush_under_a_waiting_scan_took(rig, client):
    waiting = rig.start("-m", "rqscan", "scan", *LONG[:1], "-p", "1-2000", *LONG[3:], "--json")
    worker = rig.worker("wakaka", "--concurrency", "1")
    worker.wait_for_event("job_started")
    client.flushall()
    wait_for(lambda: "is gone from Redis" in waiting.log.read_text(), 30)
    assert waiting.process.wait(120) == 0
    assert printed(waiting)["state"] == "finished"
    assert state_of(rig, the_only_scan(rig)) == "finished"


def test_what_a_killed_redis_lost_is_enqueued_and_runs_once(rig, client, redis_server):
    client.config_set("appendfsync", "no")
    planned = rig.json("scan", *SHORT, "--no-wait")
    redis_server.kill()
    for log in redis_server.folder.glob("appendonlydir/*"):
        log.unlink()  # a power cut before it was written
    redis_server.start()
    assert rig.json("resume", "--all") == {"scans": 1, "enqueued": planned["chunks"]["total"]}
    assert rig.json("resume", "--all") == {"scans": 1, "enqueued": 0}
    rig.worker("wakaka")
    wait_for(lambda: state_of(rig, planned["scan_id"]) == "finished", 60)
    assert client.hget(keys.job(f"{planned['scan_id']}-0-2"), "rqscan_attempt") == b"1"


def test_a_scan_asked_for_while_redis_is_away_starts_when_it_is_back(rig, redis_server):
    redis_server.kill()
    done = rig.run("scan", *SHORT, "--no-wait", "--json")
    assert done.returncode == 0, done.stderr
    assert "the scan is planned and starts when Redis is back" in done.stderr
    assert "Traceback" not in done.stderr
    scan = json.loads(done.stdout)
    assert scan["state"] == "queued"
    assert rig.run("scan", *SHORT).returncode == 3  # it would wait, so nothing is planned
    assert the_only_scan(rig) == scan["scan_id"]
    redis_server.start()
    assert rig.json("resume", "--all") == {"scans": 1, "enqueued": scan["chunks"]["total"]}
    rig.worker("wakaka")
    wait_for(lambda: state_of(rig, scan["scan_id"]) == "finished", 60)


def test_cancel_ends_a_waiting_scan_and_no_row_of_it_comes_later(rig, client):
    waiting = rig.start("-m", "rqscan", "scan", *LONG, "--json")
    worker = rig.worker("wakaka", "--concurrency", "1")
    worker.wait_for_event("job_started")
    scan_id = the_only_scan(rig)
    done = rig.json("cancel", scan_id)
    assert (done["scan_id"], done["state"]) == (scan_id, "cancelled")
    assert waiting.process.wait(60) == 1
    summary = printed(waiting)
    assert summary["state"] == "cancelled"
    cancelled = sum(done["cancelled"].values())
    assert cancelled == summary["chunks"]["total"] - summary["chunks"]["done"]
    assert client.llen(keys.queue("wakaka")) == 0
    wait_for(lambda: client.zcard(keys.registry("wip", "wakaka")) == 0, 60)  # the horse is gone
    assert len(rig.json("results", "--coverage")) <= summary["chunks"]["done"]
    assert rig.json("resume", "--all") == {"scans": 0, "enqueued": 0}
    again = rig.run("cancel", scan_id)
    assert (again.returncode, "0 queued and 0 running" in again.stdout) == (0, True)


def test_cancel_while_redis_is_away_holds_when_it_is_back(rig, client, redis_server):
    planned = rig.json("scan", *SHORT, "--no-wait")
    redis_server.kill()
    done = rig.run("cancel", planned["scan_id"], "--json")
    assert done.returncode == 0, done.stderr
    assert "dropped once Redis is back" in done.stderr
    total = planned["chunks"]["total"]
    assert json.loads(done.stdout)["cancelled"] == {"queued": total, "running": 0}
    redis_server.start()
    assert client.llen(keys.queue("wakaka")) == total
    assert rig.json("resume", "--all") == {"scans": 1, "enqueued": 0}
    assert client.llen(keys.queue("wakaka")) == 0
    assert rig.json("resume", planned["scan_id"]) == {"scans": 1, "enqueued": total}
    rig.worker("wakaka")
    wait_for(lambda: state_of(rig, planned["scan_id"]) == "finished", 60)


def test_cancel_by_a_host_without_redis_reaches_the_fleet(rig, client):
    busy = rig.json("scan", *LONG, "--no-wait")
    worker = rig.worker("wakaka", "--concurrency", "1")
    worker.wait_for_event("job_started")
    waiting = rig.json("scan", *SHORT, "--no-wait")["scan_id"]
    # A look of the fleet may come between the two: what waits is cancelled first.
    for scan_id in (waiting, busy["scan_id"]):
        done = rig.run("cancel", scan_id, RQSCAN_REDIS_URL="redis://127.0.0.1:1")
        assert done.returncode == 0, done.stderr
    (look,) = client.keys(keys.look("*"))
    client.delete(look)  # a minute has passed
    wait_for(lambda: not client.exists(keys.queue("wakaka")), 30)
    wait_for(lambda: client.zcard(keys.registry("wip", "wakaka")) == 0, 30)
    wait_for(lambda: client.zcard(keys.SCANS) == 0, 30)
    assert {event["job"].rsplit("-", 2)[0] for event in worker.events if "job" in event} == {
        busy["scan_id"]
    }


def test_another_store_is_told_once(rig, client):
    client.hset(keys.STORE, "store_id", "an-older-one")
    done = rig.run("scan", *SHORT, "--no-wait")
    assert "the fleet's store was an-older-one" in done.stderr
    assert "the fleet's store" not in rig.run("scan", *SHORT, "--no-wait").stderr
