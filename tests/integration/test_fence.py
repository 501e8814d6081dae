"""Attempts that come too late: what the store and Redis make of them."""

import msgspec
import pytest

from rqscan.broker import keys
from rqscan.broker.queues import ScanQueue
from rqscan.errors import FencedError, RefusedPayloadError
from rqscan.model import Counts
from rqscan.scan.cancel import cancel
from rqscan.scan.compare import compare
from rqscan.scan.progress import read_progress
from rqscan.scan.runner import Attempt, Runner
from rqscan.scan.submit import submit
from rqscan.settings import QueueSettings
from rqscan.states import ScanState
from rqscan.store.migrate import open_current
from rqscan.store.repository import Repository
from tests.plans import a_plan, a_record
from tests.scripted import ScriptedWorker


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


@pytest.fixture
def plan(settings, client):
    made = a_plan("s1", 1)
    submit(made, settings=settings, client=client)
    return made


@pytest.fixture
def run(settings):
    runner = Runner(settings)
    yield lambda chunk, number: runner.run(msgspec.to_builtins(chunk), Attempt(number))
    runner.close()


def test_an_attempt_ends_as_the_one_that_the_store_has_finished(plan, run, store):
    store.record(a_record(0, attempt=3, probes=9))  # and Redis was set back behind it
    (chunk,) = plan.chunks()
    told = {"observations": 0, "probes": 9}
    assert run(chunk, 2) == told
    unknown = msgspec.structs.replace(chunk, params={"ports": "none"})
    assert run(unknown, 2) == run(unknown, 4) == told  # it fails
    assert store.progress("s1").state == ScanState.FINISHED


def test_an_attempt_of_what_is_cancelled_is_fenced(settings, plan, run):
    (chunk,) = plan.chunks()
    cancel(settings, None, "s1")
    with pytest.raises(FencedError):
        run(chunk, 1)
    unknown = msgspec.structs.replace(chunk, params={"ports": "none"})
    with pytest.raises(RefusedPayloadError):
        run(unknown, 1)


def test_the_end_of_an_older_generation_counts_for_nothing(settings, client, plan, worker, store):
    (old,) = worker.claim(1)
    backup = client.dump(keys.job(old))
    client.delete(keys.job(old))
    assert compare(settings, client).enqueued == 1
    client.restore(keys.job(old), 0, backup)
    worker.end(old, "failed")
    assert read_progress(client, "s1").chunks == Counts(1)
    (new,) = worker.claim(1)
    store.record(a_record(0, generation=2))
    worker.end(new, "finished")
    assert read_progress(client, "s1").chunks == Counts(1, 1)
    assert client.ttl(keys.generations("s1")) > 0


def test_a_submitter_that_is_late_puts_no_older_generation(settings, client, plan):
    client.flushall()
    assert compare(settings, client).enqueued == 1
    late = ScanQueue("wakaka", connection=client)
    assert list(late.enqueue_chunks(plan.chunks(), QueueSettings())) == [(0, False)]
    assert client.lrange(late.key, 0, -1) == [b"s1-0-2"]
