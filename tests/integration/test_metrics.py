"""`rqscan metrics` as Prometheus meets it: a real process and a real Redis, scraped over HTTP."""

import json
import re
import signal
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest
import redis
from prometheus_client.openmetrics import parser as openmetrics
from prometheus_client.parser import text_string_to_metric_families as parsed

from rqscan.broker import keys
from rqscan.broker.queues import ScanQueue
from rqscan.fleet.reports import JobReport, SpoolReport
from rqscan.model import Chunk
from rqscan.settings import QueueSettings
from tests.rig import Rig, Started
from tests.scripted import ScriptedWorker
from tests.servers import RedisServer, wait_for

ROOT = Path(__file__).resolve().parents[2]
ODD_HOST = 'a"b\\n\n\u202e'


@pytest.fixture
def client(redis_server: RedisServer) -> redis.Redis:
    return redis_server.client()


@pytest.fixture
def fleet(client) -> str:
    """Write a bit of everything; gives the id of the job that runs."""
    chunks = [
        Chunk(scan_id="s1", chunk=n, kind="ports", targets=["127.0.0.1"], params={})
        for n in range(6)
    ]
    client.hset(keys.progress("s1"), "total", 6)
    client.zadd(keys.SCANS, {"s1": 1.0})
    list(ScanQueue("wakaka", connection=client).enqueue_chunks(chunks, QueueSettings()))
    spool = SpoolReport(home="/h", rows=7, bytes=4096, oldest_s=30.0, quarantined=2)
    worker = ScriptedWorker(client, "web01.100", lease_s=600.0, spool=spool)
    worker.beat()
    running, done, failed = worker.claim(3)
    worker.end(done, "finished")
    worker.end(failed, "failed", "TimeoutError: 127.0.0.7")
    worker.beat(JobReport(id=running, kind="ports", age_s=900.0, limit_s=60, progress=0.5))
    ScriptedWorker(client, "old.1", host=ODD_HOST, lease_s=600.0, clock_offset_s=92.0).beat()
    seconds, _ = client.time()
    client.zadd(keys.SCHEDULE, {"nightly": seconds + 3600, "late": seconds - 3600, "off": "inf"})
    said = {"last_at": "2026-12-01T02:00:00.000000Z", "lateness_s": "0.25", "state": "scheduled"}
    client.hset(keys.schedule_entry("nightly"), mapping=said)
    leader = {"name": "sched.1", "host": "web", "pid": 3, "entries": "ab", "at": seconds}
    client.hset(keys.SCHEDULERS, "sched.1", json.dumps(leader))
    client.set(keys.LEADER, json.dumps(leader))
    client.hset(keys.COUNTERS, mapping={"rescued": 3, "lost": 4})
    return running


def start(rig: Rig, *arguments: str) -> tuple[Started, str]:
    started = rig.start("-m", "rqscan", "metrics", "--port", "0", "--log-json", *arguments)
    return started, started.wait_for_event("metrics_started")["url"]


def get(url: str, accept: str = "text/plain") -> str:
    request = urllib.request.Request(url, headers={"Accept": accept})
    with urllib.request.urlopen(request, timeout=30) as answer:
        return answer.read().decode()


def figures(text: str) -> dict[tuple[str, ...], float]:
    """Give each series by its name and its labels' values, in the order of the labels' names."""
    samples = [sample for family in parsed(text) for sample in family.samples]
    found = {(s.name, *(s.labels[name] for name in sorted(s.labels))): s.value for s in samples}
    assert len(found) == len(samples)
    return found


def types(text: str) -> dict[str, str]:
    return dict(re.findall(r"(?m)^# TYPE (\S+) (\S+)$", text))


def test_the_figures_are_those_of_top(rig, fleet) -> None:
    _, url = start(rig)
    found, top = figures(get(url)), rig.json("top")
    queue = next(queue for queue in top["queues"] if queue["name"] == "wakaka")
    assert (queue["depth"], queue["running"], queue["failed"]) == (3, 1, 1)
    for state, name in (("waiting", "depth"), ("running", "running"), ("failed", "failed")):
        assert found["rqscan_queue_jobs", "wakaka", state] == queue[name]
    assert found["rqscan_queue_workers", "wakaka"] == queue["workers"] == 2
    assert found["rqscan_queue_paused", "wakaka"] == queue["paused"] == 0
    for worker in top["workers"]:
        host, name = who = worker["host"], worker["name"]
        assert found["rqscan_worker_state", host, worker["state"], name] == 1
        assert found["rqscan_worker_clock_offset_seconds", *who] == worker["clock_offset_s"]
        assert found["rqscan_worker_resident_memory_bytes", *who] == worker["rss_bytes"]
        assert found["rqscan_worker_jobs_done_total", *who] == worker["done"]
        assert found["rqscan_worker_jobs_running", *who] == len(worker["jobs"])
        assert found["rqscan_worker_info", host, "", "", "3.0.0", "0.1.0", name] == 1
    assert {worker["host"] for worker in top["workers"]} == {"web", ODD_HOST}
    assert sum(n for key, n in found.items() if key[0] == "rqscan_workers") == 2
    assert found["rqscan_jobs_running", "ports"] == 1
    assert found["rqscan_spool_rows", "/h", "web"] == 7
    assert found["rqscan_spool_quarantined_entries", "/h", "web"] == 2
    assert found["rqscan_schedule_lateness_seconds", "nightly"] == 0.25
    assert found["rqscan_schedule_overdue_seconds", "late"] >= 3600
    assert ("rqscan_schedule_next_run_timestamp_seconds", "off") not in found
    assert found["rqscan_schedule_entries",] == top["entries"]["count"] == 3
    assert found["rqscan_schedule_has_leader",] == found["rqscan_scheduler_leads", "web", "sched.1"]
    assert {state: found["rqscan_scan_chunks", "s1", state] for state in ("done", "open")} == {
        "done": 1,
        "open": 4,
    }
    assert found["rqscan_jobs_rescued_total",] == top["counters"]["rescued"] == 3
    assert found["rqscan_redis_up",] == top["redis"]["up"]
    what = {(one["what"], one["level"]) for one in top["trouble"]}
    assert {(k[2], k[1]) for k in found if k[0] == "rqscan_troubles"} == what
    assert {"clock off", "job over limit"} < {name for name, _ in what}


