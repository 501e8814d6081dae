"""ScanScheduler with a real Redis: on time, by one of many, once, whatever dies meanwhile."""

import json
import math
import os
import signal
import subprocess
import sys
import zlib
from collections import Counter
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path

import msgspec
import pytest
from msgspec.structs import replace

from rqscan import clock
from rqscan.broker import keys
from rqscan.broker.payload import RUN_CHUNK
from rqscan.broker.queues import ScanQueue
from rqscan.clock import iso
from rqscan.model import RunRecord
from rqscan.scan.cancel import cancel
from rqscan.scan.progress import read_progress
from rqscan.schedule import maker
from rqscan.schedule.calendar import next_due, run_id
from rqscan.schedule.scheduler import ScanScheduler
from rqscan.settings import DatabaseSettings, IdleSettings, Settings
from rqscan.store.journal import Journal
from rqscan.store.migrate import open_current
from rqscan.store.repository import Repository
from tests.servers import wait_for

ROOT = Path(__file__).parents[2]
SCAN = {"targets": ["127.0.0.1"], "ports": "80"}
CHILD = """
import signal, sys, msgspec, redis
signal.signal(signal.SIGINT, signal.default_int_handler)  # a background job begins without
from rqscan import logs
from rqscan.settings import DatabaseSettings, IdleSettings, Settings
from rqscan.schedule.scheduler import ScanScheduler
settings = msgspec.json.decode(sys.argv[1], type=Settings)
client = redis.Redis.from_url(settings.redis.url)
logs.configure("INFO", as_json=True)
ScanScheduler(connection=client, settings=settings, name=sys.argv[2]).run()
client.close()
"""


@pytest.fixture
def client(redis_server):
    return redis_server.client()


@pytest.fixture
def start(short_path):
    """Start schedulers."""
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


def history(settings) -> list[RunRecord]:
    """Give what the journal has, the newest first."""
    with open_current(settings) as database:
        return Journal(database).runs(None, 10_000)


def made(settings, outcome: str = "fired") -> list[str]:
    """Give the ids of the runs that the journal has with an outcome, the oldest first."""
    found = reversed(history(settings))
    return [run_id(run.name, run.due_at) for run in found if run.outcome == outcome]


def fields(client, name: str) -> dict[str, str]:
    return {k.decode(): v.decode() for k, v in client.hgetall(keys.schedule_entry(name)).items()}


def leader(client) -> str | None:
    return json.loads(raw)["name"] if (raw := client.get(keys.LEADER)) else None


def planned(client) -> int:
    """Count the entries that have a next due time."""
    return client.zcount(keys.SCHEDULE, "-inf", "(inf")


def overdue(client, settings: Settings) -> ScanScheduler:
    """Give a scheduler, all entries of which have been due an hour ago."""
    scheduler = ScanScheduler(connection=client, settings=settings)
    scheduler.run(burst=True)
    for entry in scheduler._entries.values():
        if due := next_due(entry, now(client) - timedelta(hours=1)):
            client.zadd(keys.SCHEDULE, {entry.name: due.timestamp()})
            client.hset(keys.schedule_entry(entry.name), "due", iso(due))
    return ScanScheduler(connection=client, settings=settings)


def test_a_scheduler_fires_each_run_once_and_never_early(settings, client, start):
    tables = series(client, 8, 0.2)
    settings = with_entries(settings, *tables)
    start(settings)
    wait_for(lambda: len(made(settings)) >= 8, what="all runs")
    assert made(settings) == runs(tables)
    found = [fields(client, table["name"]) for table in tables]
    for table, run, entry in zip(tables, runs(tables), found, strict=True):
        late = datetime.fromisoformat(entry["fired_at"]) - datetime.fromisoformat(table["at"])
        assert float(entry["lateness_s"]) == late.total_seconds() >= 0
        assert datetime.fromisoformat(entry["last_at"]) == datetime.fromisoformat(table["at"])
        assert (entry["outcome"], entry["scan_id"], entry["state"]) == ("fired", run, "ended")
    assert not planned(client)
    assert not client.exists(keys.RUNS)


def test_another_takes_over_when_the_leader_is_killed(settings, client, start):
    tables = series(client, 24, 0.25)
    settings = with_entries(settings, *tables)
    first = start(settings, "first")
    wait_for(lambda: leader(client) == "first", what="the first to lead")
    start(settings, "second")
    wait_for(lambda: len(made(settings)) >= 4, what="some runs")
    first.kill()
    wait_for(lambda: leader(client) == "second", what="the second to lead")
    wait_for(lambda: made(settings) == runs(tables), what="all runs")
    assert scans(settings) == Counter(runs(tables))


