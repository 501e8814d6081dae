"""The whole path, as a user walks it: commands in, results out, real processes in between."""

import csv
import json
import random
import re
import signal
import subprocess
import sys
import zlib
from pathlib import Path

import msgspec
import psutil
import pytest
import rq
from rq.job import Job
from rq.registry import FailedJobRegistry

from rqscan.broker import keys
from rqscan.broker.jobs import ScanJob
from rqscan.broker.payload import RUN_CHUNK
from rqscan.broker.queues import ScanQueue
from rqscan.fleet.presence import Presence
from tests.databases import MariaDB
from tests.rig import listeners
from tests.servers import missing, wait_for


@pytest.fixture
def client(redis_server):
    with redis_server.client() as found:
        yield found


@pytest.fixture(params=["sqlite", "mariadb"])
def network(request, rig):
    """Use each database, and a network of loopback that no other test looks at."""
    if request.param == "sqlite":
        return "127.0.0"
    server: MariaDB = request.getfixturevalue("mariadb")
    rig.env["RQSCAN_DATABASE_URL"] = server.database_url()
    return "127.0.1"


def nmap_open(hosts: str, ports: str) -> set[tuple[str, int]]:
    """Give what nmap finds open; its own defaults, no host discovery, no names."""
    try:
        done = subprocess.run(
            ["nmap", "-sT", "-T4", "-n", "-Pn", "-p", ports, "-oG", "-", hosts],
            capture_output=True, text=True, timeout=100, check=True,
        )  # fmt: skip
    except FileNotFoundError:
        missing("nmap")
    return {
        (line.split()[1], int(port))
        for line in done.stdout.splitlines()
        if "Ports:" in line
        for port in re.findall(r"(\d+)/open/", line)
    }


def test_a_scan_finds_what_nmap_finds(rig, network):
    hosts = f"{network}.1-20"
    taken = {each.laddr.port for each in psutil.net_connections("tcp") if each.status == "LISTEN"}
    # Below 1024 only root may listen.
    ports = [port for port in range(1024, 20_001) if port not in taken]
    spots = [(f"{network}.{host}", port) for host in range(1, 21) for port in ports]
    free = random.sample(spots, 40)
    rig.worker("wakaka", "--concurrency", "4")
    with listeners(free) as opened:
        assert len(opened) == 40
        before = nmap_open(hosts, "1-20000")
        done = rig.json("scan", hosts, "-p", "1-20000", "--queue", "wakaka", "--wait", timeout=200)
        after = nmap_open(hosts, "1-20000")
    rows = rig.json("results", done["scan_id"])
    found = {(row["host"], row["port"]) for row in rows}
    assert opened <= before & after & found
    # Others of this machine may have opened or closed a port in between.
    assert (before & after) - found == set(), "missed what nmap found before and after"
    assert found - (before | after) == set(), "found what nmap did not"
    assert done["state"] == "finished"
    assert done["probes"] == 400_000
    assert done["observations"] == len(found)
    assert done["chunks"] == {"total": 7, "done": 7, "failed": 0}
    assert {(row["state"], row["proto"], row["kind"]) for row in rows} == {("open", "tcp", "ports")}
    lines = rig.run("results", done["scan_id"], "--format", "csv").stdout.splitlines()
    assert len(list(csv.DictReader(lines))) == len(found)
    coverage = rig.json("results", done["scan_id"], "--coverage")
    looked_at = sum(row["data"]["probes"] for row in coverage if row["port"] is None)
    assert looked_at == 400_000
    (listed,) = rig.json("scans")
    assert listed["state"] == "finished"
    assert listed["targets"] == [hosts]
    assert listed["chunks"] == done["chunks"]


def test_a_scan_of_a_name_and_of_ipv6_reports_the_address_dialled(rig):
    rig.worker("default", "--concurrency", "1")
    with listeners([("127.0.0.1", 0), ("::1", 0)]) as opened:
        ports = ",".join(str(port) for _, port in opened)
        done = rig.json("scan", "localhost", "::1", "127.0.0.1", "-p", ports)
        rows = rig.json("results", done["scan_id"])
    assert opened <= {(row["host"], row["port"]) for row in rows}


