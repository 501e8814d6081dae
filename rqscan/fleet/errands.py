"""Errands: what a worker has done by a child process, because its loop must not wait.

Database, disk and slow Redis work (`rqscan.fleet.chores` and its like) runs in a child started by
exec, with the settings on its stdin; the loop hears when it has ended.
"""

import json
import os
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import msgspec

from rqscan.logs import Event, log
from rqscan.process import kill_group
from rqscan.settings import Settings

__all__ = ["Errands"]

LIMIT_S = 600.0
"""Longest errand: a comparison of millions of chunks takes minutes."""

MODULES = dict.fromkeys(["store", "ended", "prune", "upkeep"], "rqscan.fleet.chores") | {
    "compare": "rqscan.fleet.compare_chore",
    "look": "rqscan.fleet.compare_chore",
    "drain": "rqscan.fleet.drain_chore",
}
"""What does each verb, loading no more than it needs."""

Done = Callable[[dict[str, Any] | None], None]


class Errands:
    """The children of one worker; one of each verb at a time."""

    def __init__(self, settings: Settings, selector: selectors.BaseSelector) -> None:
        self._settings, self._selector = settings, selector
        self._children: dict[str, tuple[subprocess.Popen[bytes], float]] = {}
        self._failing: set[str] = set()  # verbs whose failure was told, until they succeed

    @property
    def deadline(self) -> float:
        """Monotonic time at which `check` has something to do."""
        return min((until for _, until in self._children.values()), default=float("inf"))

    def run(self, verb: str, argument: Any = None, *, then: Done = lambda _: None) -> None:
        """Start an errand, unless one of its verb runs; `then` gets its answer, None on failure."""
        if verb in self._children:
            return
        with os.fdopen(os.memfd_create("errand"), "w+b") as given:
            given.write(msgspec.msgpack.encode((self._settings, argument)))
            given.seek(0)
            try:
                child = subprocess.Popen(
                    [sys.executable, "-m", MODULES[verb], verb, str(os.getpid())],
                    stdin=given,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                )
            except OSError as e:  # the limit of processes, or no memory
                self._fail(verb, str(e))
                then(None)
                return
        assert child.stdout is not None
        self._children[verb] = child, time.monotonic() + LIMIT_S
        output = bytearray()

        def on_output(_events: int) -> None:
            assert child.stdout is not None
            if data := os.read(child.stdout.fileno(), 65_536):
                output.extend(data)
                return
            self._selector.unregister(child.stdout)
            child.stdout.close()
            del self._children[verb]
            then(self._answer(verb, child.wait(), bytes(output)))

        self._selector.register(child.stdout, selectors.EVENT_READ, on_output)

    def check(self) -> None:
        """End what takes too long."""
        now = time.monotonic()
        for child, until in self._children.values():
            if now >= until:
                kill_group(child.pid, signal.SIGKILL)

    def stop(self) -> None:
        """End all errands: whatever they do bears being done again."""
        for child, _ in self._children.values():
            assert child.stdout is not None
            self._selector.unregister(child.stdout)
            child.stdout.close()
            kill_group(child.pid, signal.SIGKILL)
            child.wait()
        self._children.clear()

    def _answer(self, verb: str, code: int, output: bytes) -> dict[str, Any] | None:
        if code == 0:
            self._failing.discard(verb)
            answer: dict[str, Any] = json.loads(output or b"{}")
            return answer
        lines = output.decode(errors="replace").strip().splitlines() or [f"ended with {code}"]
        self._fail(verb, lines[-1])
        return None

    def _fail(self, verb: str, reason: str) -> None:
        if verb not in self._failing:
            self._failing.add(verb)
            log(Event.ERRAND_FAILED, errand=verb, reason=reason)
