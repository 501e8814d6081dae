"""RQ's own API and commands on our queues, workers and jobs."""

import contextlib
import subprocess
import sys
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread

import psutil
import pytest
from rq import Callback, Queue, Repeat, Retry, Worker
from rq.command import send_stop_job_command
from rq.defaults import CALLBACK_TIMEOUT
from rq.group import Group
from rq.job import Dependency
from rq.rate_limit import RateLimit, RateLimitRegistry
from rq.registry import StartedJobRegistry
from rq.results import Result
from rq.webhook import Webhook

from rqscan.broker import keys
from rqscan.broker.payload import JsonSerializer
from rqscan.broker.queues import ScanQueue
from rqscan.fleet.claims import CALLBACK_TIMEOUT_S
from tests import rq_functions
from tests.scripted import ScriptedWorker
from tests.servers import missing, wait_for

F = "tests.rq_functions."
JSON = "rq.serializers.JSONSerializer"
NAMES = [name for name, value in vars(rq_functions).items() if getattr(value, "__code__", None)]
ALLOW = {"RQSCAN_ALLOW_FUNCTIONS": ",".join(F + name for name in NAMES)}


@pytest.fixture
def client(redis_server):
    with redis_server.client() as found:
        yield found


@pytest.fixture
def queue(client):
    """Give RQ's own queue: what others enqueue by."""
    return Queue("default", connection=client, serializer="json")


@pytest.fixture
def worker(rig):
    scope = {"RQSCAN_SCOPE_DENY": "127.0.0.9"}
    return rig.worker("default", "--name", "w1", "--concurrency", "2", **ALLOW, **scope)


@pytest.fixture
def faketime():
    """Give a maker of environments in which a process' clock is wrong."""
    found = sorted(Path("/usr").glob("lib*/*/faketime/libfaketime.so.1"))
    library = str(found[0]) if found else missing("libfaketime")
    return lambda ahead: {
        "LD_PRELOAD": library, "FAKETIME": ahead, "FAKETIME_DONT_FAKE_MONOTONIC": "1",
    }  # fmt: skip


def notes(client):
    return [note.decode() for note in client.lrange(rq_functions.NOTES, 0, -1)]


def status(job):
    return job.get_status(refresh=True).value


def wait_until(job, wanted):
    wait_for(lambda: status(job) == wanted, 60, f"{job.description} to be {wanted}")


def rq_command(rig, client, *words, **env):
    url = f"unix://{client.connection_pool.connection_kwargs['path']}"
    return subprocess.run(
        [Path(sys.executable).with_name("rq"), *words, "--url", url],
        capture_output=True, text=True, check=True, timeout=60, cwd=rig.folder,
        env=rig.env | env,
    ).stdout  # fmt: skip


def test_a_function_runs_with_its_callbacks_and_leaves_its_result(worker, queue, client):
    good = queue.enqueue(F + "echo", [1, "a"], on_success=Callback(F + "succeeded"))
    bad = queue.enqueue(F + "fail", "so", on_failure=Callback(F + "failed"), meta={"mine": 1})
    wait_until(good, "finished")
    wait_until(bad, "failed")
    assert good.latest_result().return_value == [1, "a"]
    assert good.latest_result().worker_name == "w1"
    assert "ValueError: so" in bad.latest_result().exc_string
    assert bad.get_meta() == {"mine": 1}
    assert sorted(notes(client)) == ["failed ValueError so", "succeeded [1, 'a'] finished"]
    [seen] = Worker.all(connection=client, serializer="json")
    wait_for(lambda: seen.refresh() or seen.successful_job_count == 1, 30)
    assert (seen.failed_job_count, seen.queue_names()) == (1, ["default"])


def test_a_function_knows_its_job_and_keeps_meta(worker, queue, client):
    job = queue.enqueue(F + "keep_meta", meta={"mine": 1})
    wait_until(job, "finished")
    assert job.get_meta() == {"mine": 1, "seen_as": job.id}


