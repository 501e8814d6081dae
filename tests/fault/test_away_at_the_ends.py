"""Redis is away when a worker or scheduler starts, and when a worker stops."""

import json
from pathlib import Path

import pytest
import rq
from rq.serializers import JSONSerializer

from rqscan.broker import keys
from rqscan.broker.queues import ScanQueue
from tests.servers import wait_for

ALLOW = {"RQSCAN_ALLOW_FUNCTIONS": "time.sleep"}


@pytest.fixture
def client(redis_server):
    with redis_server.client() as found:
        yield found


def presence(client, name):
    raw = client.get(keys.record(name))
    return json.loads(raw) if raw else {}


@pytest.mark.parametrize("script", ["worker.py", "scheduler.py"])
def test_what_starts_without_redis_waits_for_it(rig, redis_server, script):
    redis_server.stop()
    waiting = rig.start(script, "--log-json", **ALLOW)
    waiting.wait_for_event("redis_lost")
    redis_server.start()
    waiting.wait_for_event("redis_back")
    waiting.wait_for_event(f"{script.removesuffix('.py')}_started")
    assert waiting.stop() == 0
    assert len(waiting.of("redis_lost")) == 1


def test_what_waits_for_redis_can_be_stopped(rig, redis_server):
    redis_server.stop()
    waiting = rig.start("worker.py", "--log-json")
    waiting.wait_for_event("redis_lost")
    assert waiting.stop() == 0


def test_a_refused_password_is_not_waited_for(rig, redis_server):
    with redis_server.client() as client:
        client.config_set("requirepass", "right")
    done = rig.run("worker", RQSCAN_REDIS_URL=f"unix://:wrong@{redis_server.socket}")
    assert done.returncode == 3
    assert "wrong" not in done.stderr.replace("WRONGPASS", "")


def test_an_end_that_redis_missed_outlives_the_worker(rig, redis_server, client):
    may_run = {"RQSCAN_ALLOW_FUNCTIONS": "os.system"}
    first = rig.worker("default", "--name", "w1", "--concurrency", "1", **may_run)
    begun = rig.folder / "begun"
    job = ScanQueue("default", connection=client).enqueue("os.system", f"touch {begun}; sleep 2")
    wait_for(begun.exists, 30)
    redis_server.stop()
    first.wait_for_event("redis_lost")
    assert first.stop() == 0  # a warm stop: the job ends meanwhile
    (kept,) = Path(rig.env["RQSCAN_HOME"], "ends").iterdir()
    redis_server.start()
    second = rig.worker("default", "--name", "w1", "--concurrency", "1", **may_run)
    second.wait_for_event("job_finished")
    assert job.get_status() == "finished"
    assert int(client.hget(job.key, "rqscan_attempt")) == 1
    assert client.xlen(keys.results(job.id)) == 1
    wait_for(lambda: not kept.exists(), 30)
    assert second.stop() == 0


def test_a_broken_file_of_ends_is_told_and_left_alone(rig):
    folder = Path(rig.env["RQSCAN_HOME"], "ends")
    folder.mkdir()
    (folder / "x.ends").write_bytes(b"no file of ours")
    worker = rig.worker("default")
    assert worker.wait_for_event("ends_unreadable")["file"].endswith("x.ends")
    assert worker.stop() == 0
    assert (folder / "x.ends").exists()


def test_stock_rq_is_heard_without_a_bell(rig, client):
    worker = rig.worker("default", "wakaka", "--concurrency", "1", **ALLOW)
    wait_for(lambda: client.exists(keys.SWEEPER), 30)
    for name in ("default", "wakaka", "default"):
        queue = rq.Queue(name, connection=client, serializer=JSONSerializer)
        job = queue.enqueue("time.sleep", 0)
        wait_for(lambda job=job: job.get_status() == "finished", 30)
        assert not client.exists(keys.bell(name))
    assert worker.stop() == 0


def test_a_worker_of_another_store_claims_nothing_and_says_both(rig, client):
    scan = rig.json("scan", "127.0.0.1", "-p", "1", "--no-wait")["scan_id"]
    here = client.hget(keys.STORE, "store_id").decode()
    stranger = rig.worker(
        "default", "--name", "stranger", RQSCAN_DATABASE_URL=f"sqlite:///{rig.folder}/other.db"
    )
    said = stranger.wait_for_event("mismatched")["reason"]
    assert here in said
    wait_for(lambda: presence(client, "stranger").get("state") == "mismatched", 30)
    assert presence(client, "stranger")["mismatch"] == said
    assert not client.exists(keys.SWEEPER)
    assert client.llen(keys.queue("default")) == 1
    good = rig.worker("default", "--name", "good")
    good.wait_for_event("job_finished")
    (shown,) = rig.json("scans")
    assert (shown["scan_id"], shown["state"]) == (scan, "finished")
    client.hset(keys.STORE, "store_id", presence(client, "stranger")["store_id"])  # it moved
    wait_for(lambda: presence(client, "good")["state"] == "mismatched", 30)
    wait_for(lambda: presence(client, "stranger")["state"] == "idle", 30)


def test_a_worker_of_another_protocol_claims_nothing(rig, client):
    client.hset(keys.STORE, mapping={"protocol": 99})
    worker = rig.worker("default", **ALLOW)
    job = ScanQueue("default", connection=client).enqueue("time.sleep", 0)
    assert "99" in worker.wait_for_event("mismatched")["reason"]
    client.hset(keys.STORE, mapping={"protocol": 1})
    wait_for(lambda: job.get_status() == "finished", 30)
