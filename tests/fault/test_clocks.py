"""Hosts whose clocks are wrong: nothing is run twice, and nothing times out early or late."""

import json
import signal

import pytest

from rqscan import clock
from rqscan.broker import keys
from rqscan.broker.queues import ScanQueue
from tests.servers import faked_clock, wait_for

ALLOW = {"RQSCAN_ALLOW_FUNCTIONS": "os.system"}  # libfaketime breaks time.sleep
SHIFTS = {"-1h": -3600, "-10m": -600, "+10m": 600, "+1h": 3600}


@pytest.fixture
def client(redis_server):
    with redis_server.client() as found:
        yield found


@pytest.mark.parametrize("shift", SHIFTS)
def test_a_wrong_clock_is_told_and_decides_nothing(rig, client, shift):
    (rig.folder / "rqscan.toml").write_text("[queues.short]\ntimeout_s = 3\n")
    wrong = rig.worker(
        "default", "short", "--name", "wrong", "--concurrency", "2", **ALLOW, **faked_clock(shift)
    )
    off_s = wrong.wait_for_event("clock_off")["off_s"]
    assert abs(off_s - SHIFTS[shift]) < 60

    def measured():
        record = json.loads(client.get(keys.record("wrong")))
        return record if record["clock_offset_s"] is not None else None

    record = wait_for(measured, 30)
    assert abs(record["clock_offset_s"] + SHIFTS[shift]) < 60
    assert record["clock_error_s"] < 5
    good = rig.worker("default", "--name", "good", "--concurrency", "1", **ALLOW)
    wait_for(lambda: client.zscore(keys.HOLDERS, "good"), 30)
    queue = ScanQueue("default", connection=client)
    jobs = [queue.enqueue("os.system", "exec sleep 9") for _ in range(3)]  # longer than any lease
    limited = ScanQueue("short", connection=client).enqueue(
        "os.system", "exec sleep 60", job_timeout=3
    )
    wait_for(lambda: limited.get_status() == "failed", 60)
    wait_for(lambda: all(job.get_status() == "finished" for job in jobs), 60)
    assert [int(client.hget(job.key, "rqscan_attempt")) for job in [*jobs, limited]] == [1] * 4
    assert not client.hget(keys.COUNTERS, "rescued")
    ended = limited.latest_result()
    worked_s = (ended.execution_ended_at - ended.execution_started_at).total_seconds()
    assert 3 <= worked_s < 60
    for job in [*jobs, limited]:
        job.refresh()
        assert abs((clock.now() - job.ended_at).total_seconds()) < 120
    assert not good.of("workers_lost")


@pytest.mark.parametrize("shift", ["-10m", "+10m"])
def test_a_sweeper_with_a_wrong_clock_rescues_the_dead_and_no_one_else(rig, client, shift):
    rig.worker("default", "--name", "wrong", "--concurrency", "1", **ALLOW, **faked_clock(shift))
    wait_for(lambda: client.get(keys.SWEEPER) == b"wrong", 30)
    queue = ScanQueue("default", connection=client)
    held = [queue.enqueue("os.system", f"exec sleep {n}") for n in (20, 12, 12)]
    wait_for(lambda: held[0].get_status() == "started", 30)
    victim = rig.worker("default", "--name", "victim", "--concurrency", "1", **ALLOW)
    victim.wait_for_event("job_started")
    other = rig.worker("default", "--name", "other", "--concurrency", "1", **ALLOW)
    other.wait_for_event("job_started")
    victim.process.send_signal(signal.SIGKILL)
    wait_for(lambda: all(job.get_status() == "finished" for job in held), 90)
    assert [int(client.hget(job.key, "rqscan_attempt")) for job in held] == [1, 2, 1]
    assert client.hget(keys.COUNTERS, "rescued") == b"1"
