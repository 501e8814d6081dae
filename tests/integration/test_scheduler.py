"""ScanScheduler with a real Redis: on time, by one of many, once, whatever dies meanwhile."""

import itertools
import json
import math
import os
import signal
import subprocess
import sys
import zlib
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import pytest
from msgspec.structs import replace

from rqscan.broker import keys
from rqscan.broker.payload import RUN_CHUNK
from rqscan.broker.queues import ScanQueue
from rqscan.errors import OutOfScopeError, StoreUnavailable
from rqscan.scan.progress import read_progress
from rqscan.schedule.calendar import next_due, run_id
from rqscan.schedule.entries import Entry
from rqscan.schedule.scheduler import ScanScheduler
from rqscan.settings import Settings
from rqscan.store.migrate import open_current
from rqscan.store.repository import Repository
from tests.servers import wait_for

ROOT = Path(__file__).parents[2]
SCAN = {"targets": ["127.0.0.1"], "ports": "80"}
CHILD = """
import sys, msgspec, redis
from rqscan import logs
from rqscan.settings import Settings
from rqscan.schedule.scheduler import ScanScheduler
settings = msgspec.json.decode(sys.argv[1], type=Settings)
client = redis.Redis.from_url(settings.redis.url)
logs.configure("INFO", as_json=True)
ScanScheduler.fire = lambda self, entry, due, run: client.rpush("fired", run)
ScanScheduler(connection=client, settings=settings, name=sys.argv[2]).run()
client.close()
"""


@pytest.fixture
def client(redis_server):
    return redis_server.client()


@pytest.fixture
def start(short_path):
    """Start schedulers that put the ids of their runs into the list `fired`."""
    processes = []

    def start(settings: Settings, name: str = "one") -> subprocess.Popen:
        argv = [sys.executable, "-W", "error", "-c", CHILD, msgspec.json.encode(settings), name]
        with (short_path / f"{name}.log").open("ab") as log:
            processes.append(subprocess.Popen(argv, stderr=log, stdout=log, cwd=ROOT))
        return processes[-1]

    yield start
    for process in processes:
        process.kill()
        process.wait()


def with_entries(settings: Settings, *tables) -> Settings:
    return replace(settings, schedule=[{"scan": SCAN, "overlap": "run"} | t for t in tables])


def now(client) -> datetime:
    seconds, microseconds = client.time()
    return datetime.fromtimestamp(seconds, UTC) + timedelta(microseconds=microseconds)


def series(client, count: int, step_s: float) -> list[dict]:
    """Entries that are due once each, one after the other."""
    begin = now(client).replace(microsecond=0) + timedelta(seconds=5)
    times = (begin + n * timedelta(seconds=step_s) for n in range(count))
    return [{"name": f"e{n}", "at": at.isoformat()} for n, at in enumerate(times)]


def runs(tables) -> list[str]:
    return [run_id(t["name"], datetime.fromisoformat(t["at"])) for t in tables]


def fired(client) -> list[str]:
    return [run.decode() for run in client.lrange("fired", 0, -1)]


def fields(client, name: str) -> dict[str, str]:
    return {k.decode(): v.decode() for k, v in client.hgetall(keys.schedule_entry(name)).items()}


def leader(client) -> str | None:
    return json.loads(raw)["name"] if (raw := client.get(keys.LEADER)) else None


def planned(client) -> int:
    """Count the entries that have a next due time."""
    return client.zcount(keys.SCHEDULE, "-inf", "(inf")


def overdue(client, settings: Settings, fire=None) -> ScanScheduler:
    """Give a scheduler, all entries of which have been due an hour ago."""
    scheduler = ScanScheduler(connection=client, settings=settings)
    scheduler.run(burst=True)
    for entry in scheduler._entries.values():
        if due := next_due(entry, now(client) - timedelta(hours=1)):
            client.zadd(keys.SCHEDULE, {entry.name: due.timestamp()})
    scheduler = ScanScheduler(connection=client, settings=settings)
    scheduler.fire = fire or scheduler.fire
    return scheduler


