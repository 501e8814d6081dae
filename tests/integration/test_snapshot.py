"""The snapshot against a real Redis, with data that the real scripts wrote."""

import json
import os
import re
import socket
import subprocess
import sys
import threading
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pytest
import redis
from redis.connection import UnixDomainSocketConnection

from rqscan.broker import keys
from rqscan.broker.queues import ScanQueue
from rqscan.errors import RedisUnavailable
from rqscan.fleet.reports import JobReport
from rqscan.model import Chunk
from rqscan.monitor.records import Entries
from rqscan.monitor.screen.fit import fit
from rqscan.monitor.snapshot import Lookout
from rqscan.settings import QueueSettings, Settings
from tests.scripted import ScriptedWorker
from tests.servers import RedisServer, wait_for

ROOT = Path(__file__).resolve().parents[2]

CONTRACT = {
    "": "at redis queues workers failed schedules scans leader trouble counters entries schedulers "
    "suspended",
    "redis": "up version rtt_ms memory_bytes memory_limit_bytes eviction clients is_replica "
    "unsaved",
    "queues": "name depth oldest_s running in_per_s out_per_s failed failed_1h paused workers "
    "drain_s deferred scheduled depths failures",
    "workers": "name host pid concurrency state heartbeat_age_s is_connected queues job job_age_s "
    "jobs versions mismatch clock_offset_s utc_offset_s holds spool_rows spool rss_bytes done "
    "failed",
    "jobs": "id kind age_s limit_s progress",
    "failed": "group error count last_at queue workers jobs kinds",
    "schedules": "name next_at last_at lateness_s paused state reason outcome",
    "scans": "scan_id state chunks eta_s progress",
    "trouble": "what object cause level",
    "counters": "rescued lost refused fenced",
    "entries": "count planned overdue runs",
    "schedulers": "name host pid entries at",
}


@pytest.fixture
def client(redis_server: RedisServer) -> redis.Redis:
    return redis_server.client()


@pytest.fixture
def take(redis_server: RedisServer):
    """Look for the first time, through a client of its own, with the settings given."""

    def take(settings, **how):
        return Lookout(redis_server.client(), settings, **how).look()

    return take


def enqueue(client, count, queue="wakaka", scan="s1") -> None:
    chunks = [
        Chunk(scan_id=scan, chunk=n, kind="ports", targets=["127.0.0.1"], params={})
        for n in range(count)
    ]
    client.hset(keys.progress(scan), "total", count)
    client.zadd(keys.SCANS, {scan: 1.0})
    list(ScanQueue(queue, connection=client).enqueue_chunks(chunks, QueueSettings()))


def redis_now(client) -> float:
    s, us = client.time()
    return s + us / 1e6


def schedule(client, name, due_in_s, **fields) -> None:
    client.zadd(keys.SCHEDULE, {name: redis_now(client) + due_in_s})
    if fields:
        client.hset(keys.schedule_entry(name), mapping=fields)


def scheduler(client, name, seen_s=0.0, entries="ab", host="web") -> None:
    said = {"host": host, "pid": 3, "entries": entries, "at": redis_now(client) - seen_s}
    client.hset(keys.SCHEDULERS, name, json.dumps(said))


def full(client) -> None:
    """Write a bit of everything."""
    enqueue(client, 6)
    worker = ScriptedWorker(client, "web01.100")
    worker.beat()
    running, *ended = worker.claim(4)
    worker.end(ended[0], "finished")
    worker.end(ended[1], "failed", "TimeoutError: connect to 127.0.0.7:22 at 0x7f00aa after 31 s")
    worker.end(ended[2], "failed", "TimeoutError: connect to 127.0.0.9:80 at 0x7f00bb after 5 s")
    worker.beat(JobReport(id=running, kind="ports", age_s=2.5, limit_s=3600, progress=0.5))
    schedule(
        client,
        "nightly",
        3600,
        last_at="2026-12-01T02:00:00.000000Z",
        lateness_s="0.25",
        state="scheduled",
        outcome="fired",
        reason="",
        paused="0",
    )
    client.zadd(keys.SCHEDULE, {"off": "inf"})
    client.hset(keys.schedule_entry("off"), mapping={"state": "disabled", "paused": "1"})
    scheduler(client, "sched.1")
    leader = {"name": "sched.1", "host": "web", "pid": 3, "token": "secret"}
    client.set(keys.LEADER, json.dumps(leader), px=10_000)


