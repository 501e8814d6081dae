"""Three schedulers, one of which dies, freezes or is cut off every few seconds: each run once."""

import random
import signal
import subprocess
import sys
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import pytest
from msgspec.structs import replace

from rqscan.broker import keys
from rqscan.settings import RedisSettings
from rqscan.store.journal import Journal
from rqscan.store.migrate import open_current
from tests.servers import wait_for

ROOT = Path(__file__).parents[2]
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
        with (self._folder / f"{name}.log").open("ab") as log:
            self.running[name] = subprocess.Popen(argv, stderr=log, stdout=log, cwd=ROOT)

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
    "lasts_s", [25, pytest.param(180, marks=[pytest.mark.slow, pytest.mark.timeout(400)])]
)
def test_the_runs_made_are_the_runs_due_whoever_leads(settings, client, crew, lasts_s):
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
    dice = random.Random(6)
    while now(client) < end:
        strike(crew, client, dice)
    wait_for(lambda: not client.zcount(keys.SCHEDULE, "-inf", "(inf"), 60, "the last to be fired")
    wait_for(lambda: not client.exists(keys.RUNS), 120, "the last to be made")
    with open_current(settings) as database:
        found = Journal(database).runs(None, 10**6)
    expected = {(name, begin + timedelta(seconds=n)) for name in names for n in range(lasts_s + 1)}
    assert Counter((run.name, run.due_at) for run in found) == Counter(expected)
    assert {run.outcome for run in found} == {"fired"}
    assert all(process.poll() is None for process in crew.running.values())
