"""The plan compared with a real Redis: what is missing there is enqueued once, nothing else."""

import os
import subprocess
import sys
import threading
import tracemalloc
from datetime import timedelta

import msgspec
import pytest

from rqscan import clock
from rqscan.broker import keys
from rqscan.broker.payload import PROTOCOL
from rqscan.errors import UsageError
from rqscan.fleet.errands import MODULES
from rqscan.model import Counts
from rqscan.scan.cancel import cancel
from rqscan.scan.compare import compare
from rqscan.scan.progress import read_progress
from rqscan.scan.resume import resume
from rqscan.scan.submit import submit, write_plan
from rqscan.states import ChunkState, ScanState
from rqscan.store.chunks import Chunks
from rqscan.store.migrate import open_current
from rqscan.store.repository import Repository
from tests.plans import a_plan, a_record, number_of
from tests.scripted import ScriptedWorker


@pytest.fixture
def client(redis_server):
    return redis_server.client()


@pytest.fixture
def database(settings):
    with open_current(settings) as opened:
        yield opened


@pytest.fixture
def store(database):
    return Repository(database)


@pytest.fixture
def chunks(database):
    return Chunks(database)


@pytest.fixture
def worker(client):
    scripted = ScriptedWorker(client, "w1")
    scripted.beat()
    return scripted


def submitted(settings, client, scan_id="s1", count=3):
    submit(a_plan(scan_id, count), settings=settings, client=client)


def waiting(client):
    return sorted(name.decode() for name in client.lrange(keys.queue("wakaka"), 0, -1))


def finish(worker, store, job, **more):
    """Run a job as a work-horse and its worker do: record, then tell Redis."""
    scan_id, chunk, generation = job.rsplit("-", 2)
    assert store.record(a_record(int(chunk), scan_id, int(generation), **more))
    worker.end(job, "finished")


def counts(client, scan_id="s1"):
    return read_progress(client, scan_id).chunks


# What has been lost


def test_nothing_is_done_where_nothing_is_missing(settings, client):
    submitted(settings, client)
    before = waiting(client)
    assert compare(settings, client)[:2] == (1, 0)
    assert compare(settings, client, unenqueued_for_s=60)[:2] == (0, 0)
    assert waiting(client) == before == ["s1-0-1", "s1-1-1", "s1-2-1"]


def test_after_a_flush_all_that_has_not_ended_is_enqueued_once(settings, client, worker, store):
    submitted(settings, client)
    submitted(settings, client, "s2", 1)
    (job,) = worker.claim(1)
    finish(worker, store, job)
    client.flushall()
    assert compare(settings, client)[:2] == (2, 3)
    assert compare(settings, client)[:2] == (2, 0)
    left = sorted({0, 1, 2} - {number_of(job)})
    assert waiting(client) == [f"s1-{n}-2" for n in left] + ["s2-0-2"]
    progress = read_progress(client, "s1")
    assert (progress.chunks.total, progress.chunks.done, progress.probes) == (3, 1, 1)
    assert progress.state == ScanState.RUNNING
    assert client.zrange(keys.SCANS, 0, -1) == [b"s1", b"s2"]
    worker.beat()
    for job in worker.claim(5):
        finish(worker, store, job)
    assert read_progress(client, "s1").state == ScanState.FINISHED
    assert store.progress("s1").state == ScanState.FINISHED
    assert client.zcard(keys.SCANS) == 0


def test_a_scan_that_has_ended_is_not_resurrected(settings, client, worker, store):
    submitted(settings, client)
    for job in worker.claim(3):
        finish(worker, store, job)
    client.flushall()
    assert compare(settings, client)[:2] == (0, 0)
    assert resume(settings, client, "s1")[:2] == (0, 0)
    assert compare(settings, client, scan_id="s1")[:2] == (0, 0)
    assert submit(a_plan(), settings=settings, client=client).is_new is False
    assert client.keys("rqscan:scan*") == client.keys("rq:*") == []