def test_the_json_is_what_the_contract_says(client, take, settings) -> None:
    full(client)
    ScriptedWorker(client, "old.1", clock_offset_s=9.0).beat()
    found = json.loads(msgspec.json.encode(take(settings)))
    parts = {
        name: found[name][0] if isinstance(found[name], list) else found[name]
        for name in CONTRACT
        if name in found
    }
    parts |= {"": found, "jobs": next(w for w in found["workers"] if w["jobs"])["jobs"][0]}
    assert {name: " ".join(part) for name, part in parts.items()} == CONTRACT


def test_the_figures_are_those_in_redis(client, take, settings) -> None:
    full(client)
    shot = take(settings)
    assert abs(shot.at.timestamp() - redis_now(client)) < 5
    queue = next(queue for queue in shot.queues if queue.name == "wakaka")
    assert (queue.depth, queue.running, queue.failed, queue.failed_1h) == (2, 1, 2, 2)
    assert (queue.workers, queue.paused) == (1, False)
    assert (queue.deferred, queue.scheduled, queue.drain_s) == (0, 0, None)
    assert queue.oldest_s is not None
    assert 0 <= queue.oldest_s < 30
    (worker,) = shot.workers
    assert (worker.name, worker.state, worker.host, worker.pid) == ("web01.100", "busy", "web", 100)
    assert (worker.job, worker.jobs[0].kind, worker.jobs[0].progress) == (
        worker.jobs[0].id,
        "ports",
        0.5,
    )
    assert worker.job_age_s == pytest.approx(2.5 + worker.heartbeat_age_s)
    assert (worker.done, worker.failed, worker.clock_offset_s) == (5, 1, 0.25)
    assert (worker.spool_rows, worker.spool) == (None, None)
    assert (worker.concurrency, worker.is_connected) == (2, False)
    assert shot.redis.memory_bytes
    assert shot.redis.clients
    assert (shot.redis.memory_limit_bytes, shot.redis.eviction) == (0, "noeviction")
    assert (shot.redis.is_replica, shot.redis.unsaved) == (False, None)
    (scan,) = shot.scans
    assert (scan.scan_id, scan.state) == ("s1", "running")
    assert (scan.chunks.total, scan.chunks.done, scan.chunks.failed) == (6, 1, 2)
    assert scan.eta_s is not None
    entry, off = shot.schedules
    assert (off.name, off.next_at, off.state, off.paused) == ("off", None, "disabled", True)
    assert (entry.name, entry.lateness_s, entry.state) == ("nightly", 0.25, "scheduled")
    assert (entry.paused, entry.outcome, entry.reason) == (False, "fired", None)
    assert shot.entries == Entries(count=2, planned=1, overdue=0, runs=0)
    assert entry.last_at == datetime(2026, 12, 1, 2, tzinfo=UTC)
    assert (shot.leader, shot.trouble) == ("sched.1", [])
    assert shot.counters == {"rescued": 0, "lost": 0, "refused": 0, "fenced": 0}


def test_failures_are_grouped_by_what_they_say_but_for_numbers(client, take, settings) -> None:
    full(client)
    worker = ScriptedWorker(client, "web02.1")
    worker.beat()
    worker.end(worker.claim(1)[0], "failed", "ValueError: bad fe80::1:2 in deadbeef00")
    newest, older = take(settings).failed
    assert newest.error == "ValueError: bad <ip> in <hex>"
    assert older.error == "TimeoutError: connect to <ip>:<n> at <hex> after <n> s"
    assert (older.count, older.workers, older.queue) == (2, ["web01.100"], "wakaka")
    assert older.kinds == ["ports"]
    assert len(older.jobs) == 2
    assert newest.last_at > older.last_at
    assert re.fullmatch("[0-9a-f]{8}", older.group)
    assert older.group == take(settings).failed[1].group != newest.group


