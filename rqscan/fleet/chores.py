"""Chores: what a worker's child does for it, because the loop must not wait.

``python -m rqscan.fleet.chores VERB PARENT`` takes (settings, argument) as msgpack on stdin and
prints one JSON line; a failure is one line of text and an exit code: the chore may be done again.
These know the store only, and so load neither redis-py nor RQ; what needs both is in
`rqscan.fleet.compare_chore`.

- store: tell the id of the store
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

from rqscan.errors import RqscanError
from rqscan.model import ChunkRecord
from rqscan.process import die_with
from rqscan.settings import Settings
from rqscan.states import ChunkState
from rqscan.store.migrate import open_current
from rqscan.store.outbox import Kept, Outbox
from rqscan.store.prune import Pruner
from rqscan.store.repository import Repository
from rqscan.store.spool import Spool

__all__ = ["Verbs", "main"]

Verbs = dict[str, Callable[[Settings, Any], dict[str, Any]]]
"""What does each chore, given the settings and the argument; it gives what is printed."""

Ended = tuple[str, int, int, int, str, str, float, datetime]


def main(verbs: Verbs, verb: str, parent_pid: int) -> int:
    """Do one chore of those in `verbs`; gives the exit code."""
    die_with(parent_pid, signal.SIGKILL)
    settings, argument = msgspec.msgpack.decode(sys.stdin.buffer.read(), type=tuple[Settings, Any])
    try:
        answer = verbs[verb](settings, argument)
    except RqscanError as e:
        sys.stdout.write(f"{e}\n")
        return e.exit_code
    sys.stdout.write(json.dumps(answer))
    return 0


def _store(settings: Settings, _: Any) -> dict[str, Any]:
    with open_current(settings) as database:
        return {"store_id": Repository(database).store_id()}


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


if __name__ == "__main__":
    own: Verbs = {"store": _store, "ended": _ended, "prune": _prune, "upkeep": _upkeep}
    sys.exit(main(own, sys.argv[1], int(sys.argv[2])))
