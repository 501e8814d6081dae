"""What a lookout keeps from look to look: failed jobs that it has read, and the past by minutes."""

import zlib

import pytest
import redis

from rqscan.broker import chunks, failed, keys
from rqscan.broker.queues import ScanQueue
from rqscan.model import Chunk
from rqscan.monitor.snapshot import Lookout
from rqscan.settings import QueueSettings
from tests.plans import a_plan, number_of
from tests.scripted import ScriptedWorker
from tests.servers import RedisServer

TTL_S = QueueSettings().failure_ttl_s


@pytest.fixture
def client(redis_server: RedisServer) -> redis.Redis:
    return redis_server.client()


@pytest.fixture
def lookout(redis_server: RedisServer, settings) -> Lookout:
    return Lookout(redis_server.client(), settings)


def enqueue(client, count, scan="s1", queue="wakaka") -> None:
    client.hset(keys.progress(scan), "total", count)
    found = [
        Chunk(scan_id=scan, chunk=n, kind="ports", targets=["127.0.0.1"], params={})
        for n in range(count)
    ]
    list(ScanQueue(queue, connection=client).enqueue_chunks(found, QueueSettings()))


def fail(client, names, queue="wakaka", at=1e9, **fields) -> None:
    """Write failed jobs, each later than the one before."""
    with client.pipeline(transaction=False) as pipe:
        for n, name in enumerate(names):
            said = {"exc_info": b"E: a", "worker_name": "w", "rqscan_kind": "ports"} | fields
            pipe.hset(keys.job(name), mapping=said)
            pipe.zadd(keys.registry("failed", queue), {name: at + n})
        pipe.execute()


def read(client, lookout):
    """Look, and give what was found with the number of failed jobs that were read for it."""
    client.config_resetstat()
    shot = lookout.look()
    return shot, client.info("commandstats").get("cmdstat_hmget", {"calls": 0})["calls"]


def queue_of(shot, name="wakaka"):
    return next(queue for queue in shot.queues if queue.name == name)


def test_a_failed_job_is_read_once_until_it_fails_again(client, lookout) -> None:
    fail(client, ["a", "b"])
    shot, count = read(client, lookout)
    assert (shot.failed[0].jobs, shot.failed[0].kinds, count) == (["b", "a"], ["ports"], 2)
    assert read(client, lookout)[1] == 0
    fail(client, ["a"], at=2e9, exc_info=b"E: other")
    shot, count = read(client, lookout)
    assert sorted((one.error, one.jobs) for one in shot.failed) == [
        ("E: a", ["b"]),
        ("E: other", ["a"]),
    ]
    assert count == 1
    client.zrem(keys.registry("failed", "wakaka"), "a")
    shot, count = read(client, lookout)
    assert ([one.jobs for one in shot.failed], count) == ([["b"]], 0)


def test_of_many_the_newest_are_seen_at_once_and_what_went_two_looks_later(client, lookout) -> None:
    fail(client, [f"j{n}" for n in range(300)])
    shot, count = read(client, lookout)
    assert (shot.failed[0].count, shot.failed[0].jobs[0], count) == (200, "j299", 200)
    lookout.look()
    fail(client, ["new"], at=2e9)
    shot, count = read(client, lookout)
    assert (shot.failed[0].count, shot.failed[0].jobs[:2], count) == (200, ["new", "j299"], 1)
    client.zremrangebyrank(keys.registry("failed", "wakaka"), 0, 199)
    lookout.look()
    shot, count = read(client, lookout)
    assert (shot.failed[0].count, shot.failed[0].jobs[-1], count) == (101, "j200", 0)


def test_many_failed_jobs_are_read_by_and_by_and_each_queue_has_its_turn(
    client, lookout, redis_server, settings
) -> None:
    for queue in range(10):
        fail(client, [f"q{queue}-{n}" for n in range(200)], f"q{queue}")
        client.sadd(keys.QUEUES, keys.queue(f"q{queue}"))
    lookout.look()  # tells the queues' names
    shot, count = read(client, lookout)
    assert ({one.count for one in shot.failed}, count) == ({100}, 1000)
    shot, count = read(client, lookout)
    assert ({one.count for one in shot.failed}, count) == ({200}, 1000)
    assert read(client, lookout)[1] == 0
    whole = Lookout(redis_server.client(), settings, is_whole=True)
    shot, count = read(client, whole)
    assert ([one.count for one in shot.failed], count) == ([200] * 10, 2000)


