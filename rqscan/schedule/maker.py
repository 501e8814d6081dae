"""The maker: makes the runs that fell due into scans, in a child process of the leader.

``python -m rqscan.schedule.maker PARENT`` takes (settings, the leader's claim) as msgpack on stdin
and prints a JSON line for each run. A run stays on the list in Redis until its scan is enqueued and
its outcome is in the journal; killed anywhere in between, it is made again, which changes nothing:
its scan id follows from entry and due time.
"""

import signal
import sys
import time
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

import msgspec
import redis
from msgspec import json, msgpack
from msgspec.structs import asdict

from rqscan import clock
from rqscan.broker import keys
from rqscan.broker.connect import connect
from rqscan.errors import FailedError, RefusedError, RqscanError, ServiceUnavailable, UsageError
from rqscan.installed import plugins
from rqscan.model import RunRecord
from rqscan.process import die_with
from rqscan.scan.kinds import load_kinds
from rqscan.scan.plan import make_plan
from rqscan.scan.submit import submit_to
from rqscan.schedule.calendar import run_id
from rqscan.schedule.gates import Gates, Waits
from rqscan.schedule.misfire import Run
from rqscan.schedule.tasks import send
from rqscan.settings import Settings
from rqscan.store.database import Database
from rqscan.store.dialect import Limits
from rqscan.store.journal import Journal
from rqscan.store.migrate import open_current

__all__ = ["Made", "Maker"]

PAGE = 100

LOOK_S = 1.0
"""Pause between two looks at runs that wait, or at an empty list."""

LIMITS = Limits(connect=5, answer=15)
"""Of the database: what waits for it is told as waiting."""

WORK_S = 300.0
"""Then a fresh process goes on: what a library leaks is gone with it."""


class Made(NamedTuple):
    """What came of a run."""

    outcome: str  # fired, skipped, missed, waiting, refused, failed
    reason: str = ""
    scan_id: str | None = None


class Maker:
    """Makes the runs on the list, the oldest first."""

    def __init__(self, settings: Settings, client: Any) -> None:
        self._settings, self._client = settings, client
        self._database: Database | None = None
        self._gates = Gates(settings, client)
        self._waits: set[bytes] = set()  # runs of which it was told that they wait

    def round(self) -> list[tuple[Run, Made]]:
        """Look at each run on the list once; gives those of which there is something to tell.

        Raises:
            redis.RedisError: Redis is away; what was not made stays on the list.
        """
        told: list[tuple[Run, Made]] = []
        self._gates.begin()
        start, waits = 0, set()
        while page := self._client.zrange(keys.RUNS, start, start + PAGE - 1, withscores=True):
            for raw, fired_s in page:
                run, made = self._make(raw, datetime.fromtimestamp(fired_s, UTC))
                is_told = made.outcome == "waiting" and raw in self._waits
                if run and not is_told:
                    told.append((run, made))
                if made.outcome == "waiting":
                    start += 1
                    waits.add(raw)
                    if self._database is None:  # the store is away: the others wait as well
                        self._waits |= waits
                        return told
        self._waits = waits
        return told

    def close(self) -> None:
        """Close what is open."""
        if self._database is not None:
            self._database.close()
            self._database = None

    def _make(self, raw: bytes, fired_at: datetime) -> tuple[Run | None, Made]:
        try:
            run = json.decode(raw, type=Run)
        except msgspec.MsgspecError:  # nothing that we wrote
            self._client.zrem(keys.RUNS, raw)
            return None, Made("failed", "it cannot be read")
        try:
            if self._database is None:
                self._database = open_current(self._settings, LIMITS)
            made = self._outcome(run, self._database)
            if made.outcome != "waiting":
                Journal(self._database).add_run(_record(run, made, fired_at))
        except ServiceUnavailable as e:
            self.close()
            made = Made("waiting", str(e))
        self._note(raw, run, made, fired_at)
        return run, made

    def _outcome(self, run: Run, database: Database) -> Made:
        if run.missed:
            return Made("missed", run.missed)
        try:
            return self._try(run, database)
        except (redis.RedisError, ServiceUnavailable):
            raise
        except (UsageError, RefusedError) as e:
            return Made("refused", str(e))
        except FailedError as e:
            return Made("failed", str(e))
        except Exception as e:  # noqa: BLE001 - one entry's fault must not stop the others
            return Made("failed", f"{type(e).__name__}: {e}")

    def _try(self, run: Run, database: Database) -> Made:
        entry, scan_id = run.entry, run_id(run.entry.name, run.due)
        if shut := self._gates.look(run, scan_id, database):
            return Made("waiting" if isinstance(shut, Waits) else "skipped", str(shut))
        if not entry.scan:
            return Made("fired", send(self._settings, self._client, entry))
        plan = make_plan(
            settings=self._settings, queue=entry.queue, name=entry.name, scan_id=scan_id,
            schedule=entry.name, due_at=run.due, **asdict(entry.scan),
        )  # fmt: skip
        submit_to(database, plan, settings=self._settings, client=self._client)
        return Made("fired", scan_id=scan_id)

    def _note(self, raw: bytes, run: Run, made: Made, fired_at: datetime) -> None:
        """Let the monitor see what came of a run; off the list it goes last."""
        record = _record(run, made, fired_at)
        fields = {
            "outcome": made.outcome,
            "reason": made.reason,
            "last_at": clock.iso(record.due_at),
            "fired_at": clock.iso(fired_at),
            "lateness_s": str(record.lateness_s),
        }
        if made.scan_id:
            fields["scan_id"] = made.scan_id
        with self._client.pipeline() as pipe:
            # Of an entry with a run that waits that is to be seen, not a run that came after.
            if made.outcome == "waiting" or run.entry.name not in self._gates.waiting:
                pipe.hset(keys.schedule_entry(run.entry.name), mapping=fields)
            if made.outcome != "waiting":
                pipe.zrem(keys.RUNS, raw)
            pipe.execute()


def _record(run: Run, made: Made, fired_at: datetime) -> RunRecord:
    return RunRecord(
        name=run.entry.name,
        due_at=run.due,
        fired_at=fired_at,
        lateness_s=round((fired_at - run.at) / timedelta(seconds=1), 6),
        outcome=made.outcome,
        reason=made.reason,
        scan_id=made.scan_id,
    )


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def main(parent_pid: int) -> int:
    """Make runs for a while, as long as our parent leads; gives the exit code."""
    die_with(parent_pid, signal.SIGKILL)
    settings, claim = msgpack.decode(sys.stdin.buffer.read(), type=tuple[Settings, bytes])
    until = time.monotonic() + WORK_S
    try:
        load_kinds(settings.jobs.path, plugins())
        with connect(settings) as client:
            maker = Maker(settings, client)
            while time.monotonic() < until and client.get(keys.LEADER) == claim:
                for run, made in maker.round():
                    told = {"entry": run.entry.name, "scan": run_id(run.entry.name, run.due)}
                    _say(json.encode(made._asdict() | told).decode())
                client.blpop([keys.RUNS_BELL], timeout=LOOK_S)
            maker.close()
    except (redis.RedisError, RqscanError) as e:
        _say(str(e))
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1])))
