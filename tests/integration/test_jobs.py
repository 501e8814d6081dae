"""ScanJob and ScanQueue against RQ's own classes."""

import pickle
import zlib

import pytest
import rq
from rq.executions import Execution
from rq.job import Job
from rq.registry import FailedJobRegistry, FinishedJobRegistry, StartedJobRegistry
from rq.results import Result
from rq.utils import now

from rqscan.broker import keys
from rqscan.broker.jobs import ScanJob
from rqscan.broker.payload import JsonSerializer, job_id
from rqscan.broker.queues import ScanQueue, declared
from rqscan.errors import RefusedPayloadError, UsageError
from rqscan.fleet.stable import outcomes
from rqscan.fleet.stable.wire import Assignment
from rqscan.model import Chunk
from rqscan.settings import QueueSettings


@pytest.fixture
def client(redis_server):
    with redis_server.client() as found:
        yield found


def chunk(number=0):
    return Chunk(scan_id="s-1", chunk=number, kind="ports", targets=["127.0.0.1"], params={})


def test_our_names_of_rqs_keys_are_rqs(client):
    queue, worker = rq.Queue("q", connection=client), rq.Worker(["q"], connection=client)
    assert keys.queue("q") == queue.key
    assert keys.job("j") == Job.key_for("j")
    assert rq.Queue.redis_queues_keys == keys.QUEUES
    assert keys.worker(worker.name) == worker.key
    assert keys.executions_of(worker.name) == worker.executions_key
    assert keys.results("j") == Result.get_key("j")
    for state, registry in (
        ("wip", StartedJobRegistry),
        ("finished", FinishedJobRegistry),
        ("failed", FailedJobRegistry),
    ):
        assert keys.registry(state, "q") == registry("q", connection=client).key
    execution = Execution(id="t", job_id="j", connection=client)
    assert execution.key == "rq:execution:j:t"


@pytest.mark.parametrize("name", ["os.system", "rqscan.config.load"])
def test_a_job_refuses_to_give_a_function_that_is_not_allowed(client, name):
    job = ScanJob.create(name, connection=client)
    with pytest.raises(RefusedPayloadError, match=name):
        job.func  # noqa: B018


@pytest.mark.parametrize("callback", ["success", "failure", "stopped"])
def test_a_job_refuses_to_give_a_callback_that_is_not_allowed(client, callback):
    job = ScanJob.create("math.gcd", connection=client)
    setattr(job, f"_{callback}_callback_name", "os.system")
    with pytest.raises(RefusedPayloadError, match=r"os\.system"):
        getattr(job, f"{callback}_callback")


def test_a_job_never_reads_pickle(client, tmp_path):
    trap = tmp_path / "trap"

    class Trap:
        def __reduce__(self):
            return (trap.touch, ())

    job = ScanJob.create("math.gcd", connection=client)
    job.save()
    client.hset(job.key, "data", zlib.compress(pickle.dumps(Trap())))
    with pytest.raises(RefusedPayloadError):
        ScanJob.fetch(job.id, connection=client).func  # noqa: B018
    assert not trap.exists()


def test_chunks_are_enqueued_once_and_read_by_rq(client):
    queue = ScanQueue("wakaka", connection=client)
    for is_put in (True, False):
        put = queue.enqueue_chunks([chunk(0), chunk(1)], QueueSettings())
        assert list(put) == [(0, is_put), (1, is_put)]
    theirs = rq.Queue("wakaka", connection=client, serializer="json")
    assert theirs.count == 2
    assert theirs.job_ids == [job_id("s-1", 0, 1), job_id("s-1", 1, 1)]
    job = theirs.jobs[0]
    assert job.get_status() == "queued"
    assert job.kwargs["targets"] == ["127.0.0.1"]
    assert job.timeout == 3600
    assert (now() - job.enqueued_at).total_seconds() < 60
    assert client.llen(keys.bell("wakaka")) == 1


def test_plain_enqueue_on_our_queue_rings_the_bell(client):
    queue = ScanQueue("wakaka", connection=client)
    for _ in range(3):
        queue.enqueue("math.gcd", 4, 6)
    assert client.llen(keys.bell("wakaka")) == 1
    assert queue.count == 3


def test_result_entries_have_the_fields_that_rq_writes(client):
    assignment = Assignment(
        queue="q", job_id="j", token="t", attempt=1, data=b"", worker="w", clock_offset_s=0,
        timeout_s=1, result_ttl_s=1, failure_ttl_s=1,
    )  # fmt: skip
    for kind, ours, value in (
        (Result.Type.SUCCESSFUL, outcomes.success(assignment, [1], 0.1), {"return_value": [1]}),
        (Result.Type.FAILED, outcomes.failure(assignment, OSError("x"), 0.1), {"exc_string": "x"}),
    ):
        theirs = Result(
            "j", kind, client, worker_name="w", serializer=JsonSerializer, execution_id="t",
            execution_started_at=now(), execution_ended_at=now(), **value,
        ).serialize()  # fmt: skip
        assert ours.result.keys() == theirs.keys()
        assert ours.result["type"] == theirs["type"]
        assert ours.result.get("return_value") == theirs.get("return_value")


def test_an_undeclared_queue_is_named_with_those_that_are(settings):
    with pytest.raises(UsageError, match=r"queue 'wakaak' .*declared: 'default', 'wakaka'"):
        declared(settings, "wakaak")
