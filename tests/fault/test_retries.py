"""Failed jobs are tried again, later and later, and as often as they may."""

import json
import sqlite3
import zlib
from pathlib import Path

import pytest
from rq.registry import ScheduledJobRegistry

from rqscan.broker import keys
from rqscan.broker.jobs import ScanJob
from rqscan.broker.payload import RUN_CHUNK
from rqscan.broker.queues import ScanQueue
from tests.servers import wait_for

BACKOFF = "RQSCAN_QUEUES_DEFAULT_RETRY_BACKOFF_S"
RETRIES = "RQSCAN_QUEUES_DEFAULT_RETRIES"


@pytest.fixture
def client(redis_server):
    with redis_server.client() as found:
        yield found


def submit(rig, kind, said, *options):
    rig.use_odd_kinds()
    done = rig.json("scan", "127.0.0.1", "--kind", kind, "-p", said, "--no-wait", *options)
    return done["scan_id"]


def stored(rig, scan_id):
    (database,) = Path(rig.env["RQSCAN_HOME"]).glob("*.db")
    with sqlite3.connect(database) as connection:
        question = "SELECT state, error, attempt FROM chunks WHERE scan_id = ?"
        return connection.execute(question, [scan_id]).fetchone()


def test_a_flaky_chunk_waits_visibly_and_succeeds_and_its_scan_never_looked_ended(rig, client):
    scan_id = submit(rig, "flaky", "2")  # its kind may be tried again twice
    worker = rig.worker("default", "--concurrency", "1", **{BACKOFF: "2"})
    worker.wait_for_event("job_retried")
    job = ScanJob.fetch(f"{scan_id}-0-1", connection=client)
    assert job.get_status() == "scheduled"
    registry = ScheduledJobRegistry("default", connection=client)
    assert registry.get_job_ids() == [job.id]
    due_in = registry.get_scheduled_time(job.id).timestamp() - client.time()[0]
    assert 0 < due_in < 4
    assert "try 1 fails" in job.latest_result().exc_string
    assert b"try 1 fails" in zlib.decompress(client.hget(job.key, "exc_info"))
    assert stored(rig, scan_id)[0] == "planned"
    assert "try 1 fails" in stored(rig, scan_id)[1]
    (scan,) = rig.json("scans")
    assert scan["state"] == "running"
    assert scan["finished_at"] is None
    wait_for(lambda: client.hexists(keys.progress(scan_id), "finished_at"), 60)
    first, second = worker.of("job_retried")
    assert first["again_in_s"] < second["again_in_s"]  # doubled, and the jitter is less
    assert [first["failures"], second["failures"]] == [1, 2]
    assert stored(rig, scan_id) == ("finished", None, 3)
    assert rig.json("scans")[0]["state"] == "finished"
    assert client.hget(job.key, "rqscan_failures") == b"2"
    assert worker.stop() == 0
    (stopped,) = worker.of("worker_stopped")
    assert (stopped["done"], stopped["failed"]) == (1, 0)


def test_a_chunk_that_goes_on_failing_fails_after_its_kinds_retries(rig, client):
    scan_id = submit(rig, "flaky", "9")
    worker = rig.worker("default", "--concurrency", "1", **{BACKOFF: "0", RETRIES: "7"})
    failed = worker.wait_for_event("job_failed")
    assert "try 3 fails" in failed["error"]
    assert len(worker.of("job_retried")) == 2
    job = ScanJob.fetch(f"{scan_id}-0-1", connection=client)
    assert [r.type.name for r in job.results()] == ["FAILED"] * 3
    assert stored(rig, scan_id) == ("failed", "OSError: try 3 fails", 3)
    assert client.hget(keys.progress(scan_id), "failed") == b"1"


@pytest.mark.parametrize("kind", ["wrong", "no_such_kind"])
def test_what_cannot_succeed_is_not_tried_again(rig, client, kind):
    scan_id = submit(rig, "wrong", "1")
    if kind != "wrong":
        job = ScanJob.fetch(f"{scan_id}-0-1", connection=client)
        payload = [RUN_CHUNK, None, [], job.kwargs | {"kind": kind}]
        client.hset(job.key, "data", zlib.compress(json.dumps(payload).encode()))
    worker = rig.worker("default", "--concurrency", "1", **{RETRIES: "5"})
    worker.wait_for_event("job_failed" if kind == "wrong" else "job_refused")
    assert not worker.of("job_retried")
    assert client.zcard(keys.registry("failed", "default")) == 1


def test_a_plain_function_is_tried_again_as_its_queue_says_and_losses_do_not_count(rig, client):
    allow = {"RQSCAN_ALLOW_FUNCTIONS": "os.kill,os.stat,signal.raise_signal"}
    queue = ScanQueue("default", connection=client)
    failing = queue.enqueue("os.stat", "/no/such/file")
    dying = queue.enqueue("signal.raise_signal", 9)
    worker = rig.worker("default", "--concurrency", "1", **allow, **{RETRIES: "1", BACKOFF: "0.5"})
    wait_for(lambda: failing.get_status() == dying.get_status() == "failed", 60)
    assert client.hget(failing.key, "rqscan_failures") == b"2"
    assert len(worker.of("job_retried")) == 1
    assert not client.hexists(dying.key, "rqscan_failures")
    assert client.hget(dying.key, "rqscan_lost") == b"3"


def test_a_job_that_is_due_goes_to_the_end_of_its_queue_and_a_cancelled_one_nowhere(rig, client):
    queue = ScanQueue("default", connection=client)
    allow = {"RQSCAN_ALLOW_FUNCTIONS": "math.gcd"}
    registry = keys.registry("scheduled", "default")
    due, cancelled = (queue.create_job("math.gcd", args=(4, 6)) for _ in range(2))
    for job, status in ((due, "scheduled"), (cancelled, "canceled")):
        job.save()
        job.set_status(status)
        client.zadd(registry, {job.id: client.time()[0] - 1})
    rig.worker("default", "--concurrency", "1", **allow)
    wait_for(lambda: due.get_status() == "finished", 60)
    assert client.zcard(registry) == 0
    assert cancelled.get_status() == "canceled"


def test_ttls_of_a_scan_take_the_place_of_its_queues_and_0_keeps_nothing_in_redis(rig, client):
    kept = submit(rig, "flaky", "0", "--result-ttl", "100")
    gone = submit(rig, "flaky", "0", "--result-ttl", "0")
    failed = submit(rig, "wrong", "1", "--failure-ttl", "0")
    rig.worker("default", "--concurrency", "1")
    for scan_id in (kept, gone, failed):
        wait_for(lambda: client.hexists(keys.progress(scan_id), "finished_at"), 60)  # noqa: B023
    assert 0 < client.ttl(keys.job(f"{kept}-0-1")) <= 100
    assert client.zcard(keys.registry("finished", "default")) == 1
    assert client.zcard(keys.registry("failed", "default")) == 0
    for scan_id in (gone, failed):
        job = f"{scan_id}-0-1"
        assert not client.exists(keys.job(job), keys.results(job))
    assert len(rig.json("results", gone)) == 1
    assert stored(rig, failed)[0] == "failed"
    states = {scan["scan_id"]: scan["state"] for scan in rig.json("scans")}
    assert states == {kept: "finished", gone: "finished", failed: "failed"}