def test_a_target_outside_the_scope_is_refused_before_anything_is_enqueued(rig, client):
    with listeners([("127.0.0.66", 0)]) as opened:
        ((_, port),) = opened
        done = rig.run("scan", "127.0.0.60-70", "-p", str(port), RQSCAN_SCOPE_DENY="127.0.0.66")
    assert done.returncode == 4
    assert "127.0.0.60-70" in done.stderr
    assert "denied by scope.deny 127.0.0.66; 1 of 11 targets" in done.stderr
    assert len(done.stderr.splitlines()) <= 2
    assert client.keys() == []
    assert rig.json("scans") == []


def test_skip_out_of_scope_leaves_them_out_and_says_how_many(rig):
    done = rig.run(
        "scan", "127.0.0.60-70", "-p", "1-10", "--skip-out-of-scope", "--dry-run", "--json",
        RQSCAN_SCOPE_DENY="127.0.0.66",
    )  # fmt: skip
    assert done.returncode == 0
    plan = json.loads(done.stdout)
    assert (plan["targets"], plan["probes"], plan["chunks"]) == (10, 100, 1)
    assert "1 target" in done.stderr


def test_a_payload_altered_by_hand_is_refused_by_the_worker_which_goes_on(rig, client):
    """The worker's own scope decides, whatever Redis says."""
    with listeners([("127.0.0.66", 0)]) as opened:
        ((_, port),) = opened
        done = rig.json("scan", "127.0.0.1", "-p", str(port), "--no-wait")
        job = ScanJob.fetch(f"{done['scan_id']}-0-1", connection=client)
        payload = [RUN_CHUNK, None, [], {**job.kwargs, "targets": ["127.0.0.66"]}]
        client.hset(job.key, "data", zlib.compress(json.dumps(payload).encode()))
        worker = rig.worker("default", RQSCAN_SCOPE_DENY="127.0.0.66")
        refused = worker.wait_for_event("job_refused")
        assert "127.0.0.66" in refused["error"]
        after = rig.json("scan", "127.0.0.1", "-p", str(port))
    assert after["state"] == "finished"
    assert rig.json("results", done["scan_id"]) == []
    assert int(client.hget(keys.COUNTERS, "refused")) == 1
    (state,) = [s["state"] for s in rig.json("scans") if s["scan_id"] == done["scan_id"]]
    assert state == "failed"


def test_foreign_payloads_are_refused_kept_and_counted_and_the_worker_goes_on(
    rig, client, tmp_path
):
    canary = tmp_path / "canary"
    pickled = rq.Queue("default", connection=client)  # RQ's default serializer
    stock = rq.Queue("default", connection=client, serializer="json")
    jobs = [
        stock.enqueue("os.system", f"touch {canary}"),
        stock.enqueue("subprocess.getoutput", f"touch {canary}"),
        stock.enqueue("rqscan.scan.execute.Runner", {}),
        pickled.enqueue("os.system", f"touch {canary}"),
        stock.enqueue("math.gcd", 4, 6, on_success=rq.Callback("os.system")),
    ]
    worker = rig.worker("default", RQSCAN_ALLOW_FUNCTIONS="math.gcd")
    worker.wait_for_event("job_refused", count=len(jobs))
    good = stock.enqueue("math.gcd", 4, 6)
    result = wait_for(good.latest_result, 30, "the result of an allowed function")
    assert result.return_value == 2
    assert good.get_status() == "finished"
    assert not canary.exists()
    assert int(client.hget(keys.COUNTERS, "refused")) == len(jobs)
    failed = FailedJobRegistry("default", connection=client).get_job_ids(cleanup=False)
    assert sorted(failed) == sorted(job.id for job in jobs)
    kept = Job.fetch(jobs[0].id, connection=client, serializer="json")
    assert list(kept.args) == [f"touch {canary}"]
    assert "os.system" in kept.latest_result().exc_string


