"""Entries of four zones while the clocks change there: by Redis' clock, whatever the host's says.

Redis lives some seconds before the change, the scheduler's host in another zone, an hour off.
"""

import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import pytest
from msgspec.structs import replace

from rqscan.settings import RedisSettings
from rqscan.store.journal import Journal
from rqscan.store.migrate import open_current
from tests.servers import RedisServer, faked_clock, redis_binaries, wait_for

ROOT = Path(__file__).parents[2]
CHILD = """
import sys, msgspec
from rqscan.broker.connect import connect
from rqscan.settings import Settings
from rqscan.schedule.scheduler import ScanScheduler
settings = msgspec.json.decode(sys.argv[1], type=Settings)
ScanScheduler(connection=connect(settings), settings=settings, name="one").run()
"""
CASES = [  # zone, moment of the change in UTC, expressions due then, and those that are not
    # 02:00 becomes 03:00: what was skipped is due at the first valid moment
    ("Europe/Berlin", "2026-03-29T01:00:00", ["30 2 * * *", "0 3 * * *", "0 * * * *"],
     ["30 3 * * *", "0 1 * * *", "30 * * * *"]),
    # 03:00 becomes 02:00: the repeated hour has its runs the first time only
    ("Europe/Berlin", "2026-10-25T01:00:00", ["0 * * * *", "*/20 * * * *"],
     ["0 2 * * *", "0 3 * * *", "30 2 * * *"]),
    ("America/New_York", "2026-03-08T07:00:00", ["15 2 * * *", "0 3 * * *", "0 * * * *"],
     ["15 3 * * *", "0 1 * * *"]),
    ("America/New_York", "2026-11-01T06:00:00", ["0 * * * *"], ["0 1 * * *", "0 2 * * *"]),
    # by half an hour: 02:00 becomes 02:30, and 02:00 becomes 01:30
    ("Australia/Lord_Howe", "2026-10-03T15:30:00", ["15 2 * * *", "30 2 * * *", "30 * * * *"],
     ["0 3 * * *", "45 2 * * *"]),
    ("Australia/Lord_Howe", "2026-04-04T15:00:00", ["30 * * * *"], ["30 1 * * *", "0 2 * * *"]),
    ("Asia/Shanghai", "2026-03-28T18:00:00", ["0 2 * * *", "0 * * * *"], ["0 3 * * *"]),
]  # fmt: skip


QUICK = (0, 5)  # the others are as good, and take their time


@pytest.mark.parametrize(
    "case",
    [
        pytest.param(case, marks=[] if n in QUICK else pytest.mark.slow)
        for n, case in enumerate(CASES)
    ],
)
def test_the_clocks_change(settings, short_path, case):
    zone, moment, due, others = case
    change = datetime.fromisoformat(moment).replace(tzinfo=UTC)
    folder = short_path / "elsewhen"
    folder.mkdir()
    server = RedisServer(
        folder, redis_binaries()["valkey"]
    )  # Redis does not start under a faked clock
    begin = change - timedelta(seconds=12)
    server.env = faked_clock(f"@{begin:%Y-%m-%d %H:%M:%S}") | {"TZ": "UTC"}
    server.start()
    entry = {"zone": zone, "task": "drain"}
    tables = [{"name": f"e{n}", "cron": cron} | entry for n, cron in enumerate([*due, *others])]
    settings = replace(settings, redis=RedisSettings(url=server.url), schedule=tables)
    argv = [sys.executable, "-W", "error", "-c", CHILD, msgspec.json.encode(settings)]
    host = faked_clock("+1h") | {"TZ": "America/Los_Angeles", "PATH": "/usr/bin:/bin"}
    process = subprocess.Popen(argv, cwd=ROOT, env=host)
    try:
        with server.client() as client:
            until = change.timestamp() + 3
            wait_for(lambda: client.time()[0] > until)
        with open_current(settings) as database:
            found = Journal(database).runs(None, 100)
        assert {(run.name, run.due_at) for run in found} == {
            (f"e{n}", change) for n in range(len(due))
        }
        assert all(0 <= run.lateness_s < 3 for run in found)
    finally:
        process.kill()
        process.wait()
        server.close()