def scans(settings) -> Counter:
    """Count the scans by their ids, as the store has them."""
    with open_current(settings) as database:
        return Counter(scan.scan_id for scan, _ in Repository(database).scans(10_000))


def test_a_leader_that_was_frozen_neither_fires_nor_writes(settings, client, start):
    settings = with_entries(settings, {"name": "a", "every_s": 1, "misfire": "all"})
    first = start(settings, "first")
    wait_for(lambda: made(settings), what="a run")
    first.send_signal(signal.SIGSTOP)
    start(settings, "second")
    wait_for(lambda: leader(client) == "second", what="the second to lead")
    count = len(made(settings))
    first.send_signal(signal.SIGCONT)
    wait_for(lambda: len(made(settings)) >= count + 3, what="more runs")
    assert leader(client) == "second"
    seconds = [datetime.strptime(run[2:], "%Y%m%dT%H%M%SZ") for run in made(settings)]  # noqa: DTZ007
    assert {b - a for a, b in pairwise(seconds)} == {timedelta(seconds=1)}


def test_an_outage_of_redis_loses_and_doubles_nothing(
    settings, client, start, redis_server, short_path
):
    tables = series(client, 16, 0.25)
    settings = with_entries(settings, *tables, {"name": "no", "every_s": -1})
    process = start(settings)
    wait_for(lambda: len(made(settings)) >= 3, what="some runs")
    redis_server.stop()
    log = short_path / "one.log"
    wait_for(lambda: "redis_lost" in log.read_text(), what="the loss to be told")
    redis_server.start()
    wait_for(lambda: set(made(settings)) == set(runs(tables)), what="all runs")
    assert process.poll() is None
    events = Counter(json.loads(line)["event"] for line in log.read_text().splitlines())
    assert (events["redis_lost"], events["redis_back"], events["entry_invalid"]) == (1, 1, 1)


@pytest.mark.slow
def test_redis_away_for_half_a_minute_is_dealt_with_as_each_entry_says(
    settings, client, start, redis_server
):
    policies = {"skip": {}, "once": {}, "all": {}, "all-late": {"misfire_deadline_s": 10}}
    tables = [
        {"name": name, "every_s": 1, "misfire": name.partition("-")[0]} | more
        for name, more in policies.items()
    ]
    settings = with_entries(settings, *tables)
    start(settings)
    wait_for(lambda: {run[:-17] for run in made(settings)} == policies.keys(), what="runs of all")
    redis_server.stop()
    away_at = clock.now()
    wait_for(lambda: clock.now() > away_at + timedelta(seconds=30), 40)
    redis_server.start()
    wait_for(lambda: seconds_of(settings, "all")[-1] > naive(clock.now()) - timedelta(seconds=2))
    wait_for(lambda: seconds_of(settings, "all")[-1] > naive(away_at) + timedelta(seconds=45))
    gaps = {name: max(b - a for a, b in pairwise(seconds_of(settings, name))) for name in policies}
    assert gaps["all"] == timedelta(seconds=1)
    assert timedelta(seconds=14) < gaps["skip"] < timedelta(seconds=20)
    assert timedelta(seconds=19) < gaps["all-late"] < timedelta(seconds=26)
    assert timedelta(seconds=29) < gaps["once"] < timedelta(seconds=36)
    missed = {run[:-17] for run in made(settings, "missed")}
    assert missed == policies.keys() - {"all"}


def seconds_of(settings, name: str) -> list[datetime]:
    """Give the due times of an entry's runs that were made."""
    found = reversed(history(settings))
    return [naive(run.due_at) for run in found if (run.name, run.outcome) == (name, "fired")]


def test_a_redis_that_lost_everything_goes_on_where_the_journal_ends(settings, client, start):
    settings = with_entries(settings, {"name": "a", "every_s": 1, "misfire": "all"})
    first = start(settings, "first")
    wait_for(lambda: len(made(settings)) > 1, what="runs")
    first.kill()
    first.wait()
    client.flushall()
    before = made(settings)
    begin = now(client) + timedelta(seconds=3)
    wait_for(lambda: now(client) > begin)
    start(settings, "second")
    wait_for(lambda: len(made(settings)) > len(before) + 5, what="runs again")
    seconds = [datetime.strptime(run[2:], "%Y%m%dT%H%M%SZ") for run in made(settings)]  # noqa: DTZ007
    assert {b - a for a, b in pairwise(seconds)} == {timedelta(seconds=1)}


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_and_gives_up_the_lead(settings, client, start, number):
    process = start(with_entries(settings, {"name": "a", "every_s": 3600}))
    wait_for(lambda: planned(client), what="the schedule")
    process.send_signal(number)
    assert process.wait(10) == 0
    assert leader(client) is None