def test_rqs_own_tools_see_our_workers_queues_and_jobs(rig, client):
    rig.worker("wakaka", "default", "--name", "w1", "--concurrency", "3")
    done = rig.json("scan", "127.0.0.1", "-p", "1-10", "--queue", "wakaka")
    (worker,) = wait_for(lambda: rq.Worker.all(connection=client), 30)
    assert (worker.name, worker.queue_names(), worker.get_state()) == (
        "w1",
        ["wakaka", "default"],
        "idle",
    )
    assert rq.Worker.count(connection=client) == 1
    assert rq.Queue("wakaka", connection=client).count == 0
    job = Job.fetch(f"{done['scan_id']}-0-1", connection=client, serializer="json")
    assert job.get_status() == "finished"
    assert job.latest_result().return_value == {"observations": done["observations"], "probes": 10}
    info = subprocess.run(
        [Path(sys.executable).with_name("rq"), "info", "--url", rig.env["RQSCAN_REDIS_URL"]],
        capture_output=True, text=True, timeout=30, check=True,
    ).stdout  # fmt: skip
    assert "wakaka" in info
    assert "w1" in info


def test_four_work_horses_run_at_once_under_one_worker_name(rig, client):
    worker = rig.worker(
        "wakaka", "--name", "w1", "--concurrency", "4", RQSCAN_ALLOW_FUNCTIONS="time.sleep"
    )
    queue = ScanQueue("wakaka", connection=client)
    jobs = [queue.enqueue("time.sleep", 30) for _ in range(6)]

    def running():
        record = json.loads(client.get(keys.record("w1")) or "{}")
        return record.get("jobs", []) if len(record.get("jobs", [])) == 4 else None

    started = wait_for(running, 30, "four running jobs")
    assert {job["id"] for job in started} == {job.id for job in jobs[:4]}
    assert len(rq.Worker.all(connection=client)) == 1
    assert queue.count == 2  # no more is claimed than can run
    worker.process.send_signal(signal.SIGTERM)
    worker.wait_for_event("stop_requested")
    worker.process.send_signal(signal.SIGTERM)  # the second gives them back at once
    assert worker.process.wait(60) == 0
    assert sorted(queue.job_ids) == sorted(job.id for job in jobs)
    assert not client.exists(keys.record("w1"))


def test_a_warm_stop_lets_the_running_job_finish(rig, client):
    worker = rig.worker("default", "--concurrency", "1", RQSCAN_ALLOW_FUNCTIONS="time.sleep")
    queue = ScanQueue("default", connection=client)
    running, waiting = queue.enqueue("time.sleep", 1), queue.enqueue("time.sleep", 1)
    worker.wait_for_event("job_started")
    assert worker.stop() == 0
    assert running.get_status() == "finished"
    assert queue.job_ids == [waiting.id]


def test_a_killed_work_horse_costs_an_attempt_and_three_make_poison(rig, client):
    worker = rig.worker(
        "default", "--name", "w1", "--concurrency", "1", RQSCAN_ALLOW_FUNCTIONS="os.abort"
    )
    queue = ScanQueue("default", connection=client)
    job = queue.enqueue("os.abort")
    worker.wait_for_event("job_lost", count=3)
    wait_for(lambda: job.get_status() == "failed", 30)
    assert "killed by SIGABRT" in job.latest_result().exc_string
    assert "died 3 times" in job.latest_result().exc_string
    good = queue.enqueue("os.abort", job_id="next")
    worker.wait_for_event("job_started", count=4)
    assert good.id == "next"


def test_a_job_past_its_hard_limit_is_stopped_and_failed(rig, client):
    rig.worker("default", "--concurrency", "1", RQSCAN_ALLOW_FUNCTIONS="time.sleep")
    job = ScanQueue("default", connection=client).enqueue("time.sleep", 60, job_timeout=1)
    wait_for(lambda: job.get_status() == "failed", 30)
    assert "hard limit of 1 s" in job.latest_result().exc_string


def test_a_worker_outlives_redis_and_records_what_ended_meanwhile(rig, client, redis_server):
    worker = rig.worker("default", "--concurrency", "2", RQSCAN_ALLOW_FUNCTIONS="time.sleep")
    queue = ScanQueue("default", connection=client)
    job = queue.enqueue("time.sleep", 2)
    worker.wait_for_event("job_started")
    wait_for(lambda: client.info("persistence")["aof_pending_bio_fsync"] == 0, 30)
    redis_server.stop()
    worker.wait_for_event("redis_lost")
    redis_server.start()
    worker.wait_for_event("redis_back")
    wait_for(lambda: job.get_status() == "finished", 30)
    assert len(worker.of("redis_lost")) == len(worker.of("redis_back")) == 1
    after = queue.enqueue("time.sleep", 0)
    wait_for(lambda: after.get_status() == "finished", 30)
    assert len(worker.of("job_started")) == 2