def test_jobs_of_the_lost_last_second_are_enqueued_and_ends_counted(
    settings, client, worker, store
):
    submitted(settings, client, count=4)
    saved = {key: client.dump(key) for key in client.keys("rqscan:scan*")}
    first, second, third = worker.claim(3)
    finish(worker, store, first)
    store.record(a_record(number_of(second), state=ChunkState.FAILED))
    worker.end(second, "failed")
    for key, value in saved.items():  # as the log had it a second ago
        client.restore(key, 0, value, replace=True)
    client.delete(keys.ended("s1"), keys.job(third))
    assert compare(settings, client)[:2] == (1, 1)
    assert (counts(client).done, counts(client).failed) == (1, 1)
    assert f"s1-{number_of(third)}-2" in waiting(client)
    assert not store.record(a_record(number_of(third)))  # the late attempt from before


def test_what_ends_is_counted_once_whoever_tells_it(settings, client, worker, store):
    submitted(settings, client)
    job, other, _ = worker.claim(3)
    store.record(a_record(number_of(job)))
    client.hset(keys.job(job), "status", "finished")  # not live: its end seems lost
    compare(settings, client)
    assert counts(client).done == 1
    worker.end(job, "finished")
    compare(settings, client)
    assert counts(client).done == 1
    finish(worker, store, other)
    assert counts(client).done == 2


def test_a_progress_that_is_lost_alone_is_counted_anew(settings, client, worker, store):
    submitted(settings, client)
    job, *_ = worker.claim(3)
    finish(worker, store, job)
    client.delete(keys.progress("s1"))
    assert compare(settings, client)[:2] == (1, 0)
    assert counts(client).done == 1
    for job in list(worker.jobs):
        finish(worker, store, job)
    assert read_progress(client, "s1").state == ScanState.FINISHED


def test_an_end_that_only_redis_knows_is_recorded(settings, client, worker, store):
    submitted(settings, client)
    job, _, removed = worker.claim(3)
    worker.end(job, "failed", "MemoryError: too much")  # its worker died before it was recorded
    client.hset(keys.job(removed), "status", "canceled")  # by RQ's own tools
    assert compare(settings, client)[:2] == (1, 0)
    assert store.progress("s1").chunks == Counts(3, 0, 1, 1)
    assert counts(client) == Counts(3, 0, 1, 1)
    assert waiting(client) == []


@pytest.mark.parametrize("attempts", [0, 2])  # recorded before, which it was to be tried after
def test_an_end_that_was_counted_and_of_which_nothing_is_kept_is_recorded(
    settings, client, worker, store, attempts
):
    submitted(settings, client, count=1)
    (job,) = worker.claim(1)
    if attempts:
        assert store.record(a_record(0, attempt=attempts, state=ChunkState.PLANNED))
    worker.end(job, "failed", failure_ttl_s=0)
    assert not client.exists(keys.job(job))
    assert compare(settings, client, unenqueued_for_s=60)[:2] == (1, 0)
    assert store.progress("s1").chunks == Counts(1, 0, 1)
    assert compare(settings, client, unenqueued_for_s=60)[:2] == (0, 0)


def test_comparers_at_once_enqueue_once(settings, client, redis_server, store):
    submitted(settings, client, count=400)
    client.flushall()
    start, put = threading.Barrier(3), []

    def work():
        mine = redis_server.client()
        start.wait(10)
        put.append(compare(settings, mine).enqueued)

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert (len(put), sum(put)) == (3, 400)
    assert waiting(client) == sorted(f"s1-{n}-2" for n in range(400))


def test_memory_stays_flat_however_large_the_scans_are(settings, client):
    submitted(settings, client, "small", 1_000)
    client.flushall()
    compare(settings, client)
    for number in range(3):
        submitted(settings, client, f"big-{number}", 3_000)
    client.flushall()
    tracemalloc.start()
    assert compare(settings, client)[:2] == (4, 10_000)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 12_000_000
    assert client.llen(keys.queue("wakaka")) == 10_000