def test_a_scheduler_fires_each_run_once_and_never_early(settings, client, start):
    tables = series(client, 8, 0.2)
    start(with_entries(settings, *tables))
    wait_for(lambda: len(fired(client)) >= 8, what="all runs")
    assert fired(client) == runs(tables)
    found = [fields(client, table["name"]) for table in tables]
    for table, run, entry in zip(tables, runs(tables), found, strict=True):
        late = datetime.fromisoformat(entry["fired_at"]) - datetime.fromisoformat(table["at"])
        assert float(entry["lateness_s"]) == late.total_seconds() >= 0
        assert datetime.fromisoformat(entry["last_at"]) == datetime.fromisoformat(table["at"])
        assert (entry["outcome"], entry["scan_id"], entry["state"]) == ("fired", run, "ended")
    assert not planned(client)


def test_another_takes_over_when_the_leader_is_killed(settings, client, start):
    tables = series(client, 24, 0.25)
    settings = with_entries(settings, *tables)
    first = start(settings, "first")
    wait_for(lambda: leader(client) == "first", what="the first to lead")
    start(settings, "second")
    wait_for(lambda: len(fired(client)) >= 4, what="some runs")
    first.kill()
    wait_for(lambda: leader(client) == "second", what="the second to lead")
    wait_for(lambda: set(fired(client)) == set(runs(tables)), what="all runs")
    wait_for(lambda: not planned(client), what="the last to be noted")
    counts = Counter(fired(client))
    # at most the one that the first had in hand, under the same id, so that submit ignores it
    assert sorted(counts.values())[-2:] in ([1, 1], [1, 2])


def test_a_leader_that_was_frozen_neither_fires_nor_writes(settings, client, start):
    settings = with_entries(settings, {"name": "a", "every_s": 1})
    first = start(settings, "first")
    wait_for(lambda: fired(client), what="a run")
    first.send_signal(signal.SIGSTOP)
    start(settings, "second")
    wait_for(lambda: leader(client) == "second", what="the second to lead")
    count = len(fired(client))
    first.send_signal(signal.SIGCONT)
    wait_for(lambda: len(fired(client)) >= count + 3, what="more runs")
    assert leader(client) == "second"
    assert max(Counter(fired(client)).values()) == 1


def test_an_outage_of_redis_loses_and_doubles_nothing(
    settings, client, start, redis_server, short_path
):
    tables = series(client, 16, 0.25)
    process = start(with_entries(settings, *tables, {"name": "no", "every_s": -1}))
    wait_for(lambda: len(fired(client)) >= 3, what="some runs")
    redis_server.stop()
    log = short_path / "one.log"
    wait_for(lambda: "redis_lost" in log.read_text(), what="the loss to be told")
    redis_server.start()
    wait_for(lambda: set(fired(client)) == set(runs(tables)), what="all runs")
    assert max(Counter(fired(client)).values()) == 1
    assert process.poll() is None
    events = Counter(json.loads(line)["event"] for line in log.read_text().splitlines())
    assert (events["redis_lost"], events["redis_back"], events["entry_invalid"]) == (1, 1, 1)


def test_a_redis_that_lost_everything_gets_its_entries_again(settings, client, start, redis_server):
    start(with_entries(settings, {"name": "a", "every_s": 1}))
    wait_for(lambda: fired(client), what="a run")
    client.flushall()
    wait_for(lambda: planned(client) and fired(client), what="runs again")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_and_gives_up_the_lead(settings, client, start, number):
    process = start(with_entries(settings, {"name": "a", "every_s": 3600}))
    wait_for(lambda: planned(client), what="the schedule")
    process.send_signal(number)
    assert process.wait(10) == 0
    assert leader(client) is None


def test_a_signal_ends_it_while_redis_is_away(settings, client, start, redis_server, short_path):
    process = start(settings)
    wait_for(lambda: leader(client), what="a leader")
    redis_server.stop()
    wait_for(lambda: "redis_lost" in (short_path / "one.log").read_text(), what="the loss")
    process.terminate()
    assert process.wait(10) == 0