def test_an_entry_that_is_nobodys_does_not_hold_up_the_leader(settings, client, start):
    settings = with_entries(settings, {"name": "a", "every_s": 1})
    process = start(settings)
    wait_for(lambda: made(settings), what="a run")
    client.zadd(keys.SCHEDULE, {"nobodys": 1})
    before = len(made(settings))
    wait_for(lambda: len(made(settings)) > before + 1, what="more runs")
    process.terminate()
    assert process.wait(10) == 0


def test_a_signal_ends_it_while_redis_is_away(settings, client, start, redis_server, short_path):
    process = start(settings)
    wait_for(lambda: leader(client), what="a leader")
    redis_server.stop()
    wait_for(lambda: "redis_lost" in (short_path / "one.log").read_text(), what="the loss")
    process.terminate()
    assert process.wait(10) == 0


def test_a_bad_entry_or_run_harms_no_other(settings, client, monkeypatch):
    names = ["good", "refused", "failed", "last"]
    tables = [{"name": name, "every_s": 3600} for name in names]
    tables[1]["scan"] = {"targets": ["192.0.2.1"]}
    tables.insert(1, {"name": "bad", "every_s": 0})
    tables.append({"name": "off", "every_s": 3600, "enabled": False})
    plan = maker.make_plan

    def make_plan(**asked):
        return plan(**asked) if asked["name"] != "failed" else 1 / 0

    monkeypatch.setattr(maker, "make_plan", make_plan)
    settings = with_entries(settings, *tables)
    client.zadd(keys.RUNS, {b"nonsense": 1})
    overdue(client, settings).run(burst=True)
    assert [run.split("-")[0] for run in made(settings)] == ["good", "last"]
    found = {name: fields(client, name) for name in [*names, "bad", "off"]}
    assert {name: found[name].get("outcome") for name in found} == {
        "good": "fired", "refused": "refused", "failed": "failed", "last": "fired", "bad": None,
        "off": None,
    }  # fmt: skip
    assert found["refused"]["reason"].startswith("target '192.0.2.1' is outside the scope")
    assert found["failed"]["reason"] == "ZeroDivisionError: division by zero"
    assert (found["bad"]["state"], found["off"]["state"]) == ("invalid", "disabled")
    assert "every_s" in found["bad"]["reason"]
    future = [client.zscore(keys.SCHEDULE, name) for name in ("good", "refused", "failed")]
    assert min(future) > now(client).timestamp()
    assert client.zscore(keys.SCHEDULE, "bad") == client.zscore(keys.SCHEDULE, "off") == math.inf
    assert not client.exists(keys.RUNS)


def test_runs_wait_for_the_store_and_are_made_when_it_is_back(settings, client, start, mariadb):
    database = DatabaseSettings(url=mariadb.database_url())
    entry = {"name": "a", "every_s": 1, "misfire": "all"}
    settings = replace(with_entries(settings, entry), database=database)
    start(settings)
    wait_for(lambda: len(made(settings)) > 1, what="runs")
    mariadb.kill()
    wait_for(lambda: fields(client, "a").get("outcome") == "waiting", what="a run that waits")
    assert "cannot use" in fields(client, "a")["reason"]
    wait_for(lambda: client.zcard(keys.RUNS) > 3, what="more of them")
    mariadb.start()
    wait_for(lambda: client.zcard(keys.RUNS) == 0, what="them to be made")
    seconds = [datetime.strptime(run[2:], "%Y%m%dT%H%M%SZ") for run in made(settings)]  # noqa: DTZ007
    assert {b - a for a, b in pairwise(seconds)} == {timedelta(seconds=1)}