# What was never enqueued


def test_what_was_planned_without_redis_is_enqueued_as_it_is(settings, client):
    write_plan(a_plan(), settings=settings)
    write_plan(a_plan("fresh", 1, clock.now() - timedelta(seconds=30)), settings=settings)
    assert compare(settings, client, unenqueued_for_s=60)[:2] == (1, 3)
    assert waiting(client) == ["s1-0-1", "s1-1-1", "s1-2-1"]
    assert compare(settings, client)[:2] == (2, 1)
    assert "fresh-0-1" in waiting(client)
    assert compare(settings, client, unenqueued_for_s=60)[:2] == (0, 0)


def test_a_submitter_that_died_is_finished_by_the_next(settings, client, chunks, worker, store):
    submitted(settings, client)
    with chunks._database.transaction() as connection:  # put and never marked
        connection.execute("UPDATE chunks SET enqueued_at = NULL")
    (job,) = worker.claim(1)
    worker.end(job, "finished")
    client.delete(keys.job(job))  # with result_ttl_s = 0
    assert not submit(a_plan(), settings=settings, client=client).is_new
    assert len(waiting(client)) == 2
    assert compare(settings, client)[:2] == (1, 0)


# The marker and the store


def test_the_marker_is_set_after_a_whole_comparison_only(settings, client, store):
    submitted(settings, client)
    compare(settings, client, scan_id="s1")
    compare(settings, client, unenqueued_for_s=60)
    assert not client.exists(keys.MARKER)
    compare(settings, client)
    run_id = client.info("server")["run_id"].encode()
    assert client.hgetall(keys.MARKER) == {store.store_id().encode(): run_id}


def test_the_store_is_announced_and_another_one_told(settings, client, store):
    assert submit(a_plan(), settings=settings, client=client).former_store is None
    told = {b"store_id": store.store_id().encode(), b"protocol": str(PROTOCOL).encode()}
    assert client.hgetall(keys.STORE) == told
    client.hset(keys.STORE, "store_id", "other")
    assert compare(settings, client).former_store == "other"
    assert client.hgetall(keys.STORE) == told
    assert compare(settings, client).former_store is None


def test_a_stray_store_does_not_take_the_fleet_when_redis_comes_back_empty(
    settings, client, tmp_path
):
    stray = msgspec.structs.replace(settings, home=str(tmp_path / "stray"))
    submitted(settings, client)
    write_plan(a_plan("astray"), settings=stray)
    client.flushall()
    assert chore("compare", settings).returncode == 0
    told = client.hgetall(keys.STORE)
    for verb in ("compare", "look"):
        done = chore(verb, stray, 60 if verb == "look" else None)
        assert (done.returncode, done.stderr) == (1, b"")
        assert done.stdout.startswith(b"the fleet's store is %b, and" % told[b"store_id"])
        assert done.stdout.count(b"\n") == 1
    assert client.hgetall(keys.STORE) == told
    assert client.zrange(keys.SCANS, 0, -1) == [b"s1"]
    assert compare(stray, client).former_store.encode() == told[b"store_id"]  # a person may


def test_a_long_comparison_keeps_others_from_beginning_one(settings, client, store):
    write_plan(a_plan("s1", 2_100), settings=settings)
    client.config_resetstat()
    compare(settings, client)
    assert client.info("commandstats")["cmdstat_set"]["calls"] == 6  # a page read, a page put
    assert client.pttl(keys.look(store.store_id())) > 0
    client.delete(keys.look(store.store_id()))
    compare(settings, client, unenqueued_for_s=60)
    assert not client.exists(keys.look(store.store_id()))


def test_a_server_that_hides_its_run_id_is_compared_with(settings, client, store):
    submitted(settings, client)
    client.set_response_callback("INFO", lambda _answer: {})
    compare(settings, client)
    assert client.hget(keys.MARKER, store.store_id()) == b""


# Resumed by name


