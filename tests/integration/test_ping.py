"""`rqscan ping` and `rqscan control` against real workers: good, busy, frozen and dead ones."""

import json
import signal

import pytest
from rq.command import (
    send_kill_horse_command,
    send_shutdown_command,
    send_stop_job_command,
)

from rqscan.broker import keys
from rqscan.broker.payload import JsonSerializer
from rqscan.broker.queues import ScanQueue
from tests.servers import wait_for

ALLOW = {"RQSCAN_ALLOW_FUNCTIONS": "time.sleep"}
FIELDS = [
    "worker", "host", "answered", "rtt_ms", "versions", "clock_offset_s", "utc_offset_s", "state",
]  # fmt: skip


@pytest.fixture
def client(redis_server):
    with redis_server.client() as found:
        yield found


def ping(rig, *arguments, code=0):
    done = rig.run("ping", *arguments, "--json")
    assert done.returncode == code, done.stderr
    return {row["worker"]: row for row in json.loads(done.stdout)}


def test_good_frozen_and_dead_workers_are_told_apart(rig, client):
    names = ("good", "frozen", "dead")
    workers = {name: rig.worker("default", "--name", name) for name in names}
    wait_for(lambda: client.zcard(keys.PRESENCE) == 3)
    rows = ping(rig, "--timeout", "20")  # ends as soon as all have answered
    assert sorted(rows) == sorted(names)
    assert all(row["answered"] and row["rtt_ms"] > 0 for row in rows.values())
    workers["frozen"].process.send_signal(signal.SIGSTOP)
    workers["dead"].process.kill()
    rows = ping(rig, "--timeout", "2", code=1)
    assert {name: row["answered"] for name, row in rows.items()} == {
        "good": True, "frozen": False, "dead": False,
    }  # fmt: skip
    assert list(rows["good"]) == FIELDS
    assert rows["good"]["state"] == "idle"
    assert rows["good"]["versions"]["rq"]
    assert abs(rows["good"]["clock_offset_s"]) < 5
    assert rows["frozen"]["rtt_ms"] is None
    assert rows["frozen"]["host"] == rows["good"]["host"]  # by its record
    assert list(ping(rig, "good", "--timeout", "20")) == ["good"]
    workers["frozen"].process.send_signal(signal.SIGCONT)
    wait_for(lambda: ping_answers(rig, "frozen"), 60)


def ping_answers(rig, name):
    return rig.run("ping", name, "--timeout", "2").returncode == 0


def control(rig, *arguments, code=0):
    done = rig.run("control", *arguments, "--timeout", "20", "--json")
    assert done.returncode == code, done.stderr
    return {row["worker"]: row for row in json.loads(done.stdout)}


def test_a_busy_worker_answers_and_drains_until_it_is_resumed(rig, client):
    worker = rig.worker("default", "--name", "w1", "--concurrency", "1", **ALLOW)
    queue = ScanQueue("default", connection=client)
    long, waiting = queue.enqueue("time.sleep", 300), None
    worker.wait_for_event("job_started")
    assert ping(rig, "--timeout", "20")["w1"]["state"] == "busy"
    status = control(rig, "status", "--all")["w1"]["answer"]
    assert [job["id"] for job in status["jobs"]] == [long.id]
    assert control(rig, "drain", "w1")["w1"]["answer"] == {"state": "suspended"}
    wait_for(lambda: json.loads(client.get(keys.record("w1")))["state"] == "suspended")
    waiting = queue.enqueue("time.sleep", 0)
    assert control(rig, "stop-job", long.id)["w1"]["answer"]["stopped"]
    wait_for(lambda: not json.loads(client.get(keys.record("w1")))["jobs"])
    assert ping(rig, "--timeout", "20")["w1"]["state"] == "suspended"
    assert waiting.get_status() == "queued"
    assert control(rig, "resume", "w1")["w1"]["answer"] == {"state": "idle"}
    wait_for(lambda: waiting.get_status() == "finished")
    assert [one["verb"] for one in worker.of("command_taken")] == ["drain", "stop-job", "resume"]