def test_no_job_is_a_label_and_trouble_with_one_names_its_worker(rig, fleet) -> None:
    _, url = start(rig)
    text = get(url)
    assert fleet not in text
    over = [
        key for key in figures(text) if key[0] == "rqscan_trouble" and key[3] == "job over limit"
    ]
    assert [key[2] for key in over] == ["web01.100"]


def test_names_are_as_prometheus_wants_them(rig, fleet) -> None:
    _, url = start(rig)
    text = get(url)
    for name, kind in types(text).items():
        assert re.fullmatch("rqscan(_[a-z]+)+", name)
        assert name.endswith("_total") == (kind == "counter"), name
        assert not re.search("_(count|sum|bucket|gauge|counter|metric)$", name), name
        odd = "(ms|milliseconds|minutes|hours|days|kb|mb|percent|s|sec|kilobytes)"
        assert not re.search(f"_{odd}(_|$)", name), name
    helps = re.findall(r"(?m)^# HELP \S+ (.*)$", text)
    assert len(helps) == len(types(text))
    assert all(re.fullmatch(r"[A-Z1].+\.|.+tells the cause\.", told) for told in helps)
    strict = get(url, "application/openmetrics-text;version=1.0.0")
    families = list(openmetrics.text_string_to_metric_families(strict))
    assert len(families) == len(types(text))
    assert {
        s.labels["host"] for family in families for s in family.samples if "host" in s.labels
    } > {ODD_HOST}


def test_scrapes_that_ask_for_some_get_those(rig) -> None:
    _, url = start(rig)
    assert set(types(get(f"{url}?name[]=rqscan_redis_up"))) == {"rqscan_redis_up"}


def test_redis_away_is_told_without_old_figures_and_back_is_back(rig, fleet, redis_server) -> None:
    started, url = start(rig)
    assert figures(get(url))["rqscan_redis_up",] == 1
    redis_server.kill()
    away = wait_for(lambda: (f := figures(get(url)))["rqscan_redis_up",] == 0 and f, 20)
    assert {name for name, *_ in away} == {"rqscan_redis_up", "rqscan_scrape_duration_seconds"}
    assert started.wait_for_event("redis_lost")["reason"].startswith("cannot use Redis")
    redis_server.start()
    back = wait_for(lambda: (f := figures(get(url)))["rqscan_redis_up",] == 1 and f, 20)
    assert back["rqscan_queue_jobs", "wakaka", "waiting"] == 3
    started.wait_for_event("redis_back")
    assert len(started.of("redis_lost")) == 1
    assert started.stop() == 0


def test_a_silent_redis_holds_up_neither_a_scrape_nor_the_end(rig, redis_server) -> None:
    started, url = start(rig)
    redis_server.freeze()
    wait_for(lambda: figures(get(url))["rqscan_redis_up",] == 0, 20)
    assert started.stop() == 0
    redis_server.thaw()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_with_0(rig, number) -> None:
    started, _ = start(rig)
    started.process.send_signal(number)
    assert started.process.wait(20) == 0
    assert started.of("metrics_stopped")[0]["signal"] == number.name


def test_once_prints_what_a_scrape_gets(rig, fleet) -> None:
    done = rig.run("metrics", "--once")
    assert (done.returncode, done.stderr) == (0, "")
    _, url = start(rig)
    assert types(done.stdout) == types(get(url))
    assert figures(done.stdout)["rqscan_queue_jobs", "wakaka", "waiting"] == 3


@pytest.mark.parametrize("arguments", [[], ["--once"]])
def test_a_first_connection_that_fails_is_3(rig, redis_server, arguments) -> None:
    redis_server.kill()
    done = rig.run("metrics", "--port", "0", *arguments)
    assert (done.returncode, done.stdout) == (3, "")
    assert done.stderr.startswith("rqscan: error: cannot use Redis at unix://")
    assert done.stderr.count("\n") == 2


def test_a_port_that_another_has_is_1(rig) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        done = rig.run("metrics", "--port", str(port))
    assert done.returncode == 1
    error = f"rqscan: error: cannot listen on 127.0.0.1:{port}: Address already in use; "
    assert done.stderr.splitlines()[-1].startswith(error)


@pytest.mark.parametrize("host", ["192.0.2.1", "no host", ""])
def test_an_address_that_is_not_ours_is_2(rig, host) -> None:
    done = rig.run("metrics", "--port", "0", "--listen", host)
    assert done.returncode == 2
    assert re.search(f"rqscan: error: (cannot listen on|Invalid value).*{host}", done.stderr)
    assert "Traceback" not in done.stderr


def test_without_its_package_it_names_the_extra(rig) -> None:
    program = "import sys; sys.modules['prometheus_client'] = None; from rqscan.cli import main\n"
    done = subprocess.run(
        [sys.executable, "-c", f"{program}sys.exit(main(['metrics']))"],
        capture_output=True, text=True, env=rig.env, timeout=60, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(
        "rqscan: error: rqscan metrics needs the package prometheus_client"
    )
    assert done.stderr.endswith("run: pip install 'rqscan[metrics]'\n")
    assert done.stderr.count("\n") == 1