def test_a_named_resume_runs_again_what_failed_or_was_cancelled(settings, client, worker, store):
    submitted(settings, client, count=4)
    done, failed = worker.claim(2)
    finish(worker, store, done)
    store.record(a_record(number_of(failed), state=ChunkState.FAILED))
    worker.end(failed, "failed")
    cancel(settings, client, "s1")
    assert read_progress(client, "s1").state == ScanState.CANCELLED
    assert compare(settings, client)[:2] == (0, 0)
    assert resume(settings, client, "s1")[:2] == (1, 3)
    assert resume(settings, client, "s1")[:2] == (1, 0)
    assert waiting(client) == [f"s1-{n}-2" for n in range(4) if n != number_of(done)]
    assert counts(client) == Counts(4, 1)
    assert client.zcard(keys.registry("failed", "wakaka")) == 0
    assert client.ttl(keys.progress("s1")) == client.ttl(keys.ended("s1")) == -1
    for job in worker.claim(5):
        finish(worker, store, job)
    assert read_progress(client, "s1").state == ScanState.FINISHED
    assert store.progress("s1").state == ScanState.FINISHED


def test_a_resume_that_died_half_way_is_finished_by_a_comparison(
    settings, client, worker, store, chunks
):
    submitted(settings, client)
    cancel(settings, client, "s1")
    assert chunks.plan_again("s1", [0, 1]) == 2  # and then it died
    assert compare(settings, client, unenqueued_for_s=60)[:2] == (1, 2)
    assert counts(client) == Counts(3, 0, 0, 1)
    for job in worker.claim(5):
        finish(worker, store, job)
    assert client.hexists(keys.progress("s1"), "finished_at")


def test_a_chunk_that_is_to_be_tried_again_is_not_missing(settings, client, worker, store):
    submitted(settings, client)
    (job,) = worker.claim(1)
    store.record(a_record(number_of(job), state=ChunkState.FAILED))
    worker.end(job, "retry", answer=b"queued")
    assert resume(settings, client, "s1")[:2] == (1, 0)
    assert len(waiting(client)) == 3


def test_a_scan_that_is_unknown_is_named(settings, client):
    for ask in (resume, cancel):
        with pytest.raises(UsageError, match="no scan 'nobody'"):
            ask(settings, client, "nobody")


# The children of a worker


def chore(verb, settings, argument=None):
    return subprocess.run(
        [sys.executable, "-W", "error", "-m", MODULES[verb], verb, str(os.getpid())],
        input=msgspec.msgpack.encode((settings, argument)), capture_output=True, timeout=60,
        check=False,
    )  # fmt: skip


def test_chores_compare_and_tell(settings, client):
    submitted(settings, client)
    client.flushall()
    for verb, told in (
        ("look", {"scans": 0, "enqueued": 0}),
        ("compare", {"scans": 1, "enqueued": 3}),
    ):
        done = chore(verb, settings, 60 if verb == "look" else None)
        assert (done.returncode, done.stderr) == (0, b"")
        assert msgspec.json.decode(done.stdout) == told


def test_a_chore_records_what_ended_without_a_horse(settings, client, store):
    submitted(settings, client)
    assert store.record(a_record(1))
    at = "2026-11-24T12:00:00Z"
    ended = [("s1", number, 1, 1, "w1", "out of memory", 2.0, at) for number in (0, 1, 7)]
    done = chore("ended", settings, ended)
    assert (done.returncode, done.stderr) == (0, b"")
    assert msgspec.json.decode(done.stdout) == {"recorded": 1}  # 1 has finished, 7 is unknown
    assert store.progress("s1").chunks == Counts(3, 1, 1)


@pytest.mark.parametrize("verb", ["compare", "look"])
def test_a_chore_says_in_one_line_that_redis_is_away(settings, redis_server, verb):
    redis_server.kill()
    done = chore(verb, settings)
    assert (done.returncode, done.stderr) == (3, b"")
    assert done.stdout.startswith(b"cannot use Redis")
    assert done.stdout.count(b"\n") == 1
