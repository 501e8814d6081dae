"""A job has run for as long as it may, or must stop: what it ran goes, what it did is told."""

import signal
import sqlite3
import subprocess
from pathlib import Path

import psutil
import pytest

from rqscan.broker import keys
from rqscan.broker.jobs import ScanJob
from rqscan.broker.queues import ScanQueue
from tests.servers import wait_for

SOFT = "RQSCAN_QUEUES_DEFAULT_SOFT_TIMEOUT_S"
HARD = "RQSCAN_QUEUES_DEFAULT_TIMEOUT_S"


@pytest.fixture
def client(redis_server):
    with redis_server.client() as found:
        yield found


@pytest.fixture(autouse=True)
def _odd(rig):
    rig.use_odd_kinds()


def submit(rig, kind, said="1", **env):
    """Put a scan of one chunk into the queue; gives its id."""
    done = rig.json("scan", "127.0.0.1", "--kind", kind, "-p", said, "--no-wait", **env)
    return done["scan_id"]


def result_of(client, scan_id):
    """Give the last result of a scan's only job."""
    return ScanJob.fetch(f"{scan_id}-0-1", connection=client).latest_result()


def stored(rig, scan_id):
    """Give state and error of a scan's only chunk as the store has them."""
    (database,) = Path(rig.env["RQSCAN_HOME"]).glob("*.db")
    with sqlite3.connect(database) as connection:
        question = "SELECT state, error FROM chunks WHERE scan_id = ?"
        return connection.execute(question, [scan_id]).fetchone()


def sleepers(said):
    return [
        process
        for process in psutil.process_iter(["cmdline"])
        if (process.info["cmdline"] or [])[:2] == ["sleep", said]
    ]


def horses_of(worker, job):
    """Give the horses of a worker that run a job whose id begins so."""
    return [
        process
        for process in psutil.process_iter(["cmdline", "ppid"])
        if f"rqscan horse {job}" in " ".join(process.info["cmdline"] or [])
        and psutil.Process(process.info["ppid"]).ppid() == worker.process.pid
    ]


def test_a_soft_time_out_cannot_be_swallowed_and_is_recorded_in_the_store(rig, client):
    worker = rig.worker("default", "--concurrency", "1", **{SOFT: "1"})
    scan_id = submit(rig, "swallow")
    failed = worker.wait_for_event("job_failed")
    assert "soft limit of 1 s" in failed["error"]
    state, error = stored(rig, scan_id)
    assert state == "failed"
    assert "soft limit of 1 s" in error
    assert rig.json("scans")[0]["state"] == "failed"
    assert "soft limit" in result_of(client, scan_id).exc_string


def test_a_hard_time_out_ends_all_that_the_job_has_started(rig, client):
    said = "7301"
    worker = rig.worker("default", "--concurrency", "1")
    scan_id = submit(rig, "family", said, **{HARD: "3"})
    wait_for((rig.folder / "ready").exists, 30)
    wait_for(lambda: len(sleepers(said)) == 4, 30)
    failed = worker.wait_for_event("job_failed")
    assert "hard limit of 3 s" in failed["error"]
    wait_for(lambda: not sleepers(said), 30)
    assert (rig.folder / "tidied").exists()  # it had its SIGTERM first
    assert "hard limit" in result_of(client, scan_id).exc_string
    assert worker.process.poll() is None


@pytest.mark.parametrize("kind", ["stubborn", "polite"])
def test_a_job_that_has_its_own_way_with_sigterm_ends_all_the_same(rig, client, kind):
    worker = rig.worker("default", "--concurrency", "1")
    scan_id = submit(rig, kind, **{HARD: "3"})
    wait_for((rig.folder / kind).exists, 30)
    failed = worker.wait_for_event("job_failed")
    assert "hard limit of 3 s" in failed["error"]
    assert result_of(client, scan_id).type.name == "FAILED"
    assert int(client.hget(keys.progress(scan_id), "failed")) == 1


