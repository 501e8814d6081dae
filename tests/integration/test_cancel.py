"""Cancelling a scan: in the plan, in its queue, and where it runs."""

import json

import pytest

from rqscan.broker import chunks as jobs
from rqscan.broker import keys
from rqscan.broker.queues import ScanQueue
from rqscan.model import Counts
from rqscan.scan.cancel import cancel
from rqscan.scan.compare import compare
from rqscan.scan.progress import read_progress
from rqscan.scan.submit import submit
from rqscan.states import ChunkState, ScanState
from rqscan.store.migrate import open_current
from rqscan.store.repository import Repository
from tests.plans import a_plan, a_record, number_of
from tests.scripted import ScriptedWorker

QUEUE = keys.queue("wakaka")


@pytest.fixture
def client(redis_server):
    return redis_server.client()


@pytest.fixture
def store(settings):
    with open_current(settings) as database:
        yield Repository(database)


@pytest.fixture
def worker(client):
    scripted = ScriptedWorker(client, "w1")
    scripted.beat()
    return scripted


def submitted(settings, client, scan_id="s1", count=3):
    submit(a_plan(scan_id, count), settings=settings, client=client)


def cancelled(settings, client, scan_id="s1"):
    done = cancel(settings, client, scan_id)
    return done.state, done.queued, done.running


def test_waiting_jobs_go_and_nothing_of_them_stays(settings, client, store):
    submitted(settings, client)
    assert cancelled(settings, client) == ("cancelled", 3, 0)
    assert not client.exists(QUEUE)
    assert client.keys("rq:job:*") == []
    assert read_progress(client, "s1").chunks == Counts(3, 0, 0, 3)
    assert read_progress(client, "s1").state == ScanState.CANCELLED
    assert store.progress("s1").state == ScanState.CANCELLED
    assert client.zcard(keys.SCANS) == 0
    assert cancelled(settings, client) == ("cancelled", 0, 0)
    assert compare(settings, client)[:2] == (0, 0)
    submit(a_plan(), settings=settings, client=client)  # as a scheduler would again
    assert not client.exists(QUEUE)


def test_scans_whose_ids_begin_alike_are_told_apart(settings, client):
    names = ["a", "a-1", "a-1-1", "1"]
    for name in names:
        submitted(settings, client, name)
    assert cancelled(settings, client, "a") == ("cancelled", 3, 0)
    assert cancelled(settings, client, "a-1") == ("cancelled", 3, 0)
    left = client.lrange(QUEUE, 0, -1)
    assert sorted(left) == [b"1-0-1", b"1-1-1", b"1-2-1", *(b"a-1-1-%d-1" % n for n in range(3))]
    assert len(client.keys("rq:job:*")) == 6


def test_the_jobs_of_others_keep_their_order(settings, client, monkeypatch):
    monkeypatch.setattr(jobs, "STRETCH", 7)
    queue = ScanQueue("wakaka", connection=client)
    order = []
    for n in range(4):
        submitted(settings, client, f"a-{n}", 10)
        order.append(queue.enqueue("math.gcd", 4, n).id)
    kept = [name for name in client.lrange(QUEUE, 0, -1) if not name.startswith(b"a-1-")]
    assert len(kept) == 34
    assert cancelled(settings, client, "a-1") == ("cancelled", 10, 0)
    assert client.lrange(QUEUE, 0, -1) == kept
    assert [name.decode() for name in kept if not name.startswith(b"a-")] == order


def test_a_running_job_is_stopped_and_its_late_end_changes_nothing(settings, client, worker, store):
    submitted(settings, client)
    (job,) = worker.claim(1)
    with client.pubsub(ignore_subscribe_messages=True) as heard:
        heard.subscribe("rq:pubsub:w1")
        heard.get_message(timeout=5)
        assert cancelled(settings, client) == ("cancelled", 2, 1)
        message = heard.get_message(timeout=5)
        assert json.loads(message["data"]) == {"command": "stop-job", "job_id": job}
    assert client.hget(keys.job(job), "status") == b"canceled"
    assert 0 < client.ttl(keys.job(job)) <= jobs.STOPPED_TTL_S
    assert not store.record(a_record(number_of(job)))
    worker.end(job, "finished", answer=b"fenced")
    assert read_progress(client, "s1").chunks == Counts(3, 0, 0, 3)
    assert client.hget(keys.job(job), "status") == b"canceled"
    assert client.zcard(keys.registry("wip", "wakaka")) == 0
    assert worker.claim(3) == []


