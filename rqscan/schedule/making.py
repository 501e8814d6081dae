"""Making: the child process that makes runs, as the scheduler that leads sees it."""

import os
import selectors
import signal
import subprocess
import sys
import time

from msgspec import DecodeError, json, msgpack

from rqscan.logs import Event, log
from rqscan.process import kill_group
from rqscan.settings import Settings

__all__ = ["Making"]

AGAIN_S = 1.0
"""Pause before a child that has failed is started again."""


class Making:
    """Has one child run while it is asked to, and logs what that tells."""

    def __init__(self, settings: Settings, selector: selectors.BaseSelector) -> None:
        self._settings, self._selector = settings, selector
        self._child: subprocess.Popen[bytes] | None = None
        self._lines = bytearray()
        self._start_at = 0.0  # monotonic

    def start(self, claim: bytes) -> None:
        """Have a child make runs as long as the claim holds; nothing if one does."""
        if self._child or time.monotonic() < self._start_at:
            return
        with os.fdopen(os.memfd_create("maker"), "w+b") as given:
            given.write(msgpack.encode((self._settings, claim)))
            given.seek(0)
            argv = [sys.executable, "-m", "rqscan.schedule.maker", str(os.getpid())]
            try:
                self._child = subprocess.Popen(
                    argv, stdin=given, stdout=subprocess.PIPE, start_new_session=True
                )
            except OSError as e:  # the limit of processes, or no memory
                self._start_at = time.monotonic() + AGAIN_S
                log(Event.ERRAND_FAILED, errand="make runs", reason=str(e))
                return
        assert self._child.stdout
        self._selector.register(self._child.stdout, selectors.EVENT_READ, self._on_output)

    def stop(self) -> None:
        """End the child: what it does bears being done again."""
        if self._child:
            kill_group(self._child.pid, signal.SIGKILL)
            self._bury(self._child)

    def _bury(self, child: subprocess.Popen[bytes]) -> int:
        assert child.stdout
        self._selector.unregister(child.stdout)
        child.stdout.close()
        self._child = None
        self._lines.clear()  # what it had begun to say
        return child.wait()

    def _on_output(self, _events: int) -> None:
        child = self._child
        assert child
        assert child.stdout
        if data := os.read(child.stdout.fileno(), 65_536):
            *lines, self._lines = (self._lines + data).split(b"\n")
            for line in lines:
                self._tell(bytes(line))
        elif self._bury(child):
            self._start_at = time.monotonic() + AGAIN_S

    def _tell(self, line: bytes) -> None:
        try:
            said = json.decode(line, type=dict[str, str | None])
            log(Event(f"run_{said['outcome']}"), entry=said["entry"], scan=said["scan"],
                reason=said["reason"])  # fmt: skip
        except (DecodeError, KeyError, ValueError):
            log(Event.ERRAND_FAILED, errand="make runs", reason=line.decode(errors="replace"))
