"""`rqscan queue` and `rqscan failed` against real workers, with chunks and with plain RQ jobs."""

import json

import pytest

from rqscan.broker import keys
from rqscan.broker.queues import ScanQueue
from tests.servers import wait_for

ALLOW = {"RQSCAN_ALLOW_FUNCTIONS": "time.sleep,math.sqrt"}

FLAKY = """
from pathlib import Path

from msgspec import Struct
from rqscan.scan.kinds import kind

class Params(Struct, frozen=True, forbid_unknown_fields=True):
    pass

@kind("flaky", params=Params, probes_per_host=lambda params: 1)
def look(addresses, params, run):
    \"\"\"Fail until a file is there.\"\"\"
    if not Path({flag!r}).exists():
        raise RuntimeError(f"no {{addresses[0]}} yet")
    run.advance(len(addresses))
    yield from ()
"""


@pytest.fixture
def client(redis_server):
    with redis_server.client() as found:
        yield found


@pytest.fixture
def flag(rig):
    """Add a kind that fails until this file is there."""
    folder = rig.folder / "flaky_kinds"
    folder.mkdir()
    (folder / "__init__.py").touch()
    flag = rig.folder / "flag"
    (folder / "flaky.py").write_text(FLAKY.format(flag=str(flag)))
    rig.env["RQSCAN_JOBS_PATH"] = str(folder)
    return flag


def plan(rig, *targets):
    """Plan a scan of the flaky kind; gives its id."""
    done = rig.json("scan", *targets, "--kind", "flaky", "--no-wait", "--queue", "wakaka")
    return done["scan_id"]


def stored(rig, scan_id):
    """Give what the store says of a scan."""
    (found,) = [scan for scan in rig.json("scans") if scan["scan_id"] == scan_id]
    return found["state"], found["chunks"]


def counted(client, scan_id):
    raw = client.hgetall(keys.progress(scan_id))
    return {name: int(raw.get(name.encode(), 0)) for name in ("done", "failed", "cancelled")}


def ends(client, scan_id):
    wait_for(lambda: client.hexists(keys.progress(scan_id), "finished_at"), 60)


def queues(rig):
    return {row["name"]: row for row in rig.json("queue", "list")}


def test_a_paused_queue_runs_nothing_until_it_is_resumed_and_the_others_go_on(rig, client):
    worker = rig.worker("wakaka", "default", "--concurrency", "1", **ALLOW)
    assert rig.json("queue", "pause", "wakaka") == [{"name": "wakaka", "paused": True}]
    held = ScanQueue("wakaka", connection=client).enqueue("time.sleep", 0)
    other = ScanQueue("default", connection=client).enqueue("time.sleep", 0)
    wait_for(lambda: other.get_status() == "finished")
    worker.wait_for_event("job_finished")
    assert held.get_status() == "queued"
    found = queues(rig)
    assert list(found["wakaka"]) == [
        "name", "depth", "oldest_s", "running", "in_per_s", "out_per_s", "failed", "failed_1h",
        "paused", "workers", "drain_s", "deferred", "scheduled", "depths", "failures",
    ]  # fmt: skip
    assert (found["wakaka"]["paused"], found["default"]["paused"]) == (True, False)
    assert (found["wakaka"]["depth"], found["wakaka"]["workers"]) == (1, 1)
    rig.json("queue", "resume", "wakaka")
    wait_for(lambda: held.get_status() == "finished")
    assert not queues(rig)["wakaka"]["paused"]


def test_resuming_rings_the_bell_of_a_queue_with_work(rig, client):
    queue = ScanQueue("wakaka", connection=client)
    queue.pause()
    queue.enqueue("time.sleep", 0)
    client.delete(keys.bell("wakaka"))
    assert queue.resume()
    assert client.llen(keys.bell("wakaka")) == 1
    assert not queue.resume()


def test_emptying_a_queue_is_told_to_the_plan_and_spares_what_runs(rig, client, flag):
    queue = ScanQueue("wakaka", connection=client)
    running = queue.enqueue("time.sleep", 300)
    worker = rig.worker("wakaka", "--concurrency", "1", **ALLOW)
    worker.wait_for_event("job_started")
    scan_id = plan(rig, "127.0.0.1", "127.0.0.2")
    plain = queue.enqueue("time.sleep", 0)
    done = rig.json("queue", "empty", "wakaka")
    assert done == {"name": "wakaka", "removed": 1 + queue_of(client, scan_id), "stopping": 0}
    assert client.llen(keys.queue("wakaka")) == 0
    assert not client.exists(plain.key)
    assert running.get_status() == "started"
    assert counted(client, scan_id)["cancelled"] == queue_of(client, scan_id)
    ends(client, scan_id)
    assert stored(rig, scan_id)[0] == "cancelled"
    flag.touch()
    rig.json("control", "stop-job", running.id, "--timeout", "20")
    rig.run("resume", scan_id)
    wait_for(lambda: stored(rig, scan_id)[0] == "finished", 60)


def queue_of(client, scan_id):
    """Tell how many chunks a scan has."""
    return int(client.hget(keys.progress(scan_id), "total"))


