"""The worker's stable: work-horses forked ahead of need, running one job each, and buried.

A horse's life, seen from here: ``spare → running → result in → spare again or gone``. A horse is
lost when both its socket has closed and its death is known with no result: the news of its death
may overtake a result that is still in the socket.
"""

import os
import selectors
import signal
import socket
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable

import msgspec

from rqscan.config import Settings
from rqscan.fleet import wire
from rqscan.fleet.template import NEWS, kill_group
from rqscan.fleet.wire import Assignment, Frames, Outcome, Report

__all__ = ["Horse", "Stable"]

SEND_S = 1.0
"""Longest wait for a horse to take its job; a payload that fits the socket takes none."""

RESTART_S = 1.0
"""Shortest time between two starts of the template: one that can't live must not spin."""


class Horse:
    """One work-horse."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.frames = Frames()
        self.pid = 0  # 0 until the template has told it
        self.status: int | None = None  # wait status once dead
        self.is_closed = False
        self.assignment: Assignment | None = None
        self.began = 0.0
        self.jobs = 0
        self.progress: float | None = None
        self.kill_reason: str | None = None  # why we ended it: its job is then not lost

    @property
    def deadline(self) -> float:
        """Monotonic time at which its job is past the hard limit."""
        limit_s = self.assignment.timeout_s if self.assignment else 0
        return self.began + limit_s if limit_s > 0 else float("inf")  # RQ: -1 is no limit

    def describe_death(self) -> str:
        """Say in words how it died."""
        status = self.status or 0
        if os.WIFSIGNALED(status):
            return f"work-horse {self.pid} was killed by {signal.Signals(os.WTERMSIG(status)).name}"
        return f"work-horse {self.pid} exited with {os.waitstatus_to_exitcode(status)}"


class Stable:
    """All horses of one worker, and the template process that they are forked from.

    Args:
        on_end: called with the horse, its assignment and the outcome; no outcome means that the
            horse died without one.
    """

    def __init__(
        self,
        settings: Settings,
        size: int,
        selector: selectors.BaseSelector,
        on_end: Callable[[Horse, Assignment, Outcome | None], None],
    ) -> None:
        self._settings, self._size, self._selector, self._on_end = settings, size, selector, on_end
        self._max_jobs = settings.worker.max_jobs_per_horse
        self._spares: deque[Horse] = deque()
        self._unnamed: deque[Horse] = deque()  # asked for, pid not told yet
        self._by_pid: dict[int, Horse] = {}
        self.running: dict[str, Horse] = {}  # by token
        self._control: socket.socket | None = None
        self._start_at = 0.0

    @property
    def pids(self) -> list[int]:
        """The template's and the horses'."""
        return [self._template.pid, *self._by_pid]

    @property
    def free(self) -> int:
        """How many jobs could start at once now."""
        return min(self._size - len(self.running), len(self._spares))

    def start(self) -> None:
        """Start the template process, by exec: nothing of this process goes into it."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._template = subprocess.Popen(
                [sys.executable, "-m", "rqscan.fleet.template", str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )
        ours.send(msgspec.msgpack.encode(self._settings))
        ours.settimeout(0)
        self._control = ours
        self._start_at = time.monotonic() + RESTART_S
        self._selector.register(ours, selectors.EVENT_READ, lambda _: self._on_news())

    def ask(self) -> bool:
        """Ask for one more spare if one is wanted; True if more are wanted still.

        One a turn: the fork of a horse must not delay the answers of running ones.
        """
        wanted = min(self._size, self._size - len(self.running) + 1)
        if len(self._spares) >= wanted:
            return False
        if self._control is None:
            if time.monotonic() < self._start_at:
                return False
            self.start()
        assert self._control is not None
        ours, theirs = socket.socketpair()
        with theirs:
            try:
                socket.send_fds(self._control, [b"+"], [theirs.fileno()])
            except BlockingIOError:
                ours.close()
                return False
            except OSError:
                ours.close()
                self._template_gone()
                return False
        ours.settimeout(0)
        horse = Horse(ours)
        self._unnamed.append(horse)
        self._spares.append(horse)
        self._selector.register(ours, selectors.EVENT_READ, lambda _: self._on_frames(horse))
        return len(self._spares) < wanted

    def run(self, assignment: Assignment) -> None:
        """Give a job to a spare horse."""
        horse = self._spares.popleft()
        horse.assignment, horse.began, horse.progress = assignment, time.monotonic(), None
        horse.kill_reason = None
        self.running[assignment.token] = horse
        horse.sock.settimeout(SEND_S)  # an idle horse reads at once
        try:
            wire.send(horse.sock, assignment)
        except OSError:  # dead, or frozen with half a message: it is of no use any more
            kill_group(horse.pid, signal.SIGKILL)
        horse.sock.settimeout(0)

    def kill(self, horse: Horse, reason: str) -> None:
        """End a horse and all that it started; its job ends with `reason`, it is not lost."""
        horse.kill_reason = horse.kill_reason or reason
        kill_group(horse.pid, signal.SIGKILL)

    def stop(self) -> None:
        """End the template and every horse, and wait until the template is gone."""
        if self._control is not None:
            self._selector.unregister(self._control)
            self._control.close()
            self._control = None
            self._template.wait()

    def _on_news(self) -> None:
        assert self._control is not None
        while True:
            try:
                news = self._control.recv(NEWS.size)
            except BlockingIOError:
                return
            except OSError:
                news = b""
            if not news:
                self._template_gone()
                return
            pid, status = NEWS.unpack(news)
            if status == -1:
                horse = self._unnamed.popleft()
                horse.pid = pid
                self._by_pid[pid] = horse
                if horse.kill_reason:
                    kill_group(pid, signal.SIGKILL)
            elif dead := self._by_pid.pop(pid, None):
                dead.status = status
                self._bury(dead)

    def _template_gone(self) -> None:
        """Start anew after the template's death; its horses died with it."""
        assert self._control is not None
        self._selector.unregister(self._control)
        self._control.close()
        self._template.wait()
        horses = [*self._by_pid.values(), *self._unnamed]
        self._by_pid.clear()
        self._unnamed.clear()
        for horse in horses:
            horse.status = signal.SIGKILL
            self._bury(horse)
        self._control = None

    def _on_frames(self, horse: Horse) -> None:
        try:
            data = horse.sock.recv(262_144)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._selector.unregister(horse.sock)
            horse.sock.close()
            horse.is_closed = True
            if horse in self._spares:
                self._spares.remove(horse)
            self._bury(horse)
            return
        for message in horse.frames.feed(data):
            if isinstance(message, Report):
                horse.progress = message.progress
            else:
                self._end(horse, message)

    def _end(self, horse: Horse, outcome: Outcome | None) -> None:
        assignment, horse.assignment = horse.assignment, None
        if assignment is None:
            return
        del self.running[assignment.token]
        horse.jobs += 1
        is_reusable = outcome is not None and outcome.disposition == "finished"
        if is_reusable and (self._max_jobs == 0 or horse.jobs < self._max_jobs):
            self._spares.append(horse)
        self._on_end(horse, assignment, outcome)

    def _bury(self, horse: Horse) -> None:
        if horse.is_closed and horse.status is not None:
            self._end(horse, None)
