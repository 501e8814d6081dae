"""Three schedulers, one of which dies, freezes or is cut off every few seconds: each run once."""

import os
import random
import signal
import subprocess
import sys
from collections import Counter
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path

import msgspec
import pytest
from msgspec.structs import replace
from redis.connection import AbstractConnection

from rqscan.broker import keys
from rqscan.broker.connect import connect
from rqscan.broker.queues import ScanQueue
from rqscan.schedule.calendar import run_id
from rqscan.schedule.entries import read_entries
from rqscan.schedule.maker import Maker
from rqscan.schedule.misfire import Run
from rqscan.settings import RedisSettings
from rqscan.store.journal import Journal
from rqscan.store.migrate import open_current
from rqscan.store.queries import _Query
from rqscan.store.repository import Repository
from tests.servers import wait_for

ROOT = Path(__file__).parents[2]
SCAN = {"targets": ["127.0.0.1"], "ports": "80"}
ENTRIES = 200
FAULT_EVERY_S = 3
CHILD = """
import sys, msgspec
from rqscan import logs
from rqscan.broker.connect import connect
from rqscan.settings import Settings
from rqscan.schedule.scheduler import ScanScheduler
settings = msgspec.json.decode(sys.argv[1], type=Settings)
logs.configure("INFO", as_json=True)
ScanScheduler(connection=connect(settings), settings=settings, name=sys.argv[2]).run()
"""


class Crew:
    """Schedulers with a user of Redis each, so that one can be cut off."""

    def __init__(self, client, settings, folder: Path) -> None:
        self._client, self._settings, self._folder = client, settings, folder
        self.running: dict[str, subprocess.Popen] = {}

    def start(self, name: str) -> None:
        self.let_in(name)
        url = self._settings.redis.url.replace("unix://", f"unix://{name}:x@")
        settings = replace(self._settings, redis=RedisSettings(url=url))
        argv = [sys.executable, "-W", "error", "-c", CHILD, msgspec.json.encode(settings), name]
        path = self._folder / f"{name}.log"
        with path.open("ab") as log:
            begin = log.tell()
            self.running[name] = subprocess.Popen(argv, stderr=log, stdout=log, cwd=ROOT)
        # who is refused before that ends, as any command does
        wait_for(lambda: b"scheduler_started" in path.read_bytes()[begin:])

    def let_in(self, name: str) -> None:
        self._client.acl_setuser(
            name, enabled=True, passwords=["+x"], keys=["*"], channels=["*"], commands=["+@all"]
        )

    def cut_off(self, name: str) -> None:
        self._client.acl_setuser(name, enabled=False)
        self._client.execute_command("CLIENT", "KILL", "USER", name)

    def close(self) -> None:
        for process in self.running.values():
            process.kill()
            process.wait()


@pytest.fixture
def client(redis_server):
    return redis_server.client()


def now(client) -> datetime:
    seconds, microseconds = client.time()
    return datetime.fromtimestamp(seconds, UTC) + timedelta(microseconds=microseconds)


def leader(client) -> str | None:
    raw = client.get(keys.LEADER)
    return raw and msgspec.json.decode(raw)["name"]


@pytest.fixture
def crew(client, settings, short_path):
    made = Crew(client, settings, short_path)
    yield made
    made.close()


def strike(crew: Crew, client, dice: random.Random) -> None:
    """Harm one, the leader more often than not, and mend it."""
    name = leader(client) if dice.random() < 0.7 else None
    name = name or dice.choice(sorted(crew.running))
    process, until = crew.running[name], now(client) + timedelta(seconds=FAULT_EVERY_S)
    how = dice.choice(["killed", "frozen", "cut off"])
    if how == "killed":
        process.kill()
        process.wait()
    elif how == "frozen":
        process.send_signal(signal.SIGSTOP)
    else:
        crew.cut_off(name)
    until += timedelta(seconds=4 if how != "killed" and dice.random() < 0.5 else 0)
    wait_for(lambda: now(client) > until)
    if how == "killed":
        crew.start(name)
    elif how == "frozen":
        process.send_signal(signal.SIGCONT)
    else:
        crew.let_in(name)


@pytest.mark.parametrize(
    "lasts_s", [15, pytest.param(180, marks=[pytest.mark.slow, pytest.mark.timeout(400)])]
)
def test_the_runs_made_are_the_runs_due_whoever_leads(settings, client, crew, short_path, lasts_s):
    begin = now(client).replace(microsecond=0) + timedelta(seconds=6)
    end = begin + timedelta(seconds=lasts_s)
    times = {"every_s": 1, "start": begin.isoformat(), "end": end.isoformat()}
    entry = times | {"misfire": "all", "task": "drain"}
    names = [f"e{n}" for n in range(ENTRIES)]
    crew._settings = replace(settings, schedule=[{"name": name} | entry for name in names])
    for name in ("one", "two", "three"):
        crew.start(name)
    wait_for(lambda: leader(client))
    wait_for(lambda: now(client) > begin)
    dice = random.Random()
    while now(client) < end:
        strike(crew, client, dice)
    wait_for(lambda: not client.zcount(keys.SCHEDULE, "-inf", "(inf"), 60, "the last to be fired")
    wait_for(lambda: not client.exists(keys.RUNS), 120, "the last to be made")
    with open_current(settings) as database:
        found = Journal(database).runs(None, 10**6)
    expected = {(name, begin + timedelta(seconds=n)) for name in names for n in range(lasts_s + 1)}
    assert Counter((run.name, run.due_at) for run in found) == Counter(expected)
    assert {run.outcome for run in found} == {"fired"}
    ended = {name for name, process in crew.running.items() if process.poll() is not None}
    assert not ended, [(short_path / f"{name}.log").read_text()[-4_000:] for name in ended]


def make_and_die_before(settings, calls: int) -> None:
    """Be killed before that many commands and statements; end with 0 if there are not so many."""
    done = count(1)

    def counted(function):
        def call(*args, **kwargs):
            if next(done) == calls:
                os.kill(os.getpid(), signal.SIGKILL)
            return function(*args, **kwargs)

        return call

    AbstractConnection.send_packed_command = counted(AbstractConnection.send_packed_command)
    _Query.__call__ = counted(_Query.__call__)
    with connect(settings) as client:
        maker = Maker(settings, client)
        maker.round()
        maker.close()
    os._exit(0)


def test_a_run_that_is_cut_off_anywhere_is_made_once(settings, client):
    table = {"name": "a", "every_s": 3600, "scan": SCAN, "overlap": "run"}
    entry = read_entries(replace(settings, schedule=[table]))["a"]
    queue = ScanQueue("default", connection=client)
    begin = now(client).replace(microsecond=0)
    with open_current(settings) as database:
        for calls in count(1):
            due = begin + timedelta(seconds=calls)
            run = msgspec.json.encode(Run(entry=entry, due=due, at=due))
            client.zadd(keys.RUNS, {run: due.timestamp()})
            if not (pid := os.fork()):
                make_and_die_before(settings, calls)
            code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
            assert code in {0, -signal.SIGKILL}
            maker = Maker(settings, client)
            maker.round()
            maker.close()
            scan_id = run_id("a", due)
            assert not client.exists(keys.RUNS)
            assert [job for job in queue.job_ids if job.startswith(scan_id)] == [f"{scan_id}-0-1"]
            (made,) = Journal(database).runs("a", 1)
            assert (made.due_at, made.outcome, made.scan_id) == (due, "fired", scan_id)
            assert Repository(database).progress(scan_id).chunks.total == 1
            if code == 0:
                break
        assert len(Journal(database).runs("a", 10_000)) == calls
    assert calls > 15
