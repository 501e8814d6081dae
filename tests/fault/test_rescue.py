"""A worker is gone: another one frees its jobs, each once, and runs them."""

import json
import signal
import time
from pathlib import Path

import pytest

from rqscan.broker import keys, scripts
from rqscan.broker.queues import ScanQueue
from tests.servers import wait_for

ALLOW = {"RQSCAN_ALLOW_FUNCTIONS": "time.sleep"}


@pytest.fixture
def client(redis_server):
    with redis_server.client() as found:
        yield found


def attempts(client, job):
    return int(client.hget(job.key, "rqscan_attempt"))


def counter(client, name):
    return int(client.hget(keys.COUNTERS, name) or 0)


def test_the_job_of_a_killed_worker_runs_on_another(rig, client):
    first = rig.worker("default", "--name", "w1", "--concurrency", "1", **ALLOW)
    queue = ScanQueue("default", connection=client)
    job, waiting = queue.enqueue("time.sleep", 8), queue.enqueue("time.sleep", 0)
    first.wait_for_event("job_started")
    second = rig.worker("default", "--name", "w2", "--concurrency", "1", **ALLOW)
    second.wait_for_event("job_finished")  # the waiting one: it is at work
    first.process.kill()
    wait_for(lambda: job.get_status() == "finished", 60)
    assert waiting.get_status() == "finished"
    assert (attempts(client, job), attempts(client, waiting)) == (2, 1)
    assert counter(client, "rescued") == counter(client, "lost") == 1
    assert second.of("workers_lost")
    assert client.smembers(keys.WORKERS) == {keys.worker("w2").encode()}
    assert client.exists(keys.record("w1"))  # still shown, as lost


def test_a_job_is_rescued_though_redis_has_lost_what_it_knew_of_its_worker(rig, client):
    first = rig.worker("default", "--name", "w1", "--concurrency", "1", **ALLOW)
    job = ScanQueue("default", connection=client).enqueue("time.sleep", 3)
    first.wait_for_event("job_started")
    first.process.kill()
    client.delete(keys.HOLDERS, keys.executions_of("w1"), keys.worker("w1"))
    rig.worker("default", "--name", "w2", "--concurrency", "1", **ALLOW)
    wait_for(lambda: job.get_status() == "finished", 60)
    assert attempts(client, job) == 2
    assert counter(client, "rescued") == counter(client, "lost") == 1


def test_the_late_attempt_of_a_frozen_worker_changes_nothing(rig, client):
    first = rig.worker("default", "--name", "w1", "--concurrency", "1", **ALLOW)
    job = ScanQueue("default", connection=client).enqueue("time.sleep", 12)
    first.wait_for_event("job_started")
    second = rig.worker("default", "--name", "w2", "--concurrency", "1", **ALLOW)
    first.process.send_signal(signal.SIGSTOP)
    second.wait_for_event("job_started")
    first.process.send_signal(signal.SIGCONT)
    wait_for(lambda: job.get_status() == "finished", 60)
    assert client.hget(job.key, "worker_name") == b"w2"
    assert attempts(client, job) == 2
    assert client.xlen(keys.results(job.id)) == 1
    after = ScanQueue("default", connection=client).enqueue("time.sleep", 0)
    wait_for(lambda: after.get_status() == "finished", 30)
    wait_for(lambda: client.zscore(keys.HOLDERS, "w1"), 30)  # it is one of the fleet again


def test_a_name_is_taken_over_from_a_worker_whose_connection_outlives_it(rig, client):
    first = rig.worker("default", "--name", "w1", "--concurrency", "1", **ALLOW)
    job = ScanQueue("default", connection=client).enqueue("time.sleep", 12)
    first.wait_for_event("job_started")
    first.process.send_signal(signal.SIGSTOP)  # as a host without power: no goodbye
    second = rig.worker("default", "--name", "w1", "--concurrency", "1", **ALLOW)
    second.wait_for_event("job_started")
    first.process.send_signal(signal.SIGCONT)
    assert first.process.wait(60) == 1
    assert "under the name 'w1'" in first.log.read_text()
    wait_for(lambda: job.get_status() == "finished", 60)
    assert client.xlen(keys.results(job.id)) == 1


@pytest.mark.parametrize("how", ["restart", "freeze"])
def test_nobody_is_rescued_from_workers_that_outlived_an_outage(rig, client, redis_server, how):
    workers = [
        rig.worker("default", "--name", name, "--concurrency", "1", **ALLOW)
        for name in ("w1", "w2")
    ]
    queue = ScanQueue("default", connection=client)
    jobs = [queue.enqueue("time.sleep", 20) for _ in workers]
    for worker in workers:
        worker.wait_for_event("job_started")
    wait_for(lambda: all(age_s(client, name) > 1 for name in ("w1", "w2")), 30)
    (redis_server.freeze if how == "freeze" else redis_server.stop)()
    for worker in workers:
        worker.wait_for_event("redis_lost")
    outlast_a_lease()
    (redis_server.thaw if how == "freeze" else redis_server.start)()
    for worker in workers:
        worker.wait_for_event("redis_back")
    wait_for(lambda: all(job.get_status() == "finished" for job in jobs), 60)
    assert [attempts(client, job) for job in jobs] == [1, 1]
    assert counter(client, "rescued") == counter(client, "lost") == 0


