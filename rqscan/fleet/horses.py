"""The worker's stable: work-horses forked ahead of need, running one job each, and buried.

A horse's life, seen from here: ``spare → running → result in → spare again or gone``. A horse is
lost when its death is known and its socket, read to the end, holds no result: the news of its death
may overtake a result that is still in the socket.
"""

import contextlib
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
from rqscan.fleet.horse_handle import Horse
from rqscan.fleet.wire import NEWS, Assignment, Outcome, Report, Terms
from rqscan.process import kill_group

__all__ = ["GIVEN_BACK", "Stable"]

SEND_S = 1.0
"""Longest wait for a horse to take its job; a payload that fits the socket takes none."""

AGAIN_S = 1.0
"""Pause before a template, or a fork, that failed is asked for again: it must not spin."""

GIVEN_BACK = "given back"
"""Reason to end a horse: its job goes back to its queue, and no loss is counted."""


class Stable:
    """All horses of one worker, and the template process that they are forked from.

    Args:
        on_end: called with the horse, its assignment and the outcome; no outcome means that the
            horse died without one.
        stacks_fd: the file that horses write their stacks to.
        role: of the template, "light" or "full".
    """

    def __init__(
        self,
        settings: Settings,
        size: int,
        selector: selectors.BaseSelector,
        on_end: Callable[[Horse, Assignment, Outcome | None], None],
        stacks_fd: int,
        *,
        role: str = "light",
    ) -> None:
        self._role = role
        self._settings, self._size, self._selector, self._on_end = settings, size, selector, on_end
        self._stacks_fd = stacks_fd
        self._spares: deque[Horse] = deque()
        self._unnamed: deque[Horse] = deque()  # asked for, pid not told yet
        self._by_pid: dict[int, Horse] = {}
        self.running: dict[str, Horse] = {}  # by token
        self._control: socket.socket | None = None
        self._not_before = 0.0  # monotonic: when to ask the template, or for one, again

    @property
    def pids(self) -> list[int]:
        """The template's and the horses'; none before the template was first wanted."""
        return [self._template.pid, *self._by_pid] if self._control else []

    @property
    def free(self) -> int:
        """How many jobs could start at once now."""
        return min(self._size - len(self.running), len(self._spares))

    def start(self) -> None:
        """Start the template process, by exec: nothing of this process goes into it."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        memory = os.fdopen(os.memfd_create("settings"), "w+b")  # settings of any size
        with theirs, memory:
            memory.write(msgspec.msgpack.encode(self._settings))
            memory.seek(0)
            self._template = subprocess.Popen(
                [
                    sys.executable,
                    "-m",
                    "rqscan.fleet.template_start",
                    str(theirs.fileno()),
                    str(self._stacks_fd),
                    self._role,
                ],
                pass_fds=[theirs.fileno(), self._stacks_fd],
                stdin=memory,
                start_new_session=True,
            )
        ours.settimeout(0)
        self._control = ours
        self._selector.register(ours, selectors.EVENT_READ, lambda _: self._on_news())

    def ask(self) -> bool:
        """Ask for one more spare if one is wanted; True if more are wanted still.

        One a turn: the fork of a horse must not delay the answers of running ones.
        """
        wanted = min(self._size, self._size - len(self.running) + 1)
        if len(self._spares) >= wanted or time.monotonic() < self._not_before:
            return False
        try:
            if self._control is None:
                self.start()
            self._ask_for_one()
        except BlockingIOError:
            return False
        except OSError:  # no descriptors, no processes, or no template, which its socket will tell
            self._not_before = time.monotonic() + AGAIN_S
            return False
        return len(self._spares) < wanted

    def _ask_for_one(self) -> None:
        assert self._control is not None
        ours, theirs = socket.socketpair()
        with theirs:
            try:
                socket.send_fds(self._control, [b"+"], [theirs.fileno()])
            except OSError:
                ours.close()
                raise
        ours.settimeout(0)
        horse = Horse(ours)
        self._unnamed.append(horse)
        self._spares.append(horse)
        self._selector.register(ours, selectors.EVENT_READ, lambda _: self._on_frames(horse))

    def run(self, assignment: Assignment) -> None:
        """Give a job to a spare horse."""
        horse = self._spares.popleft()
        horse.take(assignment)
        self.running[assignment.token] = horse
        horse.sock.settimeout(SEND_S)  # an idle horse reads at once
        try:
            wire.send(horse.sock, assignment)
        except OSError:  # dead, or frozen with half a message: it is of no use any more
            horse.kill(GIVEN_BACK)
        horse.sock.settimeout(0)

    def stop(self) -> None:
        """End the template and every horse, and wait until the template is gone."""
        if self._control is not None:
            self._selector.unregister(self._control)
            self._control.close()
            self._control = None
            self._template.wait()
        for horse in [*self._by_pid.values(), *self._unnamed]:
            self._close(horse)

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
            pid, status, used_kb = NEWS.unpack(news)
            if not pid:  # no process could be had
                self._not_before = time.monotonic() + AGAIN_S
                self._gone(self._unnamed.popleft(), 0, GIVEN_BACK)
            elif status == -1:
                horse = self._unnamed.popleft()
                horse.is_born(pid)
                self._by_pid[pid] = horse
                if horse.kill_reason:
                    kill_group(pid, signal.SIGKILL)
            elif dead := self._by_pid.pop(pid, None):
                dead.used_bytes = 1024 * used_kb
                self._gone(dead, status)

    def _template_gone(self) -> None:
        """Note the template's death; its horses died with it, through no fault of their jobs."""
        assert self._control is not None
        self._selector.unregister(self._control)
        self._control.close()
        self._control = None
        self._not_before = time.monotonic() + AGAIN_S
        self._template.wait()
        horses = [*self._by_pid.values(), *self._unnamed]
        self._by_pid.clear()
        self._unnamed.clear()
        for horse in horses:
            kill_group(horse.pid, signal.SIGKILL)  # what its job had started
            self._gone(horse, signal.SIGKILL, GIVEN_BACK)

    def _on_frames(self, horse: Horse) -> None:
        try:
            data = horse.sock.recv(262_144)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if data:
            self._take(horse, data)
        else:
            self._close(horse)

    def _gone(self, horse: Horse, status: int, reason: str | None = None) -> None:
        """Bury a horse that is known to be dead: all that it wrote is in the socket already."""
        horse.status = status
        horse.kill_reason = horse.kill_reason or reason
        with contextlib.suppress(OSError):
            while data := horse.sock.recv(262_144):
                self._take(horse, data)
        self._close(horse)
        self._end(horse, None)

    def _close(self, horse: Horse) -> None:
        if not horse.is_closed:
            horse.is_closed = True
            self._selector.unregister(horse.sock)
            horse.sock.close()
        if horse in self._spares:
            self._spares.remove(horse)

    def _take(self, horse: Horse, data: bytes) -> None:
        for message in horse.frames.feed(data):
            if isinstance(message, Report):
                horse.move(message.progress)
            elif isinstance(message, Terms):
                horse.agree(message)
            else:
                self._end(horse, message)

    def _end(self, horse: Horse, outcome: Outcome | None) -> None:
        assignment, horse.assignment = horse.assignment, None
        if assignment is None:
            return
        del self.running[assignment.token]
        is_well = horse.status is None and not horse.kill_reason and not horse.is_closed
        if is_well and outcome is not None and outcome.is_going_on:
            self._spares.append(horse)
        self._on_end(horse, assignment, outcome)