def test_what_has_finished_stays_and_an_ended_scan_has_nothing_to_cancel(
    settings, client, worker, store
):
    submitted(settings, client)
    for job in worker.claim(3):
        store.record(a_record(number_of(job)))
        if number_of(job):
            worker.end(job, "finished")
    assert cancelled(settings, client) == ("finished", 0, 0)
    worker.end(next(iter(worker.jobs)), "finished")  # recorded before, told after
    assert read_progress(client, "s1").state == ScanState.FINISHED


def test_a_job_that_is_to_be_tried_again_is_cancelled(settings, client, worker, store):
    submitted(settings, client)
    first, second, _ = worker.claim(3)
    for job in (first, second):
        store.record(a_record(number_of(job), state=ChunkState.FAILED))
        worker.end(job, "retry", answer=b"queued")
    client.lrem(QUEUE, 0, second)  # one waits for its time
    client.hset(keys.job(second), "status", "scheduled")
    client.zadd(keys.registry("scheduled", "wakaka"), {second: 1e10})
    assert cancelled(settings, client) == ("cancelled", 2, 1)
    assert not client.exists(QUEUE, keys.registry("scheduled", "wakaka"))
    assert store.progress("s1").chunks == Counts(3, 0, 0, 3)
    assert read_progress(client, "s1").chunks == Counts(3, 0, 0, 3)


def test_an_end_between_plan_and_redis_counts_as_cancelled(settings, client, worker):
    submitted(settings, client)
    (job,) = worker.claim(1)
    cancel(settings, None, "s1")
    worker.end(job, "failed", "FailedError: the rows were not taken")
    assert client.zcard(keys.registry("failed", "wakaka")) == 1
    assert cancelled(settings, client) == ("cancelled", 2, 0)
    assert read_progress(client, "s1").chunks == Counts(3, 0, 0, 3)
    assert client.zcard(keys.registry("failed", "wakaka")) == 0


def test_a_failed_job_of_a_scan_that_redis_has_forgotten_leaves_nothing(settings, client, worker):
    submitted(settings, client, count=1)
    (job,) = worker.claim(1)
    worker.end(job, "failed")
    client.delete(keys.progress("s1"), keys.ended("s1"))  # a day later
    cancelled(settings, client)
    assert client.keys("rqscan:scan:*") == client.keys("rq:job:*") == []


def test_cancelled_without_redis_the_jobs_go_when_it_is_compared(settings, client, worker):
    submitted(settings, client)
    (job,) = worker.claim(1)
    done = cancel(settings, None, "s1")
    assert (done.state, done.queued, done.running, done.is_redis_told) == ("cancelled", 3, 0, False)
    assert len(client.lrange(QUEUE, 0, -1)) == 2
    assert compare(settings, client)[:2] == (1, 0)
    assert not client.exists(QUEUE)
    assert client.hget(keys.job(job), "status") == b"canceled"
    assert read_progress(client, "s1").state == ScanState.CANCELLED


def test_cancelled_while_redis_was_unreachable_the_jobs_go_when_the_plan_is_looked_at(
    settings, client, worker
):
    submitted(settings, client)
    (job,) = worker.claim(1)
    cancel(settings, None, "s1")
    client.zadd(keys.SCANS, {"of-another-store": 1})
    assert compare(settings, client, unenqueued_for_s=60)[:2] == (1, 0)
    assert not client.exists(QUEUE)
    assert client.hget(keys.job(job), "status") == b"canceled"
    assert read_progress(client, "s1").state == ScanState.CANCELLED
    assert compare(settings, client, unenqueued_for_s=60)[:2] == (0, 0)


def test_cancelled_stays_cancelled_when_redis_comes_back_empty(settings, client, store):
    submitted(settings, client)
    submitted(settings, client, "s2", 1)
    cancel(settings, client, "s1")
    client.flushall()
    assert compare(settings, client)[:2] == (1, 1)
    assert client.lrange(QUEUE, 0, -1) == [b"s2-0-2"]
    assert store.progress("s1").state == ScanState.CANCELLED