@pytest.mark.parametrize(
    ("fields", "kinds"),
    [
        ({"rqscan_kind": "tls", "description": "f(1)"}, ["tls"]),
        ({"rqscan_kind": "", "description": "app.tasks.send('secret', n=1)"}, ["app.tasks.send"]),
        ({"rqscan_kind": "", "description": "fetch the secret (again)"}, []),
        ({"rqscan_kind": "", "description": b"\xff("}, []),
    ],
)
def test_a_plain_job_is_known_by_its_function_without_arguments(
    client, lookout, fields, kinds
) -> None:
    fail(client, ["a"], **fields)
    assert lookout.look().failed[0].kinds == kinds


@pytest.mark.parametrize(
    ("traceback", "error"),
    [
        (zlib.compress(b"x\n" * 400_000 + b"E: last\n"), "E: last"),
        (zlib.compress(b"x" * 2_000_000), "(its traceback is too long to be read)"),
        (b"Traceback\n  E: " + b"a" * 9000 + b"\n \n", "E: " + "a" * 297),
        (zlib.compress(b"E: cut")[:-4], "E: cut"),
        (b"", "(no error was kept)"),
        (b"\xff\n\xff", "�"),
    ],
)
def test_the_error_is_the_last_line_of_the_traceback(client, lookout, traceback, error) -> None:
    fail(client, ["a"], exc_info=traceback)
    assert lookout.look().failed[0].error == error


def test_the_past_is_told_at_the_first_look_from_the_counts_of_each_minute(client, lookout) -> None:
    enqueue(client, 20)
    minute = client.time()[0] // 60
    counts = {1: (10, 4, 1), 3: (0, 7, 7), 29: (500, 0, 2), 30: (10_000, 0, 9), -1: (9, 0, 9)}
    for ago, (came, out, died) in counts.items():
        mapping = {"wakaka:in": came, "wakaka:out": out, "wakaka:failed": died, "other:in": 5}
        client.hset(keys.minute(minute - ago), mapping=mapping)
    for _ in range(2):
        shot = lookout.look()
        one, shift = queue_of(shot), int(shot.at.timestamp() // 60) - minute
        assert (len(one.depths), len(one.failures), one.depths[-1]) == (30, 30, 20)
        ends = {ago: one.depths[-1 - ago - shift] for ago in range(1, 29)}
        assert (ends[1], ends[2], ends[3], ends[4], ends[28]) == (0, 0, 0, 1, 1)
        died = {ago: one.failures[-1 - ago - shift] for ago in range(1, 29)}
        assert {ago: count for ago, count in died.items() if count} == {1: 1, 3: 7}


def test_a_minute_that_is_over_is_read_once(client, lookout) -> None:
    lookout.look()
    client.config_resetstat()
    lookout.look()
    # counters, schedulers, the present minute, and at a turn what has just ended
    assert client.info("commandstats")["cmdstat_hgetall"]["calls"] <= 5


def test_what_leaves_a_queue_by_any_way_is_in_its_past(client, lookout) -> None:
    """Nothing was there a minute ago, whatever became of what has come since."""
    enqueue(client, 8)
    worker = ScriptedWorker(client, "w")
    worker.beat()
    done, given_back, running = worker.claim(3)
    worker.end(done, "finished")
    worker.end(given_back, "giveback", answer=b"queued")
    queue = keys.queue("wakaka")
    failed.discard(client, "wakaka", client.lrange(queue, -2, -1))
    scan = a_plan("s1", 8).scan
    places = [chunks.Place(n, 1) for n in (3, number_of(running))]
    assert chunks.cancel(client, scan, places) == (1, 1)
    assert queue_of(lookout.look()).depth == 4
    chunks.purge(client, scan)
    assert chunks.cancel(client, scan, [chunks.Place(4, 1)]) == (1, 0)
    ScriptedWorker(client, "v").beat()
    one = queue_of(lookout.look())
    assert one.depth == 3
    assert set(one.depths[:-2]) == {0}
    last = ScriptedWorker(client, "v")
    last.beat()
    assert len(last.claim(9)) == 2
    one = queue_of(lookout.look())
    assert one.depth == 0
    assert set(one.depths[:-2]) == {0}


def test_a_queue_s_time_to_drain_follows_its_rates(client, lookout) -> None:
    enqueue(client, 30)
    bucket = client.time()[0] // keys.STAT_S
    client.hset(keys.stat(bucket - 2), mapping={"wakaka:in": 60, "wakaka:out": 240})
    assert queue_of(lookout.look()).drain_s == 10.0
