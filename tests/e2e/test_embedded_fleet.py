"""Worker and scan in a home of their own, with no Redis configured."""

import os
import signal

import psutil
import pytest

from rqscan.settings import Settings
from tests.rig import Rig, listeners
from tests.servers import wait_for


@pytest.fixture
def rig(home, tmp_path):
    made = Rig(Settings(home=str(home)), tmp_path)
    yield made
    made.close()


def of_home(rig):
    """Give the processes that serve the home: keeper and server."""
    home = rig.env["RQSCAN_HOME"]
    found = []
    for process in psutil.process_iter(["cmdline"]):
        words = " ".join(process.info["cmdline"] or [])
        if process.pid != os.getpid() and (f"keeper {home}" in words or f"{home}/redis" in words):
            found.append(process)
    return found


def test_worker_and_scan_share_the_homes_server_and_leave_nothing(rig):
    worker = rig.worker("default")
    with listeners([("127.0.0.1", 0)]) as opened:
        ((_, port),) = opened
        done = rig.json("scan", "127.0.0.1", "-p", str(port))
    assert (done["state"], done["observations"]) == ("finished", 1)
    assert of_home(rig)
    assert worker.stop() == 0
    wait_for(lambda: not of_home(rig), 10, "the home's server to end")


def test_a_worker_gets_its_home_a_new_server_when_keeper_and_server_are_killed(rig):
    worker = rig.worker("default")
    for process in of_home(rig):
        process.send_signal(signal.SIGKILL)
    worker.wait_for_event("redis_back")
    assert rig.json("scan", "127.0.0.1", "-p", "1")["state"] == "finished"


def test_up_runs_the_first_scan_and_leaves_no_process(rig):
    with listeners([("127.0.0.1", 0)]) as opened:
        ((_, port),) = opened
        done = rig.run("up", "--scan", "127.0.0.1", timeout=120)
    assert done.returncode == 0, done.stderr
    assert str(port) in done.stdout
    assert of_home(rig) == []
    assert [p for p in psutil.process_iter() if _is_of(p, rig.env["RQSCAN_HOME"])] == []


def _is_of(process: psutil.Process, home: str) -> bool:
    try:
        return process.environ().get("RQSCAN_HOME") == home
    except (psutil.AccessDenied, psutil.NoSuchProcess):
        return False


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_up_ends_all_when_it_is_ended(rig, number):
    up = rig.start("-m", "rqscan", "up")
    wait_for(lambda: "run; ^C ends all" in up.log.read_text(), 30)
    up.process.send_signal(number)
    assert up.process.wait(30) == (-number if number == signal.SIGKILL else 0)
    wait_for(
        lambda: not [p for p in psutil.process_iter() if _is_of(p, rig.env["RQSCAN_HOME"])], 30
    )