def test_only_a_plain_function_starts_the_full_template(worker, queue, client):
    def templates():
        titles = []
        for child in psutil.Process(worker.process.pid).children():
            with contextlib.suppress(psutil.NoSuchProcess):  # an errand has ended
                titles.append(" ".join(child.cmdline()).strip())
        return sorted(title for title in titles if title.startswith("rqscan template"))

    wait_for(lambda: templates() == ["rqscan template light"], 30)
    wait_until(queue.enqueue(F + "echo", 1), "finished")
    assert templates() == ["rqscan template full", "rqscan template light"]


def test_dependents_run_when_what_they_wait_for_has_ended(worker, queue, client):
    other = Queue("default", connection=client, serializer="json")
    first = queue.enqueue(F + "hold", "a")
    second = other.enqueue(F + "echo", 2, depends_on=first)
    third = queue.enqueue(F + "echo", 3, depends_on=[first, second])
    bad = queue.enqueue(F + "fail")
    never = queue.enqueue(F + "echo", 4, depends_on=bad)
    anyhow = queue.enqueue(F + "echo", 5, depends_on=Dependency(bad, allow_failure=True))
    wait_until(bad, "failed")
    wait_until(anyhow, "finished")
    assert [status(job) for job in (second, third, never)] == ["deferred"] * 3
    client.rpush("go:a", 1)
    for job in (first, second, third):
        wait_until(job, "finished")
    assert status(never) == "deferred"
    wait_for(lambda: client.zcard(keys.FOLLOW_UPS) == 0, 30)


def test_dependents_of_a_worker_that_died_before_it_saw_to_them(queue, client, rig):
    parent = queue.enqueue(F + "echo", 1)
    child = queue.enqueue(F + "echo", 2, depends_on=parent)
    scripted = ScriptedWorker(client, "dead", "default")
    scripted.beat()
    assert scripted.claim(1) == [parent.id]
    scripted.end(parent.id, "finished")
    assert status(child) == "deferred"
    rig.worker("default", **ALLOW)
    wait_until(child, "finished")
    wait_for(lambda: client.zcard(keys.FOLLOW_UPS) == 0, 30)


def test_a_follow_up_done_twice_changes_nothing_more(worker, queue, client):
    parent = queue.enqueue(F + "echo", 1)
    child = queue.enqueue(F + "hold", "a", depends_on=parent)
    wait_for(lambda: notes(client) == ["begun a"], 30)
    client.zadd(keys.FOLLOW_UPS, {f"finished:{parent.id}": 0})
    wait_for(lambda: client.zcard(keys.FOLLOW_UPS) == 0, 30)
    client.rpush("go:a", 1)
    wait_until(child, "finished")
    assert notes(client) == ["begun a", "ended a"]


def test_retry_at_once_later_and_as_a_result(worker, queue, client):
    good = queue.enqueue(F + "fail_while_retries_are_left", retry=Retry(max=2))
    wait_until(good, "finished")
    assert notes(client) == ["try"] * 3
    soon = queue.enqueue(F + "fail_while_retries_are_left", retry=Retry(max=1, interval=1))
    wait_until(soon, "finished")
    later = queue.enqueue(F + "fail", retry=Retry(max=2, interval=[300, 600]))
    wait_until(later, "scheduled")
    assert later.id in queue.scheduled_job_registry
    later.refresh()
    assert later.retries_left == 1
    client.delete(rq_functions.NOTES)
    asked = queue.enqueue(F + "ask_again", 2)
    wait_until(asked, "failed")
    assert notes(client) == ["try"] * 3
    kinds = [result.type for result in asked.results()]
    assert kinds == [Result.Type.MAX_RETRIES_EXCEEDED, Result.Type.RETRIED, Result.Type.RETRIED]


def test_repeat(worker, queue, client):
    job = queue.enqueue(F + "note", "again", repeat=Repeat(times=2))
    wait_for(lambda: notes(client) == ["again"] * 3, 60)
    wait_until(job, "finished")
    later = queue.enqueue(F + "note", "again", repeat=Repeat(times=1, interval=300))
    wait_until(later, "scheduled")
    assert len(later.results()) == 1


