"""Jobs that hang: their stacks tell where, and they end."""

import pytest

from rqscan.broker import keys
from rqscan.broker.jobs import ScanJob
from tests.servers import wait_for


@pytest.fixture
def client(redis_server):
    with redis_server.client() as found:
        yield found


def submit(rig, kind):
    rig.use_odd_kinds()
    return rig.json("scan", "127.0.0.1", "--kind", kind, "-p", "1", "--no-wait")["scan_id"]


@pytest.mark.parametrize("kind", ["deadlock", "hang"])
def test_a_job_without_progress_is_stopped_and_its_stacks_are_kept(rig, client, kind):
    scan_id = submit(rig, kind)
    worker = rig.worker("default", "--concurrency", "1")
    failed = worker.wait_for_event("job_failed")
    assert failed["error"].endswith("no progress for 1 s")
    text = ScanJob.fetch(f"{scan_id}-0-1", connection=client).latest_result().exc_string
    assert "most recent call first" in text
    assert f"in {kind}" in text
    assert "odd.py" in text
    assert text.strip().endswith("no progress for 1 s")
    assert client.hget(keys.progress(scan_id), "failed") == b"1"
    assert rig.json("scan", "127.0.0.1", "--kind", "modules", "-p", "1")["state"] == "finished"


def test_a_slow_job_that_makes_progress_is_left_alone(rig, client):
    scan_id = submit(rig, "slow")
    worker = rig.worker("default", "--concurrency", "1")
    worker.wait_for_event("job_finished")
    assert client.hget(keys.progress(scan_id), "done") == b"1"


def test_a_job_whose_kind_sets_no_limit_is_left_alone(rig, client):
    submit(rig, "swallow")
    stalled = submit(rig, "deadlock")
    worker = rig.worker("default", "--concurrency", "2")
    worker.wait_for_event("job_failed")
    assert client.hget(keys.progress(stalled), "failed") == b"1"
    wait_for(lambda: client.zcard(keys.registry("wip", "default")) == 1, 30)
    assert len(worker.of("job_failed")) == 1
