"""One work-horse as its worker sees it: its socket, its job, and when that must have ended."""

import os
import signal
import socket
import time

from rqscan.fleet.stable.wire import REPORT_S, Assignment, Frames, Terms
from rqscan.process import kill_group

__all__ = ["NEWS_S", "Horse"]

STOP_GRACE_S = 2.0
"""From SIGTERM to SIGKILL: for nmap to put away its files, and short beside any time-out."""

NEWS_S = 3.0
"""Longest time from what happens to a horse to the template's word of it."""

NEVER = float("inf")


class Horse:
    """One work-horse."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.out = bytearray()  # of its job, what its socket did not take yet
        self.is_full = False  # its socket takes no more now
        self.frames = Frames()
        self.pid = 0  # 0 until the template has told it
        self.status: int | None = None  # wait status once dead
        self.used_bytes = 0  # of memory at most, once dead
        self.is_closed = self.is_killed = False
        self.news_due = time.monotonic() + NEWS_S  # when the template must have told of it
        self.assignment: Assignment | None = None
        self.terms = Terms()
        self.began = self.moved_at = 0.0  # monotonic: of the job, and of its last progress
        self.progress: float | None = None
        self.kill_reason: str | None = None  # why we ended it: its job is then not lost
        self.kill_at = NEVER  # monotonic: SIGTERM was not enough
        self.is_examined = False  # its stacks were asked for, because it has stalled
        self.stacks = ""

    def is_born(self, pid: int) -> None:
        """Note its pid; a job that was given to it before begins only now."""
        self.pid, self.news_due = pid, NEVER
        self.began = self.moved_at = time.monotonic()

    def expect_news(self) -> None:
        """Note that the template has something to tell of it by now."""
        self.news_due = min(self.news_due, time.monotonic() + NEWS_S)

    def take(self, assignment: Assignment) -> None:
        """Begin a job."""
        self.assignment, self.terms, self.progress = assignment, Terms(), None
        self.began = self.moved_at = time.monotonic()
        self.kill_reason, self.kill_at, self.stacks = None, NEVER, ""
        self.is_examined = False

    def agree(self, terms: Terms) -> None:
        """Take what the running job's kind asks for."""
        assert self.assignment is not None
        self.terms, self.assignment = terms, terms.apply(self.assignment)

    def move(self, progress: float) -> None:
        """Note that the running job has made progress."""
        self.progress, self.moved_at = progress, time.monotonic()

    @property
    def hard_deadline(self) -> float:
        """Monotonic time at which its job must have ended."""
        limit_s = self.assignment.timeout_s if self.assignment else 0
        if limit_s <= 0:  # RQ: -1 is no limit
            return NEVER
        return self.began + limit_s + (self.assignment.grace_s if self.assignment else 0)

    @property
    def stall_deadline(self) -> float:
        """Monotonic time at which its job has made no progress for as long as it may."""
        stall_s = self.terms.stall_timeout_s
        return self.moved_at + stall_s + REPORT_S if stall_s else NEVER  # never early

    @property
    def deadline(self) -> float:
        """Monotonic time at which something must be done about it."""
        if self.kill_reason:
            return self.kill_at
        return min(self.hard_deadline, NEVER if self.is_examined else self.stall_deadline)

    def kill(self, reason: str | None = None) -> None:
        """End it and all that it started; its job ends with the first reason, without it is lost.

        One that is not born yet is killed when it is.
        """
        self.kill_reason = self.kill_reason or reason
        self.kill_at = NEVER
        if self.pid:
            self.is_killed = True
            self.expect_news()
            kill_group(self.pid, signal.SIGKILL)

    def end(self, reason: str) -> None:
        """End it as `kill` does, but let it and what it started put their things away."""
        self.kill_reason = self.kill_reason or reason
        self.kill_at = time.monotonic() + STOP_GRACE_S
        kill_group(self.pid, signal.SIGTERM)

    def describe_death(self) -> str:
        """Say in words how it died."""
        status = self.status or 0
        if os.WIFSIGNALED(status):
            number = os.WTERMSIG(status)
            names = {known.value: known.name for known in signal.Signals}
            how = f"was killed by {names.get(number, f'signal {number}')}"
        else:
            how = f"exited with {os.waitstatus_to_exitcode(status)}"
        used = f", having used {self.used_bytes / 1e6:.0f} MB at most" if self.used_bytes else ""
        return f"work-horse {self.pid} on {socket.gethostname()} {how}{used}"