def test_failed_chunks_are_run_again_and_the_progress_tells_so(rig, client, flag):
    worker = rig.worker("wakaka", "--concurrency", "1", **ALLOW)
    scan_id = plan(rig, "127.0.0.1")
    ends(client, scan_id)
    assert counted(client, scan_id) == {"done": 0, "failed": 1, "cancelled": 0}
    (group,) = rig.json("failed", "list")
    assert (group["count"], group["queue"]) == (1, "wakaka")
    assert group["error"] == "RuntimeError: no <ip> yet"
    (job,) = group["jobs"]
    shown = rig.json("failed", "show", job)
    assert (shown["attempts"], shown["kind"], shown["scan"]) == (1, "flaky", scan_id)
    assert shown["error"] == "RuntimeError: no 127.0.0.1 yet"
    assert "Traceback" in shown["traceback"]
    rig.json("queue", "pause", "wakaka")
    assert rig.json("failed", "requeue", group["group"]) == {"requeued": 1}
    assert counted(client, scan_id) == {"done": 0, "failed": 0, "cancelled": 0}
    assert not client.hexists(keys.progress(scan_id), "finished_at")
    assert client.ttl(keys.progress(scan_id)) == client.ttl(keys.job(job)) == -1
    assert client.zscore(keys.SCANS, scan_id)
    assert stored(rig, scan_id)[0] in {"queued", "running"}
    flag.touch()
    rig.json("queue", "resume", "wakaka")
    ends(client, scan_id)
    assert counted(client, scan_id) == {"done": 1, "failed": 0, "cancelled": 0}
    assert stored(rig, scan_id) == ("finished", {"total": 1, "done": 1, "failed": 0})
    assert [one["attempt"] for one in worker.of("job_started")] == [1, 2]
    assert rig.json("failed", "list") == []


def test_a_deleted_failed_chunk_is_cancelled_in_the_plan(rig, client, flag):
    rig.worker("wakaka", "--concurrency", "1", **ALLOW)
    scan_id = plan(rig, "127.0.0.1")
    ends(client, scan_id)
    (group,) = rig.json("failed", "list")
    assert rig.json("failed", "delete", *group["jobs"]) == {"deleted": 1}
    assert counted(client, scan_id) == {"done": 0, "failed": 0, "cancelled": 1}
    assert stored(rig, scan_id)[0] == "cancelled"
    assert not client.exists(keys.job(group["jobs"][0]))
    assert rig.json("failed", "list") == []


def test_all_failed_jobs_are_requeued_and_deleted_however_many(rig, client):
    queue = ScanQueue("default", connection=client)
    jobs = [queue.enqueue("math.sqrt", "x") for _ in range(620)]
    for at, job in enumerate(jobs):
        client.hset(job.key, mapping={"status": "failed", "exc_info": "ValueError: at 5 of x"})
        client.zadd(keys.registry("failed", "default"), {job.id: 9e9 + at})
    client.delete(keys.queue("default"))
    (group,) = rig.json("failed", "list")
    assert group["count"] == len(group["jobs"]) == len(jobs)
    assert sum(g["count"] for g in rig.json("top", "--once")["failed"]) == 200  # top's limit
    assert rig.json("failed", "requeue", "--all") == {"requeued": len(jobs)}
    assert queue.job_ids == [job.id for job in jobs]
    assert client.zcard(keys.registry("failed", "default")) == 0
    rig.json("queue", "empty", "default")
    assert client.keys("rq:job:*") == []


def test_deleting_leaves_nothing_of_a_plain_job(rig, client):
    queue = ScanQueue("default", connection=client)
    job = queue.enqueue("math.sqrt", "x")
    dependent = queue.enqueue("time.sleep", 0, depends_on=job)
    worker = rig.start("worker.py", "default", "--burst", "--log-json", **ALLOW)
    assert worker.process.wait(60) == 0
    assert rig.json("failed", "delete", "--all", "--queue", "default") == {"deleted": 1}
    left = {key.decode() for key in client.keys(f"rq:*{job.id}*")}
    assert left <= {f"{dependent.key}"}


def test_a_host_with_another_store_may_not_decide_for_the_plan(rig, client, flag):
    scan_id = plan(rig, "127.0.0.1")
    other = f"sqlite:///{rig.folder}/other.db"
    done = rig.run("queue", "empty", "wakaka", RQSCAN_DATABASE_URL=other)
    assert done.returncode == 2
    assert "the fleet's store is" in done.stderr
    assert client.llen(keys.queue("wakaka")) == queue_of(client, scan_id)


def test_failed_jobs_of_odd_content_are_listed_and_deleted(rig, client):
    for name in ("no-hash", "no-job"):
        client.zadd(keys.registry("failed", "default"), {name: 9e9})
    client.set(keys.job("no-job"), "x")
    client.hset(keys.job("garbage"), mapping={"status": "failed", "exc_info": b"\xff", "x": b"\0"})
    client.zadd(keys.registry("failed", "default"), {"garbage": 9e9})
    listed = rig.json("failed", "list")
    assert sorted(job for group in listed for job in group["jobs"]) == [
        "garbage", "no-hash", "no-job",
    ]  # fmt: skip
    assert rig.json("failed", "show", "garbage")["worker"] is None
    assert rig.json("failed", "requeue", "no-hash")["requeued"] == 0
    assert rig.json("failed", "delete", "--all")["deleted"] == 2  # one was gone
    assert rig.json("failed", "list") == []
    assert json.loads(rig.run("queue", "list", "--json").stdout)
