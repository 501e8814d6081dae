"""Moments and contents that a worker must outlive: each of these once ended it, or lost a job."""

import contextlib
import json
import signal
import sqlite3
import zlib
from contextlib import closing

import psutil
import pytest

from rqscan.broker import keys
from rqscan.broker.jobs import ScanJob
from rqscan.broker.payload import RUN_CHUNK
from rqscan.broker.queues import ScanQueue
from tests.servers import wait_for

ALLOW = {"RQSCAN_ALLOW_FUNCTIONS": "time.sleep,math.gcd"}


@pytest.fixture
def client(redis_server):
    with redis_server.client() as found:
        yield found


def runs_on(client, queue="default"):
    """Tell whether a job put in now is run."""
    job = ScanQueue(queue, connection=client).enqueue("math.gcd", 4, 6)
    return wait_for(job.latest_result, 30).return_value == 2


def calls(client, name):
    return client.info("commandstats").get(f"cmdstat_{name}", {"calls": 0})["calls"]


def test_a_queue_at_its_limit_does_not_make_workers_spin(rig, client):
    (rig.folder / "rqscan.toml").write_text("[queues.slow]\nconcurrency = 1\n")
    worker = rig.worker("slow", "--concurrency", "2", **ALLOW)
    queue = ScanQueue("slow", connection=client)
    first, second = queue.enqueue("time.sleep", 5), queue.enqueue("time.sleep", 0)
    worker.wait_for_event("job_started")
    before = calls(client, "evalsha")
    wait_for(lambda: second.get_status() == "finished", 30)
    assert first.get_status() == "finished"  # one after the other
    assert calls(client, "evalsha") - before < 100


def test_a_suspended_fleet_does_not_spin_and_goes_on_when_resumed(rig, client):
    client.set(keys.SUSPENDED, "1")
    rig.worker("default", **ALLOW)
    job = ScanQueue("default", connection=client).enqueue("math.gcd", 4, 6)
    wait_for(lambda: client.zcard(keys.PRESENCE), 30)
    before, until = calls(client, "evalsha"), client.time()[0] + 3
    wait_for(lambda: client.time()[0] >= until)
    assert calls(client, "evalsha") - before < 30
    assert job.get_status() == "queued"
    client.delete(keys.SUSPENDED)
    wait_for(lambda: job.get_status() == "finished", 30)


def test_what_redis_refuses_for_a_while_is_neither_lost_nor_doubled(rig, client):
    worker = rig.worker("default", "--concurrency", "1", **ALLOW)
    job = ScanQueue("default", connection=client).enqueue("time.sleep", 3)
    worker.wait_for_event("job_started")
    client.config_set("min-replicas-to-write", 1)  # as a full disk does: writes are refused
    worker.wait_for_event("redis_lost")
    worker.wait_for_event("redis_refused")  # the job's end
    client.config_set("min-replicas-to-write", 0)
    wait_for(lambda: job.get_status() == "finished", 30)
    worker.wait_for_event("redis_back")
    assert len(worker.of("redis_lost")) == len(worker.of("redis_back")) == 1
    assert client.hget(job.key, "rqscan_attempt") == b"1"
    assert runs_on(client)


def test_nobody_is_rescued_from_while_redis_has_no_memory(rig, client):
    workers = [
        rig.worker("default", "--concurrency", "1", "--name", name, **ALLOW) for name in ("a", "b")
    ]
    queue = ScanQueue("default", connection=client)
    jobs = [queue.enqueue("time.sleep", 20) for _ in workers]
    for worker in workers:
        worker.wait_for_event("job_started")
    wait_for(lambda: client.get(keys.DEPUTY), 30)
    client.config_set("maxmemory", "1mb")
    for worker in workers:
        worker.wait_for_event("redis_lost")
    until = client.time()[0] + 8  # longer than worker.lease_s
    wait_for(lambda: client.time()[0] >= until)
    client.config_set("maxmemory", 0)
    wait_for(lambda: all(job.get_status() == "finished" for job in jobs), 60)
    assert [client.hget(job.key, "rqscan_attempt") for job in jobs] == [b"1", b"1"]
    assert not client.hget(keys.COUNTERS, "rescued")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("timeout", "abc"),
        ("timeout", "9" * 400),
        ("result_ttl", "1.5"),
        ("failure_ttl", ""),
        ("rqscan_kind", b"\xff"),
        ("origin", b"\xff"),
        ("data", b""),
    ],
)
def test_an_odd_field_of_a_job_does_not_end_the_worker(rig, client, field, value):
    job = ScanQueue("default", connection=client).enqueue("math.gcd", 4, 6)
    client.hset(job.key, field, value)
    worker = rig.worker("default", **ALLOW)
    worker.wait_for_event("job_started")
    assert runs_on(client)
    assert worker.process.poll() is None


