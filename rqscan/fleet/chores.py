"""Chores: what a worker's child does for it, because the loop must not wait.

``python -m rqscan.fleet.chores VERB PARENT`` takes (settings, argument) as msgpack on stdin and
prints one JSON line; a failure is one line of text and an exit code: the chore may be done again.

- store: tell the id of the store
- compare: bring Redis in line with the plan, of all scans that have not ended; if another store is
  the fleet's by now, that is a failure
- look: the same, of scans that were asked for longer ago than the argument (s) and never wholly
  enqueued, and of those that have ended in the store or in Redis only
- prune: delete the scans that ended longer ago than the argument (s)
- upkeep: bring up to date what the database's planner knows of the tables
- ended: record as failed the chunks that ended without a living horse; the argument lists scan id,
  chunk, generation, attempt, worker, error, seconds worked and time of the end of each
"""

import json
import signal
import sys
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any

import msgspec
from msgspec import structs

from rqscan.broker.connect import connect
from rqscan.errors import RqscanError
from rqscan.model import ChunkRecord
from rqscan.process import die_with
from rqscan.scan import compare
from rqscan.settings import Settings
from rqscan.states import ChunkState
from rqscan.store.migrate import open_current
from rqscan.store.outbox import Kept, Outbox
from rqscan.store.prune import Pruner
from rqscan.store.repository import Repository
from rqscan.store.spool import Spool

__all__ = ["main"]

Ended = tuple[str, int, int, int, str, str, float, datetime]


def main(verb: str, parent_pid: int) -> int:
    """Do one chore; gives the exit code."""
    die_with(parent_pid, signal.SIGKILL)
    settings, argument = msgspec.msgpack.decode(sys.stdin.buffer.read(), type=tuple[Settings, Any])
    try:
        answer = VERBS[verb](settings, argument)
    except RqscanError as e:
        sys.stdout.write(f"{e}\n")
        return e.exit_code
    sys.stdout.write(json.dumps(answer))
    return 0


def _store(settings: Settings, _: Any) -> dict[str, Any]:
    with open_current(settings) as database:
        return {"store_id": Repository(database).store_id()}


def _compare(settings: Settings, asked_s: Any = None) -> dict[str, Any]:
    with connect(settings) as client:
        done = compare.compare(settings, client, unenqueued_for_s=asked_s, by_force=False)
    return {"scans": done.scans, "enqueued": done.enqueued}


def _prune(settings: Settings, age_s: Any) -> dict[str, Any]:
    with open_current(settings) as database:
        pruner = Pruner(database, timedelta(seconds=age_s), Spool(settings).scans())
        pruner.prune()
    return structs.asdict(pruner.pruned)


def _upkeep(settings: Settings, _: Any) -> dict[str, Any]:
    with open_current(settings) as database, database.transaction() as connection:
        database.queries.upkeep(connection)
    return {}


def _ended(settings: Settings, argument: Any) -> dict[str, Any]:
    outbox, recorded = Outbox(settings), 0
    for ended in msgspec.convert(argument, list[Ended]):
        scan_id, chunk, generation, attempt, worker, error, worked_s, at = ended
        record = ChunkRecord(
            scan_id=scan_id, chunk=chunk, generation=generation, attempt=attempt, kind="",
            state=ChunkState.FAILED, worker=worker, error=error,
            started_at=at - timedelta(seconds=worked_s), finished_at=at,
        )  # fmt: skip
        recorded += outbox.record(record) is not Kept.REFUSED
    outbox.close()
    return {"recorded": recorded}


VERBS: dict[str, Callable[[Settings, Any], dict[str, Any]]] = {
    "store": _store,
    "compare": _compare,
    "look": _compare,
    "ended": _ended,
    "prune": _prune,
    "upkeep": _upkeep,
}

if __name__ == "__main__":
    sys.exit(main(sys.argv[1], int(sys.argv[2])))