def test_a_result_takes_no_more_memory_than_it_needs(worker, queue, client):
    """By itself a stream takes 4 kB for its first entry, and there is one for each job."""
    job = queue.enqueue(F + "note", "small")
    wait_until(job, "finished")
    assert 0 < client.memory_usage(Result.get_key(job.id)) < 2_000
    assert client.ttl(Result.get_key(job.id)) > 0


def test_a_rate_limit_is_kept_and_its_places_are_handed_on(worker, queue, client):
    limit = RateLimit("scarce", concurrency=1)
    jobs = [queue.enqueue(F + "hold", name, rate_limit=limit, job_id=name) for name in "abc"]
    for number, name in enumerate("abc"):
        wait_for(lambda number=number: len(notes(client)) == 2 * number + 1, 60)
        assert RateLimitRegistry("scarce", client).get_allowed_job_ids() == [jobs[number].id]
        client.rpush(f"go:{name}", 1)
    wait_until(jobs[-1], "finished")
    assert notes(client) == [f"{what} {name}" for name in "abc" for what in ("begun", "ended")]
    wait_for(lambda: not RateLimitRegistry("scarce", client).get_allowed_job_ids(), 30)


def test_a_rate_limited_job_that_was_scheduled_gets_a_place(worker, queue, client):
    limit = RateLimit("scarce", concurrency=1)
    job = queue.enqueue(F + "fail_while_retries_are_left", rate_limit=limit,
                        retry=Retry(max=1, interval=1))  # fmt: skip
    wait_until(job, "finished")
    assert notes(client) == ["try"] * 2


def test_webhooks_are_sent_once(worker, queue, client):
    asked = []

    class Answer(BaseHTTPRequestHandler):
        def do_POST(self):
            asked.append(self.rfile.read(int(self.headers["Content-Length"])))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_):
            pass

    with HTTPServer(("127.0.0.1", 0), Answer) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}/"
        hooks = [Webhook(url, how, method="POST") for how in ("finished", "failed")]
        good = queue.enqueue(F + "echo", 1, webhooks=hooks)
        wait_for(lambda: len(asked) == 1, 60)
        bad = queue.enqueue(F + "fail", "so", webhooks=hooks)
        wait_for(lambda: len(asked) == 2, 60)
        server.shutdown()
    assert good.id.encode() in asked[0]
    assert bad.id.encode() in asked[1]
    assert b"ValueError: so" in asked[1]


def test_a_webhook_out_of_scope_is_not_sent(worker, queue):
    job = queue.enqueue(F + "echo", 1, webhooks=[Webhook("http://127.0.0.9:9/", "finished")])
    told = worker.wait_for_event("follow_up_failed")
    assert told["job"] == job.id
    assert "'127.0.0.9' is outside the scope" in told["error"]
    assert status(job) == "finished"


def test_groups_and_many_at_once(worker, queue, client):
    group = Group.create(connection=client)
    asked = [
        Queue.prepare_data(F + "echo", (1,), result_ttl=0),
        Queue.prepare_data(F + "echo", (2,), result_ttl=-1),
    ]
    gone, kept = group.enqueue_many(queue, asked)
    wait_until(kept, "finished")
    wait_for(lambda: not client.exists(gone.key), 30)
    assert client.ttl(kept.key) == -1
    assert client.smembers(group.key) == {kept.id.encode()}


def test_result_ttl_0_leaves_nothing_though_dependents_run(worker, queue, client):
    parent = queue.enqueue(F + "hold", "a", result_ttl=0)
    child = queue.enqueue(F + "echo", 2, depends_on=parent, result_ttl=0)
    wait_for(lambda: notes(client), 30)
    client.rpush("go:a", 1)
    wait_for(lambda: not client.exists(parent.key, child.key), 60)
    wait_for(lambda: not client.zcard(keys.FOLLOW_UPS), 30)
    assert not [key for key in client.keys("rq:*") if parent.id.encode() in key]
    assert not [key for key in client.keys("rq:*") if child.id.encode() in key]