@pytest.mark.parametrize("victim", ["horse", "worker"])
def test_what_a_job_has_started_dies_with_its_horse_and_with_its_worker(rig, victim):
    said = {"horse": "7302", "worker": "7303"}[victim]
    worker = rig.worker("default", "--concurrency", "1", RQSCAN_WORKER_MAX_LOST="1")
    submit(rig, "family", said)
    old = wait_for(lambda: found if len(found := sleepers(said)) == 4 else None, 30)
    if victim == "worker":
        worker.process.kill()
    else:
        (horse,) = horses_of(worker, "adhoc")
        horse.kill()
    wait_for(lambda: not any(process.is_running() for process in old), 30)


def test_a_horse_is_not_used_again_while_something_of_its_job_lives(rig, client):
    said = "7304"
    worker = rig.worker("default", "--concurrency", "1", "--max-jobs-per-horse", "0")
    pids = set()
    for _ in range(2):
        scan_id = submit(rig, "leaves", said)
        wait_for(lambda: client.hexists(keys.progress(scan_id), "finished_at"), 30)  # noqa: B023
        pids |= {row["data"]["pid"] for row in rig.json("results", scan_id)}
    assert len(pids) == 2
    assert not worker.of("job_lost")
    wait_for(lambda: not sleepers(said), 30)


def pids_of(rig, client, kinds):
    """Run scans one after the other; gives the pids of those that finish."""
    pids = []
    for kind in kinds:
        scan_id = submit(rig, kind)
        wait_for(lambda: client.hexists(keys.progress(scan_id), "finished_at"), 30)  # noqa: B023
        pids += [row["data"]["pid"] for row in rig.json("results", scan_id)]
    return pids


@pytest.mark.parametrize(("most", "different"), [("1", 4), ("2", 2), ("0", 1)])
def test_a_horse_runs_as_many_jobs_as_it_may(rig, client, most, different):
    rig.worker("default", "--concurrency", "1", "--max-jobs-per-horse", most)
    found = pids_of(rig, client, ["modules"] * 4)
    assert len(set(found)) == different  # a spare one only steps in for one that has gone
    assert max(found.count(pid) for pid in found) <= (int(most) or 4)


def test_a_horse_that_is_used_again_keeps_no_garbage(rig, client):
    rig.worker("default", "--concurrency", "1", "--max-jobs-per-horse", "0")
    for _ in range(2):
        scan_id = submit(rig, "litters")
        wait_for(lambda: client.hexists(keys.progress(scan_id), "finished_at"), 30)  # noqa: B023
        (row,) = rig.json("results", scan_id)
        assert row["data"]["left"] < 5_000


def test_a_horse_is_never_used_again_after_a_failure(rig, client):
    rig.worker("default", "--concurrency", "1", "--max-jobs-per-horse", "0")
    before, after = pids_of(rig, client, ["modules", "wrong", "wrong", "wrong", "modules"])
    assert before != after


def test_a_chunks_horse_has_neither_rq_nor_redis_in_memory(rig, client):
    rig.worker("default", "--concurrency", "1")
    scan_id = submit(rig, "modules")
    wait_for(lambda: client.hexists(keys.progress(scan_id), "finished_at"), 30)
    (row,) = rig.json("results", scan_id)
    loaded = {name.partition(".")[0] for name in row["data"]["modules"]}
    heavy = {"rq", "redis", "hiredis", "rq_scheduler", "pymysql", "logging", "_hashlib"}
    assert not loaded & heavy
    assert "rqscan" in loaded


def test_the_memory_ceiling_fails_the_job_that_reaches_it_and_no_other(rig, client):
    worker = rig.worker(
        "default", "--concurrency", "2", RQSCAN_WORKER_MEMORY_LIMIT_BYTES=str(600_000_000)
    )
    greedy = submit(rig, "greedy")
    failed = worker.wait_for_event("job_failed")
    assert failed["error"].startswith("MemoryError")
    assert "MemoryError" in stored(rig, greedy)[1]
    assert pids_of(rig, client, ["modules"])