def test_the_death_of_the_template_is_no_death_of_its_own_horse_and_leaves_nothing(rig, client):
    worker = rig.worker(
        "default", "--concurrency", "1", RQSCAN_ALLOW_FUNCTIONS="os.system,math.gcd"
    )
    job = ScanQueue("default", connection=client).enqueue("os.system", "exec sleep 77")
    worker.wait_for_event("job_started")

    def sleeper():
        found = psutil.Process(worker.process.pid).children(recursive=True)
        with contextlib.suppress(psutil.Error):  # a child that ends meanwhile
            return [process for process in found if process.cmdline()[-1:] == ["77"]]

    (sleeping,) = wait_for(sleeper, 30)
    template = sleeping.parent().parent()
    template.send_signal(signal.SIGKILL)
    worker.wait_for_event("job_lost")
    wait_for(lambda: not sleeping.is_running(), 30)
    worker.wait_for_event("job_started", count=2)
    assert not client.hexists(job.key, "rqscan_lost")


def test_a_stop_while_a_claim_is_on_its_way_gives_back_what_it_took(rig, client, redis_server):
    worker = rig.worker("default", "--concurrency", "1", **ALLOW)
    wait_for(lambda: client.zcard(keys.PRESENCE), 30)
    queue = ScanQueue("default", connection=client)
    for _ in range(10):
        job = queue.enqueue("time.sleep", 0)
        worker.wait_for_event("job_started")
    worker.process.send_signal(signal.SIGTERM)
    assert worker.process.wait(60) == 0
    assert job.get_status() in {"finished", "queued"}
    assert client.zcard(keys.registry("wip", "default")) == 0


def test_of_two_workers_that_begin_at_once_under_one_name_one_stays(rig, client):
    first = rig.start("worker.py", "default", "--name", "same", "--log-json", **ALLOW)
    second = rig.start("worker.py", "default", "--name", "same", "--log-json", **ALLOW)

    def ended():
        return [one for one in (first, second) if one.process.poll() is not None]

    (loser,) = wait_for(ended, 60)
    assert loser.process.returncode == 1
    assert "name 'same'" in loser.log.read_text()
    assert runs_on(client)
    assert len(ended()) == 1


@pytest.mark.parametrize(
    "change",
    [
        {"chunk": 999},
        {"scan_id": "other"},
        {"generation": 99},
        {"kind": "nope"},
        {"params": {"ports": "70000"}},
        {"params": {"evil": 1}},
        {"params": None},
    ],
)
def test_a_payload_that_does_not_agree_with_its_job_is_refused(rig, client, change):
    done = rig.json("scan", "127.0.0.1", "-p", "1-10", "--no-wait")
    job = ScanJob.fetch(f"{done['scan_id']}-0-1", connection=client)
    payload = [RUN_CHUNK, None, [], job.kwargs | change]
    client.hset(job.key, "data", zlib.compress(json.dumps(payload).encode()))
    worker = rig.worker("default")
    worker.wait_for_event("job_refused")
    assert client.hget(keys.COUNTERS, "refused") == b"1"


def test_rows_that_the_store_does_not_take_fail_the_scan(rig):
    done = rig.json("scan", "127.0.0.1", "-p", "1-10", "--no-wait")
    with closing(sqlite3.connect(f"{rig.env['RQSCAN_HOME']}/rqscan.db")) as database:
        database.execute("DELETE FROM chunks")  # as an old copy of the database has it
        database.commit()
    worker = rig.worker("default")
    failed = worker.wait_for_event("job_failed")
    assert "were not taken" in failed["error"]
    assert done["scan_id"] in failed["error"]


def test_a_home_with_odd_characters_works(rig, tmp_path):
    del rig.env["RQSCAN_REDIS_URL"]
    rig.env["RQSCAN_HOME"] = f"/tmp/rq {tmp_path.name[:20]}#%20?"
    rig.worker("default", "--burst").process.wait(60)
    worker = rig.worker("default")
    assert rig.json("scan", "127.0.0.1", "-p", "1-5")["state"] == "finished"
    assert worker.stop() == 0


def test_a_name_is_free_when_another_client_has_the_dead_workers_id(rig, client, redis_server):
    worker = rig.worker("default", "--name", "w1")
    record = json.loads(wait_for(lambda: client.get(keys.record("w1")), 30))
    worker.process.kill()
    worker.process.wait()
    strangers = [redis_server.client() for _ in range(3)]
    for stranger in strangers:
        stranger.ping()
    a_living_id = strangers[0].client_id()
    client.set(keys.record("w1"), json.dumps(record | {"client_id": a_living_id}))
    rig.worker("default", "--name", "w1").wait_for_event("worker_started")
    for stranger in strangers:
        stranger.close()