def test_a_job_past_its_limit_fails_with_its_callback(worker, queue, client):
    job = queue.enqueue(F + "never_end", job_timeout=1, on_failure=Callback(F + "failed"))
    wait_until(job, "failed")
    assert "JobTimeoutException" in job.latest_result().exc_string
    assert notes(client) == ["failed JobTimeoutException stopped at its hard limit of 1 s"]


def test_a_job_that_rqs_command_stops_has_its_callback(worker, queue, client):
    job = queue.enqueue(F + "hold", on_stopped=Callback(F + "stopped"))
    wait_for(lambda: notes(client), 30)
    send_stop_job_command(client, job.id, serializer=JsonSerializer)
    wait_until(job, "stopped")
    wait_for(lambda: "stopped" in notes(client), 30)
    assert notes(client) == ["begun ", "stopped"]


def test_unique_and_at_front(queue, client, rig):
    ours = ScanQueue("default", connection=client)
    ours.enqueue(F + "note", 1)
    ours.enqueue(F + "note", 2, job_id="one", unique=True)
    last = ours.enqueue(F + "note", 3)
    ours.enqueue(F + "note", 0, at_front=True)
    rig.worker("default", "--concurrency", "1", **ALLOW)
    wait_until(last, "finished")
    assert notes(client) == ["0", "1", "2", "3"]


def test_commands_of_rq(worker, queue, client, rig):
    rq_command(rig, client, "suspend")
    waiting = queue.enqueue(F + "echo", 1)
    assert "default" in rq_command(rig, client, "info", "--raw")
    assert status(waiting) == "queued"
    rq_command(rig, client, "resume")
    wait_until(waiting, "finished")
    bad = queue.enqueue(F + "fail")
    wait_until(bad, "failed")
    rq_command(rig, client, "requeue", "--queue", "default", "--serializer", JSON, bad.id)
    worker.wait_for_event("job_failed", count=2)
    shown = rq_command(rig, client, "info")
    assert "w1" in shown
    rq_command(rig, client, "suspend")
    thrown_away = queue.enqueue(F + "echo", 1)
    rq_command(rig, client, "empty", "default")
    assert not client.exists(thrown_away.key)
    assert queue.count == 0


@pytest.mark.parametrize("ahead", ["+10m", "+1h", "+400d"])
@pytest.mark.usefixtures("worker")
def test_no_clock_of_a_reader_ends_a_running_job(queue, client, rig, ahead, faketime):
    job = queue.enqueue(F + "hold", "a")
    wait_for(lambda: notes(client) == ["begun a"], 30)
    shown = rq_command(rig, client, "info", **faketime(ahead))
    assert "w1" in shown
    clean = (
        "import redis, rq; from rq.registry import clean_registries;"
        f"c = redis.Redis.from_url('unix://{client.connection_pool.connection_kwargs['path']}');"
        "q = rq.Queue('default', connection=c, serializer='json'); clean_registries(q);"
        "[w.get_current_executions(refresh=True) for w in rq.Worker.all(c)];"
        "[j.get_executions() for j in [rq.job.Job.fetch(i, c, 'json') for i in "
        "q.started_job_registry.get_job_ids()]]"
    )
    subprocess.run(
        [sys.executable, "-c", clean], check=True, timeout=60, env=rig.env | faketime(ahead)
    )
    assert status(job) == "started"
    assert StartedJobRegistry("default", connection=client).get_job_ids() == [job.id]
    client.rpush("go:a", 1)
    wait_until(job, "finished")
    assert notes(client) == ["begun a", "ended a"]
    assert client.hget(job.key, "rqscan_attempt") == b"1"


def test_a_callback_has_as_long_as_rq_gives_it():
    assert CALLBACK_TIMEOUT_S == CALLBACK_TIMEOUT
