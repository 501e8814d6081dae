"""A template that is stopped by a signal, as one that hangs in the kernel: it holds nothing up."""

import contextlib
import signal

import psutil
import pytest

from rqscan.broker import keys
from rqscan.broker.jobs import ScanJob
from rqscan.broker.queues import ScanQueue
from tests.servers import wait_for

ALLOW = {"RQSCAN_ALLOW_FUNCTIONS": "os.system"}


@pytest.fixture
def client(redis_server):
    with redis_server.client() as found:
        yield found


@pytest.fixture(autouse=True)
def _odd(rig):
    rig.use_odd_kinds()


def submit(rig, client, kind):
    """Put a chunk into the queue; gives its job."""
    done = rig.json("scan", "127.0.0.1", "--kind", kind, "-p", "1", "--no-wait")
    return ScanJob.fetch(f"{done['scan_id']}-0-1", connection=client)


def title_of(process):
    with contextlib.suppress(psutil.Error):  # an errand that ends meanwhile
        return " ".join(process.cmdline())
    return ""


def templates_of(worker):
    """Give the templates that are up: one that is not has no title yet."""
    found = psutil.Process(worker.process.pid).children()
    return [one for one in found if "rqscan template" in title_of(one)]


@pytest.fixture
def freeze():
    """Give what freezes a worker's templates, so many, and gives them."""
    frozen = []

    def freeze(worker, count):
        found = wait_for(lambda: len(all_ := templates_of(worker)) == count and all_, 30)
        for template in found:
            template.suspend()
        frozen.extend(found)
        return found

    yield freeze
    for template in frozen:
        with contextlib.suppress(psutil.NoSuchProcess):
            template.kill()


def start(rig, client, kind, **limits):
    """Have a worker run a job on one of its two templates; gives both."""
    if kind == "plain":
        worker = rig.worker("default", "--concurrency", "1", "--stop-timeout", "0", **ALLOW)
        queue = ScanQueue("default", connection=client)
        job = queue.enqueue("os.system", "exec sleep 77", job_timeout=limits.get("timeout_s", 60))
    else:
        for name, limit in limits.items():
            rig.env[f"RQSCAN_QUEUES_DEFAULT_{name.upper()}"] = str(limit)
        worker = rig.worker("default", "--concurrency", "1", "--stop-timeout", "0")
        job = submit(rig, client, kind)
    worker.wait_for_event("job_started")
    title = f"rqscan horse {job.id}"
    wait_for(lambda: any(title in title_of(horse) for horse in horses_of(worker)), 30)
    return worker, job


def horses_of(worker):
    return [horse for template in templates_of(worker) for horse in template.children()]


@pytest.mark.parametrize("signals", [1, 2])
def test_an_idle_worker_stops(rig, signals, freeze):
    worker = rig.worker("default", "--concurrency", "1")
    (template,) = freeze(worker, 1)
    for _ in range(signals):
        worker.process.send_signal(signal.SIGTERM)
    assert worker.process.wait(30) == 0
    assert not template.is_running()


@pytest.mark.parametrize(("kind", "templates"), [("swallow", 1), ("plain", 2)])
def test_a_busy_worker_stops_and_gives_its_job_back(rig, client, kind, templates, freeze):
    worker, job = start(rig, client, kind)
    frozen = freeze(worker, templates)
    horses = horses_of(worker)
    assert worker.stop(30) == 0
    assert job.get_status() == "queued"
    assert not client.hexists(job.key, "rqscan_lost")
    wait_for(lambda: not any(process.is_running() for process in frozen + horses), 30)


@pytest.mark.parametrize(("kind", "templates"), [("stubborn", 1), ("plain", 2)])
def test_a_job_ends_at_its_hard_limit_and_the_next_one_runs(rig, client, kind, templates, freeze):
    worker, job = start(rig, client, kind, timeout_s=2)
    freeze(worker, templates)
    worker.wait_for_event("job_failed")
    assert "hard limit of 2 s" in job.latest_result().exc_string
    if kind == "stubborn":  # the other's limit is later than the end of its template
        assert not worker.of("job_given_back")
    after = submit(rig, client, "modules")
    wait_for(lambda: after.get_status() == "finished", 30)


def test_jobs_claimed_for_horses_that_are_never_born_run_elsewhere(rig, client, freeze):
    worker = rig.worker("default", "--concurrency", "1")
    submit(rig, client, "modules")
    worker.wait_for_event("job_finished")  # so that the template is known to be up
    (template,) = freeze(worker, 1)
    jobs = [submit(rig, client, "modules") for _ in range(3)]  # more than there are spare horses
    for job in jobs:
        wait_for(lambda: job.get_status() == "finished", 30)  # noqa: B023
    assert not template.is_running()
    assert worker.wait_for_event("job_given_back")
    assert not worker.of("job_lost")


def test_the_death_of_a_horse_is_noticed(rig, client, freeze):
    worker, job = start(rig, client, "swallow")
    freeze(worker, 1)
    for horse in horses_of(worker):
        horse.kill()
    worker.wait_for_event("job_lost")
    worker.wait_for_event("job_started", count=2)
    assert client.zscore(keys.registry("wip", "default"), f"{job.id}:{token(client, job)}")


def token(client, job):
    return client.hget(job.key, "rqscan_token").decode()


def test_a_frozen_spare_horse_costs_one_job_its_time_and_no_more(rig, client):
    rig.env["RQSCAN_QUEUES_DEFAULT_TIMEOUT_S"] = "2"
    worker = rig.worker("default", "--concurrency", "1")
    (spare,) = wait_for(lambda: horses_of(worker), 30)
    spare.suspend()
    first, second = (submit(rig, client, "modules") for _ in range(2))
    wait_for(lambda: second.get_status() == "finished", 30)
    assert "hard limit of 2 s" in first.latest_result().exc_string
