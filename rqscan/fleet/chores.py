"""Chores: what a worker's child does for it, because the loop must not wait.

``python -m rqscan.fleet.chores VERB PARENT`` takes (settings, argument) as msgpack on stdin and
prints one JSON line; a failure is one line of text and an exit code.
"""

import json
import signal
import sys
from collections.abc import Callable
from typing import Any

import msgspec

from rqscan.config import Settings
from rqscan.errors import RqscanError
from rqscan.process import die_with
from rqscan.store.migrate import open_current
from rqscan.store.repository import Repository

__all__ = ["main"]


def main(verb: str, parent_pid: int) -> int:
    """Do one chore; gives the exit code."""
    die_with(parent_pid, signal.SIGKILL)
    settings, _argument = msgspec.msgpack.decode(sys.stdin.buffer.read(), type=tuple[Settings, Any])
    try:
        answer = VERBS[verb](settings)
    except RqscanError as e:
        sys.stdout.write(f"{e}\n")
        return e.exit_code
    sys.stdout.write(json.dumps(answer))
    return 0


def _store(settings: Settings) -> dict[str, Any]:
    with open_current(settings) as database:
        return {"store_id": Repository(database).store_id()}


VERBS: dict[str, Callable[[Settings], dict[str, Any]]] = {
    "store": _store,
    "compare": lambda _: {},
    "look": lambda _: {},
}

if __name__ == "__main__":
    sys.exit(main(sys.argv[1], int(sys.argv[2])))