@pytest.mark.parametrize(
    ("policy", "fired", "missed"),
    [
        ({"misfire": "once"}, [0], [60]),
        ({"misfire": "all"}, [60 * n for n in range(59, -1, -1)], []),
        ({"misfire": "all", "misfire_limit": 3}, [120, 60, 0], [180]),
        ({"misfire": "all", "misfire_deadline_s": 200}, [120, 60, 0], [180]),
        ({"misfire": "skip"}, [], [0]),
    ],
)
def test_what_was_missed_for_an_hour_is_made_as_the_policy_says(
    settings, client, policy, fired, missed
):
    """The times are seconds before the last due time."""
    start = now(client).replace(microsecond=0) - timedelta(seconds=30)
    entry = {"name": "a", "every_s": 60, "start": (start - timedelta(hours=2)).isoformat()}
    settings = with_entries(settings, entry | policy)
    overdue(client, settings).run(burst=True)

    def ids(before: list[int]) -> list[str]:
        return [run_id("a", start - timedelta(seconds=n)) for n in before]

    assert made(settings) == ids(fired)
    assert made(settings, "missed") == ids(missed)
    assert client.zscore(keys.SCHEDULE, "a") == (start + timedelta(seconds=60)).timestamp()


def test_entries_that_changed_or_left_are_planned_again(settings, client):
    before = [{"name": "a", "at": "2100-01-01T00:00:00"}, {"name": "b", "every_s": 0}]
    ScanScheduler(connection=client, settings=with_entries(settings, *before)).run(burst=True)
    assert fields(client, "b")["state"] == "invalid"
    assert "every_s" in fields(client, "b")["reason"]
    after = with_entries(settings, {"name": "b", "at": "2100-01-01T00:00:00"})
    ScanScheduler(connection=client, settings=after).run(burst=True)
    assert client.zrange(keys.SCHEDULE, 0, -1) == [b"b"]
    assert not fields(client, "a")
    assert fields(client, "b").items() >= {"state": "scheduled", "reason": ""}.items()


@pytest.mark.parametrize("overlap", ["skip", "queue", "cancel", "run"])
def test_overlap_is_dealt_with_as_the_entry_says(settings, client, overlap):
    entry = {"name": "a", "every_s": 60, "overlap": overlap, "misfire": "all", "misfire_limit": 3}
    settings = with_entries(settings, entry)
    scheduler = overdue(client, settings)
    scheduler.run(burst=True)
    reasons = {run.reason for run in history(settings) if run.outcome == "skipped"}
    if overlap == "run":
        assert len(made(settings)) == 3
    elif overlap == "cancel":
        *older, _ = made(settings)
        assert len(older) == 2
        assert [read_progress(client, scan).state for scan in older] == ["cancelled"] * 2
    elif overlap == "skip":
        (first,) = made(settings)
        assert reasons == {f"the run before, scan {first}, has not ended"}
    else:
        (first,) = made(settings)
        assert reasons == {"a run before it still waits"}
        assert fields(client, "a")["reason"] == f"the run before, scan {first}, has not ended"
        assert client.zcard(keys.RUNS) == 1
        cancel(settings, client, first)
        ScanScheduler(connection=client, settings=settings).run(burst=True)
        assert len(made(settings)) == 2
        assert client.zcard(keys.RUNS) == 0


def test_jitter_puts_a_run_off_by_its_name_and_due_time(settings, client, start):
    begin = now(client).replace(microsecond=0) + timedelta(seconds=3)
    tables = [
        {"name": f"e{n}", "at": begin.isoformat(), "jitter_s": 3.0} for n in range(8)
    ]  # fmt: skip
    settings = with_entries(settings, *tables)
    start(settings)
    wait_for(lambda: len(made(settings)) == 8, what="all runs")
    after = [(run.fired_at - begin).total_seconds() for run in history(settings)]
    assert max(after) - min(after) > 0.5
    assert {run.due_at for run in history(settings)} == {begin}
    assert set(made(settings)) == set(runs(tables))


def test_a_run_waits_for_an_idle_fleet_and_no_longer_than_it_may(settings, client, start):
    """A job waits that nobody takes, so the fleet is not idle."""
    idle = {"name": "idle", "every_s": 3600, "when": "idle", "max_delay_s": 7_200}
    hasty = {"name": "hasty", "every_s": 3600, "when": "idle", "max_delay_s": 0}
    settings = replace(with_entries(settings, idle, hasty), idle=IdleSettings(for_s=1))
    queue = ScanQueue("wakaka", connection=client)
    queue.enqueue(RUN_CHUNK)
    scheduler = overdue(client, settings)
    scheduler.run(burst=True)
    assert [run.split("-")[0] for run in made(settings)] == ["hasty"]
    entry = fields(client, "idle")
    assert entry["outcome"] == "waiting"
    words = "waiting for idle: jobs run or wait in the fleet, the database is on this host; forced"
    assert entry["reason"].startswith(words)
    start(settings)
    wait_for(lambda: leader(client), what="a leader")
    queue.empty()
    ScanQueue("default", connection=client).empty()
    wait_for(lambda: len(made(settings)) == 2, what="the run")