def test_failures_of_the_last_hour_are_counted_by_the_queue_s_ttl(client, take, settings) -> None:
    enqueue(client, 3)
    worker = ScriptedWorker(client, "w")
    worker.beat()
    jobs = worker.claim(3)
    for job in jobs:
        worker.end(job, "failed", "E", failure_ttl_s=60)
    failed = keys.registry("failed", "wakaka")
    client.zadd(failed, {jobs[0]: redis_now(client) + 60 - 3700})
    settings = msgspec.structs.replace(settings, queues={"wakaka": QueueSettings(failure_ttl_s=60)})
    (queue,) = take(settings).queues
    assert (queue.failed, queue.failed_1h) == (3, 2)


def test_rates_are_those_of_the_last_six_whole_buckets(client, take, settings) -> None:
    bucket = int(redis_now(client) / keys.STAT_S)
    for age, count in ((-1, 1000), (2, 60), (5, 60), (8, 1000)):
        client.hset(keys.stat(bucket - age), mapping={"wakaka:in": count, "wakaka:out": count // 2})
    queue = take(settings).queues[-1]
    assert (queue.name, queue.in_per_s, queue.out_per_s) == ("wakaka", 2.0, 1.0)


@pytest.mark.parametrize(
    ("age_s", "state", "counted"),
    [(0, "idle", 1), (4.3, "idle", 1), (5.0, "stale", 1), (7.0, "lost", 0), (3000, "lost", 0)],
)
def test_a_worker_s_state_follows_its_beat_by_redis_time(
    client, take, settings, age_s, *, state, counted
) -> None:
    ScriptedWorker(client, "w").beat()
    client.zadd(keys.PRESENCE, {"w": redis_now(client) - age_s})
    shot = take(settings)
    (worker,) = shot.workers
    assert worker.state == state
    assert worker.heartbeat_age_s == pytest.approx(age_s, abs=1)
    assert shot.queues[-1].workers == counted


@pytest.mark.parametrize("hears", [True, False])
def test_a_worker_whose_beat_is_overdue_is_lost_once_its_connection_is_closed(
    client, take, settings, hears
) -> None:
    ScriptedWorker(client, "late", lease_s=60.0).beat()
    ScriptedWorker(client, "well").beat()
    client.delete(keys.GRACE)
    client.zadd(keys.PRESENCE, {"late": redis_now(client) - 7})
    channel = client.pubsub()
    channel.subscribe(keys.commands_of("late" if hears else "well"))
    wait_for(channel.get_message, what="the subscription")
    late, well = take(settings).workers
    assert (late.is_connected, well.is_connected) == (hears, not hears)
    assert (late.state, well.state) == ("stale" if hears else "lost", "idle")
    client.set(keys.GRACE, 1)  # Redis was away: who has no connection may have one soon
    assert take(settings).workers[0].state == "stale"
    channel.close()


def test_a_worker_is_seen_at_work_and_missed_when_killed(client, take, settings, tmp_path) -> None:
    env = os.environ | {"RQSCAN_HOME": settings.home, "RQSCAN_REDIS_URL": settings.redis.url}
    argv = [sys.executable, "-m", "rqscan", "worker", "wakaka", "--name", "w1"]
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(argv, env=env, cwd=ROOT, stdout=log, stderr=log)
    try:
        (seen,) = wait_for(lambda: take(settings).workers, 20)
        assert (seen.state, seen.pid, seen.queues) == ("idle", process.pid, ["wakaka"])
        wait_for(lambda: take(settings).workers[0].is_connected, 20)
    finally:
        process.kill()
        process.wait(10)
    (lost,) = wait_for(lambda: take(settings).trouble, 20)
    assert (lost.what, lost.object) in {("worker stale", "w1"), ("worker lost", "w1")}
    wait_for(lambda: take(settings).workers[0].state == "lost", 20)


def test_a_worker_has_the_lease_that_it_published(client, take, settings) -> None:
    ScriptedWorker(client, "w", lease_s=60.0).beat()
    client.zadd(keys.PRESENCE, {"w": redis_now(client) - 7})
    assert [worker.state for worker in take(settings).workers] == ["stale"]


def test_a_worker_is_forgotten_after_an_hour(client, take, settings) -> None:
    ScriptedWorker(client, "w").beat()
    client.zadd(keys.PRESENCE, {"w": redis_now(client) - 3601})
    assert take(settings).workers == []


@pytest.mark.parametrize("record", [None, b"{}", b"not JSON"])
def test_a_record_that_cannot_be_read_is_a_mismatched_worker(
    client, take, settings, record
) -> None:
    ScriptedWorker(client, "w").beat()
    client.delete(keys.record("w"))
    if record:
        client.set(keys.record("w"), record)
    (worker,) = take(settings).workers
    assert (worker.name, worker.state, worker.host) == ("w", "mismatched", None)


def test_queues_are_those_declared_and_those_used(client, take, settings) -> None:
    enqueue(client, 1, queue="later")
    assert [queue.name for queue in take(settings).queues] == ["default", "later", "wakaka"]


def test_suspension_pauses_every_queue(client, take, settings) -> None:
    enqueue(client, 2)
    client.set(keys.SUSPENDED, 1)
    shot = take(settings)
    assert ({queue.paused for queue in shot.queues}, shot.suspended) == ({True}, True)
    (note,) = shot.trouble
    assert (note.what, note.level) == ("fleet suspended", "note")
    assert note.cause == "2 jobs wait, RQ has suspended its workers; run: rq resume"


def test_pausing_is_per_queue(client, take, settings) -> None:
    client.sadd(keys.PAUSED, "wakaka", "unknown")
    assert [q.name for q in take(settings).queues if q.paused] == ["wakaka"]


def test_garbage_in_redis_is_a_missing_figure(client, take, settings) -> None:
    client.set(keys.queue("wakaka"), "not a list")
    client.sadd(keys.registry("failed", "wakaka"), "not a sorted set")
    client.set(keys.LEADER, "not JSON")
    client.zadd(keys.SCHEDULE, {b"\xff": "inf"})
    client.hset(keys.COUNTERS, "lost", "many")
    client.zadd(keys.PRESENCE, {b"\xff": redis_now(client)})
    client.zadd(keys.SCANS, {b"\xff": 1})
    client.sadd(keys.QUEUES, b"rq:queue:\xff")
    client.hset(keys.progress("�"), mapping={"total": "x", "started_at": "yesterday"})
    client.zadd(keys.SCHEDULE, {"late": redis_now(client)})
    client.hset(keys.schedule_entry("late"), mapping={"lateness_s": "inf"})
    client.zadd(keys.SCHEDULE, {"naive": redis_now(client)})
    client.hset(keys.schedule_entry("naive"), mapping={"last_at": "2026-12-01T00:00:00"})
    client.set(keys.record("�"), b'{"name":1}')
    client.zadd(keys.SCHEDULE, {"string": "-inf", "never": 1e300})
    client.set(keys.schedule_entry("string"), "not a hash")
    client.hset(keys.SCHEDULERS, mapping={b"\xff": b"\xff", "a": "{}", "b": '{"at": 1e99}'})
    client.set(keys.RUNS, "not a sorted set")
    shot = take(settings)
    queue = next(queue for queue in shot.queues if queue.name == "wakaka")
    assert (queue.depth, queue.failed, queue.failed_1h) == (None, None, None)
    assert (shot.leader, shot.counters["lost"], shot.workers[0].name) == (None, 0, "�")
    entries = {entry.name: entry for entry in shot.schedules}
    assert [entries[name].next_at for name in ("�", "string", "never")] == [None] * 3
    assert [entries[name].next_at is None for name in ("late", "naive")] == [False] * 2
    assert (entries["late"].lateness_s, entries["naive"].last_at) == (None, None)
    assert (shot.schedulers, shot.entries.count, shot.entries.runs) == ([], 5, None)
    assert shot.scans[0].chunks.total == 0
    assert fit(shot, 80, 24)
    assert msgspec.json.encode(shot)


@pytest.mark.parametrize(
    ("fields", "state"),
    [
        ({"state": "scheduled", "outcome": "waiting"}, "waiting"),
        ({"state": "ended", "outcome": "waiting"}, "waiting"),
        ({"state": "invalid", "outcome": "waiting"}, "invalid"),
        ({"state": "scheduled", "outcome": "skipped"}, "scheduled"),
        ({}, None),
    ],
)
def test_an_entry_of_which_a_run_waits_is_waiting(client, take, settings, fields, state) -> None:
    schedule(client, "a", 60, **fields)
    assert [entry.state for entry in take(settings).schedules] == [state]


def test_a_large_schedule_is_counted_and_read_in_part_but_for_the_json(
    client, take, settings
) -> None:
    now = redis_now(client)
    due = {f"e{n}": now - 3600 + 60 * n for n in range(1000)}
    client.zadd(keys.SCHEDULE, due | {f"off{n}": "inf" for n in range(500)})
    client.zadd(keys.RUNS, {"a run": now})
    client.config_resetstat()
    shot = take(settings)
    assert client.info("commandstats")["cmdstat_hmget"]["calls"] == len(shot.schedules) == 300
    names = [entry.name for entry in shot.schedules]
    assert names[:200] == [f"e{n}" for n in range(200)]
    assert all(name.startswith("off") for name in names[200:])
    assert shot.entries == Entries(count=1500, planned=1000, overdue=60, runs=1)
    assert len(take(settings, is_whole=True).schedules) == 1500


def test_schedulers_with_other_entries_than_the_leader_are_trouble(client, take, settings) -> None:
    full(client)
    scheduler(client, "sched.2", host="db", entries="cd")
    scheduler(client, "gone", seen_s=31, entries="ef")
    shot = take(settings)
    assert [one.name for one in shot.schedulers] == ["sched.1", "sched.2"]
    (differ,) = shot.trouble
    assert (differ.what, differ.object) == ("schedulers differ", "sched.2")
    assert differ.cause.startswith("has other entries on db than sched.1 on web, which leads; ")


class CountingConnection(UnixDomainSocketConnection):
    """Counts how often something is sent after something was read: the round trips."""

    def __init__(self, *args, trips, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        self.trips = trips

    def send_packed_command(self, command, check_health=True):
        self.trips.append(b"".join([command] if isinstance(command, bytes) else list(command)))
        return super().send_packed_command(command, check_health)


def test_a_refresh_takes_two_round_trips_and_reads_no_payload(
    client, settings, redis_server
) -> None:
    full(client)
    enqueue(client, 1, queue="later", scan="s2")
    trips: list[bytes] = []
    pool = redis.ConnectionPool(
        connection_class=CountingConnection, path=str(redis_server.socket), trips=trips
    )
    counted = redis.Redis(connection_pool=pool)
    lookout = Lookout(counted, settings)
    counted.ping()
    trips.clear()
    client.config_resetstat()
    shot = lookout.look()
    assert len(trips) == 2
    assert [queue.name for queue in shot.queues] == ["default", "later", "wakaka"]
    assert shot.failed
    used = {name.removeprefix("cmdstat_") for name in client.info("commandstats")}
    read = {"time", "smembers", "zrange", "exists", "info", "hgetall", "get", "llen", "zcard",
            "zcount", "lindex", "hget", "hmget", "mget", "pubsub"}  # fmt: skip
    used = {name.partition("|")[0] for name in used} - {"config"}
    assert used <= read
    flags = {name: client.execute_command("COMMAND", "INFO", name) for name in used}
    assert not [name for name, told in flags.items() if "write" in str(told)]
    lookout.look()
    assert len(trips) == 4
    assert not any(re.search(rb"\b(HGETALL\r\n\$\d+\r\nrq:job:|data\r\n)", trip) for trip in trips)
    counted.close()


def test_a_user_who_may_only_read_suffices(client, take, settings, redis_server) -> None:
    full(client)
    rule = "on >pw ~rq:* ~rqscan:* resetchannels +@read +@connection +time +info +pubsub|channels"
    client.execute_command("ACL", "SETUSER", "watch", *rule.split())
    channel = client.pubsub()
    channel.subscribe(keys.commands_of("web01.100"))
    wait_for(channel.get_message, what="the subscription")
    lookout = Lookout(redis_server.client(username="watch", password="pw"), settings)
    theirs, ours = lookout.look(), take(settings)
    assert [queue.depth for queue in theirs.queues] == [queue.depth for queue in ours.queues]
    assert (theirs.redis.version, theirs.leader) == (ours.redis.version, ours.leader)
    assert (theirs.failed, theirs.redis.eviction) == (ours.failed, "noeviction")
    assert [one.is_connected for one in theirs.workers] == [True]
    client.execute_command("ACL", "SETUSER", "watch", "-info", "-llen", "-pubsub|channels")
    poorer = lookout.look()
    assert (poorer.redis.version, poorer.queues[-1].depth) == (None, None)
    assert poorer.queues[-1].running == ours.queues[-1].running
    assert (poorer.queues[-1].depths, poorer.workers[0].is_connected) == ([], None)
    client.execute_command("ACL", "SETUSER", "watch", "-time")
    with pytest.raises(RedisUnavailable, match="allow this user TIME"):
        Lookout(redis_server.client(username="watch", password="pw"), settings).look()
    channel.close()


def test_redis_away_is_one_sentence_and_back_is_back(
    redis_server, take, settings: Settings
) -> None:
    lookout = Lookout(redis_server.client(), settings)
    shot = lookout.look()
    redis_server.kill()
    with pytest.raises(RedisUnavailable, match="cannot use Redis"):
        take(settings)
    for _ in range(2):
        old = lookout.look()
        assert (old.redis.up, old.at, old.queues) == (False, shot.at, shot.queues)
        (away,) = old.trouble
        assert away.cause.startswith("cannot use Redis: ")
    redis_server.start()
    assert lookout.look().trouble == []


def test_a_silent_redis_is_waited_for_two_seconds_at_most(short_path: Path, settings) -> None:
    with socket.socket(socket.AF_UNIX) as silent:
        silent.bind(str(short_path / "silent"))
        silent.listen()
        client = redis.Redis.from_url(f"unix://{short_path}/silent")
        lookout = Lookout(client, settings)
        ended = threading.Event()

        def look() -> None:
            with pytest.raises(RedisUnavailable):
                lookout.look()
            ended.set()

        looking = threading.Thread(target=look)
        looking.start()
        assert ended.wait(20)  # redis-py itself would wait for ever, again and again
        looking.join()
        client.close()


def test_a_job_is_shown_by_the_worker_that_has_it_now(take, client) -> None:
    old = ScriptedWorker(client, "old")
    old.beat(JobReport(id="j", kind="", age_s=1, limit_s=9))
    client.zadd(keys.PRESENCE, {"old": client.time()[0] - 60})
    ScriptedWorker(client, "new").beat(JobReport(id="j", kind="", age_s=2, limit_s=9))
    new, lost = take(Settings(home="/")).workers
    assert (lost.name, lost.state, lost.job, lost.jobs) == ("old", "lost", None, [])
    assert (new.name, new.job) == ("new", "j")