def test_a_second_living_worker_of_one_name_is_refused(rig, client):
    rig.worker("default", "--name", "w1")
    wait_for(lambda: client.exists(keys.record("w1")), 30)
    second = rig.start("worker.py", "default", "--name", "w1")
    assert second.process.wait(60) == 1
    assert "worker name 'w1' is held by a worker that lives: pid" in second.log.read_text()


def test_a_worker_killed_with_its_host_comes_back_under_its_name_and_takes_over(rig, client):
    worker = rig.worker(
        "default", "--name", "w1", "--concurrency", "1", RQSCAN_ALLOW_FUNCTIONS="time.sleep"
    )
    job = ScanQueue("default", connection=client).enqueue("time.sleep", 1)
    worker.wait_for_event("job_started")
    wait_for(lambda: client.exists(keys.record("w1")), 30)
    worker.process.kill()
    worker.process.wait()
    again = rig.worker("default", "--name", "w1", RQSCAN_ALLOW_FUNCTIONS="time.sleep")
    assert again.wait_for_event("job_started")["attempt"] == 2
    wait_for(lambda: job.get_status() == "finished", 30)
    assert int(client.hget(keys.COUNTERS, "rescued")) == 1


def test_a_waiting_scan_says_so_when_nobody_listens(rig):
    process = subprocess.Popen(
        [sys.executable, "-m", "rqscan", "scan", "127.0.0.1", "-p", "1"],
        stderr=subprocess.PIPE, env=rig.env, text=True, cwd=rig.folder,
    )  # fmt: skip
    try:
        line = process.stderr.readline()
        assert "no worker listens on queue 'default'" in line
        assert "python worker.py default" in line
        rig.worker("default")
        assert process.wait(60) == 0
    finally:
        process.kill()
        process.wait()
        process.stderr.close()


def test_a_waiting_scan_rides_out_a_restart_of_redis(rig, redis_server):
    process = subprocess.Popen(
        [sys.executable, "-m", "rqscan", "scan", "127.0.0.1", "-p", "1", "--json"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=rig.env, text=True, cwd=rig.folder,
    )  # fmt: skip
    try:
        assert "no worker listens" in process.stderr.readline()
        redis_server.stop()
        redis_server.start()
        rig.worker("default")
        out, _ = process.communicate(timeout=60)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 0
    assert json.loads(out)["state"] == "finished"


def test_presence_says_what_the_worker_is(rig, client):
    rig.worker("default", "--name", "w1", "--concurrency", "2")
    raw = wait_for(lambda: client.get(keys.record("w1")), 30)
    presence = msgspec.json.decode(raw, type=Presence)
    assert presence.queues == ["default"]
    assert presence.versions.keys() == {"rqscan", "rq", "redis", "python"}
    assert presence.concurrency == 2
    assert presence.client_id in {int(c["id"]) for c in client.client_list()}


@pytest.mark.root
def test_a_worker_runs_as_root_with_one_warning_and_as_an_ordinary_user_with_none(
    rig, redis_server
):
    as_root = rig.worker("wakaka", "--burst")
    assert as_root.process.wait(60) == 0
    assert len(as_root.of("running_as_root")) == 1
    redis_server.socket.chmod(0o777)
    rig.become_nobody()
    done = rig.json("scan", "127.0.0.1", "-p", "1-100", "--no-wait", "--queue", "wakaka")
    ordinary = rig.worker("wakaka", "--burst")
    assert ordinary.process.wait(60) == 0
    assert ordinary.of("running_as_root") == []
    assert len(ordinary.of("job_finished")) == 1
    (listed,) = rig.json("scans")
    assert (listed["scan_id"], listed["state"]) == (done["scan_id"], "finished")