def test_a_worker_is_stopped_and_silenced_by_command(rig, client):
    worker = rig.worker("default", "--name", "w1", "--concurrency", "1", **ALLOW)
    assert control(rig, "log-level", "warning", "--all")["w1"]["answer"] == {"level": "WARNING"}
    job = ScanQueue("default", connection=client).enqueue("time.sleep", 300)
    wait_for(lambda: job.get_status() == "started")
    assert not worker.of("job_started")
    assert control(rig, "stop", "w1")["w1"]["answer"] == {"state": "stopping"}
    assert control(rig, "stop", "--now", "w1")["w1"]["answered"]
    assert worker.process.wait(60) == 0
    assert job.get_status() == "queued"  # given back
    assert ping(rig) == {}


def test_rqs_own_commands_are_obeyed(rig, client):
    worker = rig.worker("default", "--name", "w1", "--concurrency", "1", **ALLOW)
    queue = ScanQueue("default", connection=client)
    job = queue.enqueue("time.sleep", 300)
    wait_for(lambda: json.loads(client.get(keys.record("w1")) or b"{}").get("jobs"))
    send_kill_horse_command(client, "w1")
    worker.wait_for_event("job_lost")
    worker.wait_for_event("job_started", 2)
    send_stop_job_command(client, job.id, JsonSerializer)
    wait_for(lambda: job.get_status(refresh=True) == "stopped")
    client.publish("rq:pubsub:w1", b"\xff no JSON")
    client.publish(keys.COMMANDS, json.dumps({"id": "x", "verb": "stop"}))  # no id of ours
    send_shutdown_command(client, "w1")
    assert worker.process.wait(60) == 0


@pytest.mark.parametrize("how", ["restart", "freeze"])
def test_workers_answer_again_after_an_outage(rig, client, redis_server, how):
    worker = rig.worker("default", "--name", "w1")
    (redis_server.kill if how == "restart" else redis_server.freeze)()
    worker.wait_for_event("redis_lost")
    (redis_server.start if how == "restart" else redis_server.thaw)()
    worker.wait_for_event("redis_back")
    wait_for(lambda: ping_answers(rig, "w1"), 60)


def test_a_subscription_that_is_lost_alone_is_made_again(rig, client):
    rig.worker("default", "--name", "w1")
    wait_for(lambda: client.pubsub_numsub(keys.COMMANDS)[0][1] == 1)
    client.client_kill_filter(_type="pubsub")
    wait_for(lambda: ping_answers(rig, "w1"), 60)


def test_unknown_workers_and_unspecific_commands_are_refused(rig, client):
    rig.worker("default", "--name", "worker1")
    wait_for(lambda: client.zcard(keys.PRESENCE) == 1)
    for arguments, words in (
        (["ping", "worker2"], "did you mean 'worker1'?"),
        (["control", "drain", "w2"], "no worker 'w2'"),
        (["control", "drain"], "--all"),
        (["control", "drain", "worker1", "--all"], "not both"),
        (["control", "stop-job", "nope"], "no job 'nope'"),
    ):
        done = rig.run(*arguments)
        assert done.returncode == 2, arguments
        assert words in done.stderr


def test_the_stacks_of_running_jobs_are_shown(rig, client):
    worker = rig.worker("default", "--name", "w1", "--concurrency", "1", **ALLOW)
    assert control(rig, "stacks", "--all")["w1"]["answer"] == {"jobs": {}}
    job = ScanQueue("default", connection=client).enqueue("time.sleep", 300)
    worker.wait_for_event("job_started")
    stacks = control(rig, "stacks", "w1")["w1"]["answer"]["jobs"]
    assert list(stacks) == [job.id]
    assert "most recent call first" in stacks[job.id]
    assert job.id in rig.run("control", "stacks", "--all", "--timeout", "20").stdout
