"""The worker's stable: work-horses forked ahead of need, running one job each, and buried.

A horse's life, seen from here: ``spare → running → result in → spare again or gone``. A horse is
lost when its death is known and its socket, read to the end, holds no result: the news of its death
may overtake a result that is still in the socket.
"""

import contextlib
import selectors
import signal
import socket
import time
from collections import deque
from collections.abc import Callable
from functools import partial

from rqscan.fleet.stable import wire
from rqscan.fleet.stable.handle import NEVER, NEWS_S, Horse
from rqscan.fleet.stable.template_handle import STOP_S, TemplateHandle
from rqscan.fleet.stable.wire import NEWS, Assignment, Outcome, Report, Terms
from rqscan.process import kill_group
from rqscan.settings import Settings

__all__ = ["DISPLACED", "GIVEN_BACK", "Stable"]

LATE_S = 1.0
"""A check that comes so late was kept from working, and so may the template have been."""

AGAIN_S = 1.0
"""Pause before a template, or a fork, that failed is asked for again: it must not spin."""

AT_ONCE_BYTES = 65_536

GIVEN_BACK = "given back"
"""Reason to end a horse: its job goes back to its queue, and no loss is counted."""

DISPLACED = "displaced"
"""The template died with all its horses: a loss of each job that ran, for one of them may have
done it."""


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
        self._template: TemplateHandle | None = None
        self._not_before = 0.0  # monotonic: when to ask the template, or for one, again

    @property
    def pids(self) -> list[int]:
        """The template's and the horses'; none before the template was first wanted."""
        return [self._template.pid, *self._by_pid] if self._template else []

    @property
    def free(self) -> int:
        """How many jobs could start at once now."""
        if not self._template or not self._template.is_up:
            return 0
        # A spare that is asked for counts: `check` sees to it that its job does not wait for ever.
        return min(self._size - len(self.running), len(self._spares))

    @property
    def deadline(self) -> float:
        """Monotonic time at which `check` has something to do."""
        return min((horse.news_due for horse in self._horses), default=NEVER)

    @property
    def _horses(self) -> list[Horse]:
        return [*self._by_pid.values(), *self._unnamed]

    def _start(self) -> TemplateHandle:
        template = TemplateHandle(self._settings, self._stacks_fd, self._role)
        self._selector.register(
            template.control, selectors.EVENT_READ, lambda _: self._on_news(template)
        )
        return template

    def ask(self) -> bool:
        """Ask for one more spare if one is wanted; True if more are wanted still.

        One a turn: the fork of a horse must not delay the answers of running ones.
        """
        wanted = min(self._size, self._size - len(self.running) + 1)
        if len(self._spares) >= wanted or time.monotonic() < self._not_before:
            return False
        try:
            if self._template is None:
                self._template = self._start()
            self._ask_for_one(self._template)
        except OSError:  # no descriptors, no processes, or no template, which its socket will tell
            self._not_before = time.monotonic() + AGAIN_S
            return False
        return len(self._spares) < wanted

    def _ask_for_one(self, template: TemplateHandle) -> None:
        ours, theirs = socket.socketpair()
        ours.settimeout(0)
        horse = Horse(ours)
        with theirs:
            try:
                self._selector.register(ours, selectors.EVENT_READ, partial(self._on_ready, horse))
                socket.send_fds(template.control, [b"+"], [theirs.fileno()])
            except OSError:
                self._close(horse)
                raise
        self._unnamed.append(horse)
        self._spares.append(horse)

    def run(self, assignment: Assignment) -> None:
        """Give a job to a spare horse."""
        horse = self._spares.popleft()
        horse.take(assignment)
        self.running[assignment.token] = horse
        horse.out += wire.frame(assignment)
        self._write(horse)

    def check(self) -> None:
        """End what the template has not told of in time: a horse, or the template itself."""
        now, deadline = time.monotonic(), self.deadline
        if now < deadline or self._template is None:
            return
        self._on_news(self._template)
        for horse in [h for h in self._horses if h.news_due <= now]:
            if now > deadline + LATE_S:
                horse.news_due = now + NEWS_S
            elif horse.pid and not horse.is_killed:  # it has closed its socket, but does it live?
                horse.news_due = NEVER
                horse.kill()
            elif horse.pid and not horse.is_closed:  # it hangs in the kernel, and runs no further
                del self._by_pid[horse.pid]
                self._gone(horse, signal.SIGKILL)
            elif now < self._template.overdue_at:
                horse.news_due = self._template.overdue_at
            else:
                self._template_gone(patience_s=0)  # it is frozen
                return

    def let_go(self) -> None:
        """Have the template end itself and every horse."""
        if self._template is not None:
            self._selector.unregister(self._template.control)
            self._template.control.close()

    def stop(self) -> None:
        """Wait until the template that was let go is gone."""
        if self._template is not None:
            self._template.end(self._by_pid, STOP_S)
        for horse in self._horses:
            self._close(horse)

    def _on_news(self, template: TemplateHandle) -> None:
        while template is self._template:
            try:
                news = template.control.recv(NEWS.size)
            except BlockingIOError:
                return
            except OSError:
                news = b""
            if not news:
                self._template_gone()
                return
            template.is_heard()
            pid, status, used_kb = NEWS.unpack(news)
            if not pid:  # no process could be had
                self._not_before = time.monotonic() + AGAIN_S
                self._gone(self._unnamed.popleft(), 0, GIVEN_BACK)
            elif status == -1:
                horse = self._unnamed.popleft()
                horse.is_born(pid)
                self._by_pid[pid] = horse
                if horse.kill_reason:
                    horse.kill()
            elif dead := self._by_pid.pop(pid, None):
                dead.used_bytes = 1024 * used_kb
                self._gone(dead, status)

    def _template_gone(self, patience_s: float = STOP_S) -> None:
        """See the template dead; its horses die with it."""
        assert self._template is not None
        self.let_go()
        self._template.end(self._by_pid, patience_s)
        self._template = None
        self._not_before = time.monotonic() + AGAIN_S
        horses = self._horses
        self._by_pid.clear()
        self._unnamed.clear()
        for horse in horses:
            kill_group(horse.pid, signal.SIGKILL)  # what its job had started
            self._gone(horse, signal.SIGKILL, DISPLACED if horse.pid else GIVEN_BACK)

    def _write(self, horse: Horse) -> None:
        """Write of its job what the horse's socket takes."""
        try:
            sent = horse.sock.send(horse.out)
        except BlockingIOError:
            sent = 0
        except OSError:  # dead, with part of it or without: it is of no use any more
            sent = len(horse.out)
            horse.kill(GIVEN_BACK)
        del horse.out[:sent]
        if bool(horse.out) != horse.is_full:
            horse.is_full = bool(horse.out)
            events = selectors.EVENT_READ | (selectors.EVENT_WRITE if horse.is_full else 0)
            self._selector.modify(horse.sock, events, partial(self._on_ready, horse))

    def _on_ready(self, horse: Horse, events: int) -> None:
        if horse.is_closed:  # in this very turn
            return
        if events & selectors.EVENT_WRITE:
            self._write(horse)
        try:
            data = horse.sock.recv(AT_ONCE_BYTES)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if data:
            self._take(horse, data)
        else:
            self._close(horse)
            horse.expect_news()

    def _gone(self, horse: Horse, status: int, reason: str | None = None) -> None:
        """Bury a horse that is known to be dead: all that it wrote is in the socket already."""
        horse.status = status
        horse.kill_reason = horse.kill_reason or reason
        with contextlib.suppress(OSError):
            while data := horse.sock.recv(AT_ONCE_BYTES):
                self._take(horse, data)
        self._close(horse)
        self._end(horse, None)

    def _close(self, horse: Horse) -> None:
        if not horse.is_closed:
            horse.is_closed = True
            with contextlib.suppress(KeyError):  # no memory to register it
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
        is_well = horse.status is None and not (horse.kill_reason or horse.is_killed)
        is_well = is_well and not horse.is_closed
        if is_well and outcome is not None and outcome.is_going_on:
            self._spares.appendleft(horse)  # the next to run: it is still in the CPU's caches
        self._on_end(horse, assignment, outcome)