def test_a_due_entry_becomes_a_scan_once(settings, client):
    settings = with_entries(settings, {"name": "a", "every_s": 3600, "queue": "wakaka"})
    overdue(client, settings).run(burst=True)
    entry = fields(client, "a")
    due = datetime.fromisoformat(entry["last_at"])
    assert entry["scan_id"] == run_id("a", due)
    queue = ScanQueue("wakaka", connection=client)
    assert queue.job_ids == [f"{entry['scan_id']}-0-1"]
    # as if Redis had lost what came after
    client.zadd(keys.SCHEDULE, {"a": due.timestamp()})
    client.hset(keys.schedule_entry("a"), "due", iso(due))
    ScanScheduler(connection=client, settings=settings).run(burst=True)
    assert queue.job_ids == [f"{entry['scan_id']}-0-1"]
    assert read_progress(client, entry["scan_id"]).chunks.total == 1
    assert len(history(settings)) == 1
    with open_current(settings) as database:
        scan = Repository(database).scan(entry["scan_id"])
    assert (scan.schedule, scan.due_at, scan.name) == ("a", due, "a")


def test_entries_of_the_command_line_are_heard_of_at_once(settings, client, start):
    start(settings)
    wait_for(lambda: leader(client), what="a leader")
    table = {"name": "new", "every_s": 1, "scan": SCAN, "overlap": "run"}
    with open_current(settings) as database:
        journal = Journal(database)
        assert journal.add_entry("new", table)
        client.publish(keys.SCHEDULE_CHANGED, "new")
        wait_for(lambda: made(settings), what="a run")
        journal.pause("new", is_paused=True)
        client.publish(keys.SCHEDULE_CHANGED, "new")
        wait_for(lambda: fields(client, "new")["state"] == "paused", what="the pause")
        assert not planned(client)
        journal.remove_entry("new")
        client.publish(keys.SCHEDULE_CHANGED, "new")
        wait_for(lambda: not fields(client, "new"), what="it to be forgotten")


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


@pytest.mark.filterwarnings("ignore:Version 0.22.0:FutureWarning")  # crontab's, in cron()
def test_rq_schedulers_jobs_are_repeated_by_redis_clock_and_move_in_one_step(settings, client):
    scheduler = ScanScheduler("wakaka", connection=client, settings=settings)
    queue = ScanQueue("wakaka", connection=client)
    begin = now(client).replace(microsecond=0) - timedelta(seconds=150)
    often = scheduler.schedule(begin, RUN_CHUNK, args=[1], interval=60, repeat=5)
    twice = scheduler.schedule(begin, RUN_CHUNK, args=[2], interval=60, repeat=2)
    nightly = scheduler.cron("0 2 * * *", RUN_CHUNK, args=[3])
    later = scheduler.enqueue_in(timedelta(days=1), RUN_CHUNK, 4)
    assert scheduler.count() == 4
    due = dict(scheduler.get_jobs(with_times=True))
    assert (due[nightly].hour, due[nightly].minute, due[often]) == (2, 0, naive(begin))
    scheduler.change_execution_time(later, begin)
    scheduler.cancel(later.id)
    with pytest.raises(ValueError, match="not in scheduled jobs"):
        scheduler.change_execution_time(later, begin)
    scheduler.run(burst=True)
    assert sorted(queue.job_ids) == sorted([often.id, twice.id])
    due = dict(scheduler.get_jobs(with_times=True))
    assert due[often] == due[twice] == naive(begin + timedelta(seconds=180))  # no drift
    for job in (often, twice):
        client.zadd(scheduler.scheduled_jobs_key, {job.id: begin.timestamp()})
    ScanScheduler("wakaka", connection=client, settings=settings).run(burst=True)
    assert {job.id for job in scheduler.get_jobs()} == {often.id, nightly.id}
    client.set(keys.LEADER, "another")
    client.zadd(scheduler.scheduled_jobs_key, {often.id: begin.timestamp()})
    before = queue.job_ids
    scheduler.enqueue_jobs()
    assert queue.job_ids == before
    assert client.zscore(scheduler.scheduled_jobs_key, often.id) == begin.timestamp()


def naive(at: datetime) -> datetime:
    """Write a time as rq-scheduler gives it."""
    return at.astimezone(UTC).replace(tzinfo=None)


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
