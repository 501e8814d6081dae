"""Stacks: what the Python code of a running work-horse is doing, asked for by a signal.

The template registers faulthandler for `DUMP_SIGNAL` once, and every horse inherits that: the
answer comes from C code inside the signal's handler, so a job that is deadlocked gives it too. All
horses append to one memory file of the worker's; one is asked at a time.
"""

import contextlib
import fcntl
import os
import signal
import time
from collections import deque
from collections.abc import Callable

__all__ = ["DUMP_SIGNAL", "Stacks"]

DUMP_SIGNAL = signal.SIGUSR1

STEP_S = 0.1
"""Between two looks at an answer: it is whole when it has not grown since."""

PATIENCE_S = 2.0
"""Longest wait for an answer: a process that is frozen gives none."""

MOST_BYTES = 65_536


class Stacks:
    """Asks work-horses for their stacks, one after the other, without waiting."""

    def __init__(self) -> None:
        self.fd = os.memfd_create("stacks")
        fcntl.fcntl(self.fd, fcntl.F_SETFL, os.O_APPEND)
        self._asked: deque[tuple[int, Callable[[str], None]]] = deque()
        self._size = 0
        self._give_up_at = 0.0
        self.deadline = float("inf")  # monotonic: when `turn` has something to do

    def ask(self, pid: int, then: Callable[[str], None]) -> None:
        """Have `then` called with the stacks of a process, empty if it gave no answer."""
        self._asked.append((pid, then))
        if len(self._asked) == 1:
            self._begin()

    def turn(self) -> None:
        """Take an answer that is whole, and ask the next process."""
        now = time.monotonic()
        if now < self.deadline:
            return
        size, before = os.fstat(self.fd).st_size, self._size
        if now < self._give_up_at and (size == 0 or size > before):
            self._size, self.deadline = size, now + STEP_S
            return
        text = os.pread(self.fd, MOST_BYTES, 0).decode(errors="replace")
        _, then = self._asked.popleft()
        self._begin()
        then(text)

    def _begin(self) -> None:
        if not self._asked:
            self.deadline = float("inf")
            return
        os.ftruncate(self.fd, 0)
        self._size, self._give_up_at = 0, time.monotonic() + PATIENCE_S
        self.deadline = time.monotonic() + STEP_S
        pid, _ = self._asked[0]
        # One that has ended, or has become another user, says nothing.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            if pid:  # 0, a horse whose pid is not told yet, would be all of our own group
                os.kill(pid, DUMP_SIGNAL)
