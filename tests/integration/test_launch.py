"""A worker's process, once it has left behind what only its start needs."""

import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
import redis
from msgspec import msgpack

from rqscan.broker.connect import endpoint_of
from rqscan.broker.endpoint import Endpoint
from rqscan.settings import Settings
from tests.rig import Rig
from tests.servers import wait_for

HEAVY = {"redis", "rq", "click", "rich", "asyncio", "sqlite3", "pymysql", "importlib.metadata"}


def pss_bytes(process):
    rollup = Path(f"/proc/{process.pid}/smaps_rollup").read_text()
    return next(1024 * int(s.split()[1]) for s in rollup.splitlines() if s.startswith("Pss:"))


def held(pid):
    return [str(file.readlink()) for file in Path(f"/proc/{pid}/fd").iterdir()]


def settled(worker, spares):
    """Give the worker's process and its template's and horses', once its first errand is over."""
    process = psutil.Process(worker.process.pid)

    def found():
        tree = process.children(recursive=True)
        with suppress(psutil.NoSuchProcess):  # the errand that ends just now
            own = [child for child in tree if child.ppid() == process.pid]
            if len(own) == 1 and len(tree) == 1 + spares:
                return [process, *tree]
        return None

    return wait_for(found, 30, "the template and its spares alone")


def test_it_does_not_load_what_weighs():
    program = "import sys, rqscan.fleet.worker_start; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    loaded = set(done.stdout.split())
    assert "rqscan.fleet.loop" in loaded
    assert not loaded & HEAVY


def test_an_idle_worker_with_its_spare_horses_is_small_and_shows_what_it_is(rig):
    worker = rig.worker("default", "--concurrency", "4")
    processes = settled(worker, 4)
    assert sum(map(pss_bytes, processes)) < 40e6
    process = processes[0]
    assert process.cmdline()[1:3] == ["-m", "rqscan.fleet.worker_start"]
    assert " ".join(process.cmdline()).endswith("worker.py default --concurrency 4 --log-json")
    assert len(worker.of("worker_started")) == 1
    assert worker.stop() == 0


def test_it_keeps_the_homes_server_and_its_children_do_not(home, tmp_path):
    rig = Rig(Settings(home=str(home)), tmp_path)
    worker = rig.worker("default", "--concurrency", "1")
    try:
        process, *children = settled(worker, 1)
        lock = f"{home}/redis/users.lock"
        assert held(process.pid).count(lock) == 1
        for child in children:
            assert lock not in held(child.pid)
        assert worker.stop() == 0
    finally:
        rig.close()


LATE = """
import os, signal, sys
from rqscan.cli import main

execv = os.execv
signal.signal(int(sys.argv[1]), signal.SIG_DFL)  # whoever runs the tests may ignore it

def late(*words):
    os.kill(os.getpid(), int(sys.argv[1]))
    execv(*words)

os.execv = late
sys.exit(main(["worker", "default", "--log-json"]))
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_that_comes_while_it_changes_is_not_lost(rig, tmp_path, number):
    (tmp_path / "late.py").write_text(LATE)
    worker = rig.start(str(tmp_path / "late.py"), str(int(number)))
    assert worker.process.wait(30) == 0
    assert [record["signal"] for record in worker.of("stop_requested")] == [number.name]
    assert worker.of("worker_stopped")


@pytest.mark.parametrize("role", ["worker", "scheduler"])
def test_a_signal_that_comes_while_it_connects_is_not_lost(rig, redis_server, role):
    def connections() -> int:
        return Path("/proc/net/unix").read_text().count(f"{redis_server.socket}\n")

    before = connections()
    redis_server.freeze()
    process = rig.start("-m", "rqscan", role).process
    wait_for(lambda: connections() > before)
    process.terminate()
    redis_server.thaw()
    assert process.wait(10) == 0


TLS = (
    "ssl_ca_certs=/ca.pem&ssl_certfile=/a.pem&ssl_keyfile=/k.pem&ssl_password=s3cret"
    "&ssl_check_hostname=no&ssl_min_version=771&ssl_exclude_verify_flags=VERIFY_X509_STRICT"
)


@pytest.mark.parametrize(
    "url",
    [
        "unix:///run/a b.sock?db=2",
        "redis://:s%40cret@[::1]:7000/3",
        f"rediss://bird:s3cret@redis.example?{TLS}",
        "rediss://h?ssl_cert_reqs=none",
    ],
)
def test_an_endpoint_can_be_handed_on_and_shows_no_password(url):
    endpoint = endpoint_of(redis.Redis.from_url(url))
    assert msgpack.decode(msgpack.encode(endpoint), type=Endpoint) == endpoint
    assert "cret" not in repr(endpoint)
    assert (endpoint.tls is not None) == url.startswith("rediss")