def age_s(client, name):
    """Tell for how long a worker's job had run at its last beat."""
    return max(
        (job["age_s"] for job in json.loads(client.get(keys.record(name)))["jobs"]), default=0
    )


def outlast_a_lease():
    until = time.monotonic() + 8  # longer than worker.lease_s
    wait_for(lambda: time.monotonic() > until, 30)


def test_a_job_that_loses_too_many_workers_is_failed_and_its_scan_ends(rig, client):
    done = rig.json("scan", "127.0.0.1", "-p", "1-65535", "--no-wait", "--queue", "wakaka")
    limits = {"RQSCAN_WORKER_MAX_HOST_LOSSES": "1"}
    first = rig.worker("wakaka", "--name", "w1", **limits)
    first.wait_for_event("job_started")
    first.process.kill()
    rig.worker("default", "--name", "w2", **limits)  # of another queue: it only rescues
    progress = keys.progress(done["scan_id"])
    wait_for(lambda: client.hget(progress, "failed") == b"1", 60)
    assert client.hexists(progress, "finished_at")
    assert client.zcard(keys.registry("failed", "wakaka")) == 1


def test_a_chunk_that_loses_its_worker_too_often_fails_and_its_scan_ends(rig, client):
    limit = {"RQSCAN_WORKER_MAX_HOST_LOSSES": "1"}
    first = rig.worker("default", "--name", "w1", "--concurrency", "1", **limit)
    scan = rig.json("scan", "127.0.0.1", "-p", "1-65535", "--no-wait")["scan_id"]
    first.wait_for_event("job_started")
    first.process.kill()
    second = rig.worker("default", "--name", "w2", "--concurrency", "1", **limit)
    failed = second.wait_for_event("job_failed")
    assert "died 1 times, last w1" in failed["error"]

    def recorded():
        (found,) = rig.json("scans")
        return found if found["state"] == "failed" else None

    assert wait_for(recorded, 30)["chunks"]["failed"] == 1
    (loss,) = rig.json("failed", "show", f"{scan}-0-1")["losses"]
    assert "worker w1 was gone" in loss


def test_deaths_of_a_worker_that_is_back_at_once_count_as_well(rig, client):
    limit = {"RQSCAN_WORKER_MAX_HOST_LOSSES": "2", **ALLOW}
    job = ScanQueue("default", connection=client).enqueue("time.sleep", 60)
    for attempt in (1, 2):
        worker = rig.worker("default", "--name", "w1", "--concurrency", "1", **limit)
        assert worker.wait_for_event("job_started")["attempt"] == attempt
        worker.process.kill()
        worker.process.wait()
    last = rig.worker("default", "--name", "w1", "--concurrency", "1", **limit)
    assert "died 2 times" in last.wait_for_event("job_failed")["error"]
    assert job.get_status() == "failed"
    assert not last.of("job_started")


def test_a_late_first_beat_of_an_own_connection_takes_no_name_over(rig, client):
    worker = rig.worker("default", "--name", "w1", **ALLOW)
    wait_for(lambda: client.hget(keys.worker("w1"), "rqscan_epoch"), 30)
    client.client_kill_filter(_type="normal", skipme=True)  # a new connection, a new epoch
    first = client.hget(keys.worker("w1"), "rqscan_epoch")
    wait_for(lambda: client.hget(keys.worker("w1"), "rqscan_epoch") > first, 30)
    now = client.hget(keys.worker("w1"), "rqscan_epoch")
    own = [keys.worker("w1"), *(f"unused:{n}" for n in range(15))]
    arguments = ["w1", first, 9, "{}", 4, 9, 9, 1, "", 1, "", "default", 0, 9]
    assert client.eval(scripts.BEAT.text, len(own), *own, *arguments) == [b"displaced"]
    assert client.hget(keys.worker("w1"), "rqscan_epoch") == now
    assert worker.stop() == 0


def test_a_worker_that_redis_takes_nothing_from_can_be_stopped(rig, client):
    worker = rig.worker("default", "--concurrency", "1", **ALLOW)
    ScanQueue("default", connection=client).enqueue("time.sleep", 2)
    worker.wait_for_event("job_started")
    client.config_set("min-replicas-to-write", 1)
    worker.wait_for_event("redis_refused")
    assert worker.stop(30) == 0
    assert list(Path(rig.env["RQSCAN_HOME"], "ends").glob("*.ends"))