def test_a_bad_entry_or_run_harms_no_other(settings, client):
    names = ["good", "refused", "failed", "waiting", "last"]
    tables = [{"name": name, "every_s": 3600} for name in names]
    tables.insert(1, {"name": "bad", "every_s": 0})
    tables.append({"name": "off", "every_s": 3600, "enabled": False})
    started = []

    def fire(entry: Entry, due: datetime, run: str) -> None:
        if entry.name == "refused":
            raise OutOfScopeError("target '192.0.2.1' is outside the scope")
        if entry.name == "failed":
            raise ZeroDivisionError("oh")
        if entry.name == "waiting":
            raise StoreUnavailable("the database is away")
        started.append(run)

    scheduler = overdue(client, with_entries(settings, *tables), fire)
    waiting_since = client.zscore(keys.SCHEDULE, "waiting")
    scheduler.run(burst=True)
    assert [run.split("-")[0] for run in started] == ["good", "last"]
    found = {name: fields(client, name) for name in [*names, "bad", "off"]}
    assert {name: found[name].get("outcome") for name in found} == {
        "good": "fired", "refused": "refused", "failed": "failed", "waiting": "waiting",
        "last": "fired", "bad": None, "off": None,
    }  # fmt: skip
    assert found["refused"]["reason"] == "target '192.0.2.1' is outside the scope"
    assert found["failed"]["reason"] == "ZeroDivisionError: oh"
    assert (found["bad"]["state"], found["off"]["state"]) == ("invalid", "disabled")
    assert "every_s" in found["bad"]["invalid"]
    assert client.zscore(keys.SCHEDULE, "waiting") == waiting_since
    future = [client.zscore(keys.SCHEDULE, name) for name in ("good", "refused", "failed")]
    assert min(future) > now(client).timestamp()
    assert client.zscore(keys.SCHEDULE, "bad") == client.zscore(keys.SCHEDULE, "off") == math.inf


def test_a_run_waits_for_the_store_and_is_then_fired(settings, client):
    tries = itertools.count()
    started = []

    def fire(entry: Entry, due: datetime, run: str) -> None:
        if next(tries) < 1:
            raise StoreUnavailable("the database is away")
        started.append(run)
        signal.raise_signal(signal.SIGTERM)

    scheduler = overdue(client, with_entries(settings, {"name": "a", "every_s": 3600}), fire)
    scheduler.run()
    assert len(started) == 1
    assert fields(client, "a")["outcome"] == "fired"


def test_an_overdue_entry_is_fired_once_for_its_latest_due_time(settings, client):
    started = []
    settings = with_entries(settings, {"name": "a", "every_s": 60})

    def fire(entry: Entry, due: datetime, run: str) -> None:
        started.append(due)

    overdue(client, settings, fire).run(burst=True)
    (due,) = started
    assert now(client) - timedelta(seconds=70) < due <= now(client)
    assert client.zscore(keys.SCHEDULE, "a") == (due + timedelta(seconds=60)).timestamp()


def test_entries_that_changed_or_left_are_planned_again(settings, client):
    before = [{"name": "a", "at": "2100-01-01T00:00:00"}, {"name": "b", "every_s": 0}]
    ScanScheduler(connection=client, settings=with_entries(settings, *before)).run(burst=True)
    assert fields(client, "b")["state"] == "invalid"
    assert "every_s" in fields(client, "b")["invalid"]
    after = with_entries(settings, {"name": "b", "at": "2100-01-01T00:00:00"})
    ScanScheduler(connection=client, settings=after).run(burst=True)
    assert client.zrange(keys.SCHEDULE, 0, -1) == [b"b"]
    assert not fields(client, "a")
    assert fields(client, "b") == {"state": "scheduled", "invalid": ""}


def test_overlap_skips_while_the_run_before_has_not_ended(settings, client):
    started = []
    settings = with_entries(settings, {"name": "a", "every_s": 60, "overlap": "skip"})

    def fire(entry: Entry, due: datetime, run: str) -> None:
        started.append(run)

    scheduler = overdue(client, settings, fire)
    client.hset(keys.schedule_entry("a"), "scan_id", "a-1")
    client.hset(keys.progress("a-1"), "total", 5)
    scheduler.run(burst=True)
    assert (started, fields(client, "a")["outcome"]) == ([], "skipped")
    assert fields(client, "a")["reason"] == "the run before, scan a-1, has not ended"
    assert client.zscore(keys.SCHEDULE, "a") > now(client).timestamp()
    client.hset(keys.progress("a-1"), "finished_at", "x")
    overdue(client, settings, fire).run(burst=True)
    assert len(started) == 1


