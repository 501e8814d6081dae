"""`rqscan doctor` with real servers and workers."""

import json
import signal
import socket

import pytest

from rqscan.broker import keys
from rqscan.store.spool import Spool
from tests.servers import faked_clock, wait_for
from tests.spools import a_record


@pytest.fixture
def client(redis_server):
    with redis_server.client() as found:
        yield found


def doctor(rig, code, **env):
    done = rig.run("doctor", "--timeout", "3", "--json", **env)
    assert done.returncode == code, done.stderr or done.stdout
    told = json.loads(done.stdout)
    assert list(told) == ["ok", "checks"]
    assert told["ok"] == (code == 0)
    assert all(list(one) == ["name", "status", "value", "advice"] for one in told["checks"])
    return {one["name"]: one for one in told["checks"]}


def is_measured(client, name):
    record = json.loads(client.get(keys.record(name)) or b"{}")
    return record.get("clock_offset_s") is not None


def test_a_fleet_in_good_health_passes(rig, client):
    rig.worker("default", "--name", "w1")
    wait_for(lambda: is_measured(client, "w1"), 30)
    checks = doctor(rig, 0)
    assert {one["status"] for name, one in checks.items() if name not in {"root", "disk"}} == {"ok"}
    assert checks["redis persistence"]["value"] == "appendonly yes, appendfsync everysec"
    assert "1 of 1" in checks["workers"]["value"]
    shown = rig.run("doctor", "--timeout", "3").stdout
    assert "redis eviction" in shown


def test_a_host_with_a_wrong_clock_is_named_with_what_to_do(rig, client):
    rig.worker("default", "--name", "w1", **faked_clock("+10m"))
    wait_for(lambda: is_measured(client, "w1"), 30)
    clock = doctor(rig, 1)["clock"]
    assert clock["status"] == "fail"
    assert clock["value"].startswith(f"{socket.gethostname()} is +")
    assert "chrony or ntp" in clock["advice"]


def test_silent_and_lost_workers_unserved_queues_and_unsafe_settings_fail(
    rig, client, redis_server
):
    frozen = rig.worker("default", "--name", "frozen", RQSCAN_WORKER_LEASE_S="600")
    dead = rig.worker("default", "--name", "dead")
    wait_for(lambda: client.zcard(keys.PRESENCE) == 2, 30)
    frozen.process.send_signal(signal.SIGSTOP)
    dead.process.kill()
    client.lpush(keys.queue("wakaka"), "some-job")
    client.config_set("maxmemory-policy", "allkeys-lru")
    client.config_set("maxmemory", 1 << 30)
    wait_for(lambda: "worker lost" in doctor(rig, 1), 60)
    checks = doctor(rig, 1)
    assert "frozen on" in checks["worker silent"]["value"]
    assert "dead on" in checks["worker lost"]["value"]
    assert checks["queue unserved"]["advice"] == "run: rqscan worker wakaka"
    assert checks["redis eviction"]["status"] == "fail"


def test_what_redis_does_not_let_us_ask_is_a_warning(rig, client, redis_server):
    client.acl_setuser(
        "scan", enabled=True, passwords=["+hunter2"], keys=["*"], channels=["*"],
        commands=["+@all", "-config", "-info"],
    )  # fmt: skip
    url = redis_server.url.replace("unix://", "unix://scan:hunter2@")
    checks = doctor(rig, 0, RQSCAN_REDIS_URL=url)
    assert checks["redis settings"]["status"] == "warn"
    assert "redis persistence" not in checks
    assert "hunter2" not in json.dumps(checks)


def test_servers_that_are_away_are_failed_checks_and_no_crash(rig, redis_server):
    redis_server.kill()
    checks = doctor(rig, 1, RQSCAN_DATABASE_URL=f"sqlite:///{rig.folder}")
    assert checks["redis"]["status"] == checks["store"]["status"] == "fail"
    assert checks["home"]["status"] == "ok"


def test_what_a_home_keeps_and_the_redis_of_its_stream_are_judged(rig, settings, stream_server):
    rig.env["RQSCAN_SPOOL_REDIS_URL"] = stream_server.url
    checks = doctor(rig, 0)
    assert checks["spool"]["value"] == "nothing waits for the store"
    assert {checks[name]["status"] for name in checks if name.startswith("stream")} == {"ok"}
    spool = Spool(settings)
    spool.append(a_record(0))
    stream_server.kill()
    checks = doctor(rig, 1, RQSCAN_SPOOL_MAX_DELAY_S="0.001")
    assert checks["spool"]["value"].startswith("1 rows wait for the store, 0% of spool.max_bytes, ")
    assert (checks["spool"]["status"], checks["stream"]["status"]) == ("warn", "fail")
    assert "spool.redis_url" in checks["stream"]["advice"]
    secret = doctor(rig, 1, RQSCAN_SPOOL_REDIS_URL="redis://:hunter2@127.0.0.1:1/0?db=x")
    assert "hunter2" not in json.dumps(secret)
    assert secret["stream"]["status"] == "fail"


@pytest.mark.root
def test_a_home_that_may_not_be_written_is_a_failed_check(rig):
    locked = rig.folder / "locked"
    locked.mkdir(mode=0o755)
    rig.become_nobody()
    database = f"sqlite:///{rig.folder}/store.db"
    checks = doctor(rig, 1, RQSCAN_HOME=str(locked / "home"), RQSCAN_DATABASE_URL=database)
    assert str(locked / "home") in checks["home"]["value"]
    assert "root" not in checks