def test_a_death_by_a_real_time_signal_is_named_and_three_are_recorded(rig, client):
    number = signal.SIGRTMIN + 3
    worker = rig.worker("default", "--concurrency", "1", "--name", "w1")
    scan_id = submit(rig, "signalled", str(number))
    failed = worker.wait_for_event("job_failed")
    assert len(worker.of("job_lost")) == 3
    assert f"signal {int(number)}" in failed["error"]
    assert "died 3 times" in failed["error"]
    assert client.hget(keys.progress(scan_id), "failed") == b"1"
    wait_for(lambda: stored(rig, scan_id)[1], 30)
    losses = rig.json("failed", "show", f"{scan_id}-0-1")["losses"]
    assert len(losses) == 3
    assert all(f"signal {int(number)}" in loss and " MB" in loss for loss in losses)
    assert worker.stop() == 0
    (stopped,) = worker.of("worker_stopped")
    assert stopped["failed"] == 1


def test_a_job_that_kills_the_template_does_so_a_limited_number_of_times(rig, client):
    worker = rig.worker("default", "--concurrency", "1", RQSCAN_WORKER_MAX_HOST_LOSSES="2")
    scan_id = submit(rig, "patricide")
    failed = worker.wait_for_event("job_failed")
    assert len(worker.of("job_lost")) == 2
    assert "its worker, host or template died 2 times" in failed["error"]
    wait_for(lambda: stored(rig, scan_id)[1], 30)
    assert len(rig.json("failed", "show", f"{scan_id}-0-1")["losses"]) == 2
    assert pids_of(rig, client, ["modules"])


@pytest.mark.root
def test_a_fork_that_fails_costs_no_job(rig, client, redis_server):
    redis_server.folder.chmod(0o777)
    redis_server.folder.parent.chmod(0o755)
    for socket in redis_server.folder.glob("*.sock"):
        socket.chmod(0o777)
    rig.become_nobody()
    worker = rig.worker("default", "--concurrency", "1")
    assert pids_of(rig, client, ["modules"])
    (template,) = [
        child
        for child in psutil.Process(worker.process.pid).children()
        if "rqscan template" in " ".join(child.cmdline())  # and no errand
    ]
    limit = [*rig._prefix, "prlimit", f"--pid={template.pid}"]
    subprocess.run([*limit, "--nproc=1:"], check=True)
    scan_ids = [submit(rig, "modules") for _ in range(3)]  # more than there are spare horses
    wait_for(lambda: len(worker.of("job_finished")) >= 2, 30)
    subprocess.run([*limit, "--nproc=9999:"], check=True)
    for scan_id in scan_ids:
        wait_for(lambda: client.hexists(keys.progress(scan_id), "finished_at"), 30)  # noqa: B023
    assert not worker.of("job_lost")
    assert worker.process.poll() is None


def test_a_frozen_horse_ends_at_its_hard_limit(rig, client):
    worker = rig.worker("default", "--concurrency", "1", RQSCAN_ALLOW_FUNCTIONS="time.sleep")
    job = ScanQueue("default", connection=client).enqueue("time.sleep", 100, job_timeout=3)
    worker.wait_for_event("job_started")
    (horse,) = wait_for(lambda: horses_of(worker, job.id), 30)
    horse.suspend()
    worker.wait_for_event("job_failed")
    assert "hard limit of 3 s" in job.latest_result().exc_string


def test_chunks_and_plain_functions_share_the_places_of_a_worker(rig, client):
    plain = ScanQueue("default", connection=client)
    for n in range(12):
        if n % 2:
            plain.enqueue("os.system", "exec sleep 0.3")
        else:
            rig.json("scan", f"127.0.0.{n + 1}", "--kind", "rows", "-p", "2", "--no-wait")
    allow = {"RQSCAN_ALLOW_FUNCTIONS": "os.system"}
    worker = rig.worker("default", "--concurrency", "2", **allow)
    wait_for(lambda: len(worker.of("job_finished")) == 12, 60)
    at_once = most = 0
    for record in worker.events:
        at_once += (record["event"] == "job_started") - (record["event"] == "job_finished")
        most = max(most, at_once)
    assert (most, at_once) == (2, 0)