def test_a_due_entry_becomes_a_scan_once(settings, client):
    settings = with_entries(
        settings, {"name": "a", "every_s": 3600, "queue": "wakaka"},
        {"name": "b", "every_s": 60, "scan": {"targets": ["192.0.2.1"]}},
    )  # fmt: skip
    overdue(client, settings).run(burst=True)
    entry = fields(client, "a")
    due = datetime.fromisoformat(entry["last_at"])
    assert entry["scan_id"] == run_id("a", due)
    queue = ScanQueue("wakaka", connection=client)
    assert queue.job_ids == [f"{entry['scan_id']}-0-1"]
    assert fields(client, "b")["outcome"] == "refused"
    assert "192.0.2.1" in fields(client, "b")["reason"]
    client.zadd(keys.SCHEDULE, {"a": due.timestamp()})  # as if killed before it was noted
    ScanScheduler(connection=client, settings=settings).run(burst=True)
    assert queue.job_ids == [f"{entry['scan_id']}-0-1"]
    assert read_progress(client, entry["scan_id"]).chunks.total == 1
    with open_current(settings) as database:
        scan = Repository(database).scan(entry["scan_id"])
    assert (scan.schedule, scan.due_at, scan.name) == ("a", due, "a")


@pytest.mark.filterwarnings("ignore:Version 0.22.0:FutureWarning")  # crontab's, in cron()
def test_rq_schedulers_own_interface_works_with_json(settings, client):
    scheduler = ScanScheduler("wakaka", connection=client, settings=settings)
    soon = scheduler.enqueue_in(timedelta(seconds=-1), RUN_CHUNK, scan_id="s", chunk=0)
    later = scheduler.enqueue_at(now(client) + timedelta(days=1), RUN_CHUNK, 1)
    again = scheduler.schedule(now(client), RUN_CHUNK, args=[2], interval=60)
    weekly = scheduler.cron("0 2 * * 1", RUN_CHUNK, args=[3])
    bad = scheduler.enqueue_in(timedelta(seconds=-5), RUN_CHUNK)
    client.hset(keys.job(bad.id), "data", b"\x80\x04pickle")
    payload = zlib.decompress(client.hget(keys.job(later.id), "data"))
    assert json.loads(payload) == [RUN_CHUNK, None, [1], {}]
    assert {job.id for job in scheduler.get_jobs()} == {
        soon.id, later.id, again.id, weekly.id, bad.id,
    }  # fmt: skip
    assert weekly in scheduler
    scheduler.cancel(weekly)
    assert weekly not in scheduler
    scheduler.run(burst=True)
    assert ScanQueue("wakaka", connection=client).job_ids == [soon.id, again.id]
    assert {job.id for job in scheduler.get_jobs()} == {later.id, again.id, bad.id}


def test_the_command_runs_until_a_signal(settings, client, home, short_path):
    config = short_path / "rqscan.toml"
    config.write_text(
        f'home = "{home}"\n[redis]\nurl = "{settings.redis.url}"\n'
        '[[schedule]]\nname = "a"\nevery_s = 3600\nscan = { targets = ["127.0.0.1"] }\n'
    )
    argv = [sys.executable, "-W", "error", ROOT / "scheduler.py", "--config", config, "--log-json"]
    process = subprocess.Popen(argv, stderr=subprocess.PIPE, text=True)
    try:
        wait_for(lambda: planned(client), what="the schedule")
        process.terminate()
        log = process.communicate(timeout=10)[1]
    finally:
        process.kill()
    assert process.returncode == 0
    events = [json.loads(line)["event"] for line in log.splitlines()]
    assert events.count("running_as_root") == (os.geteuid() == 0)
    events = [event for event in events if event != "running_as_root"]
    assert events == ["scheduler_started", "leader_taken", "stop_requested", "scheduler_stopped"]
