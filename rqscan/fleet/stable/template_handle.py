"""The template process as its worker sees it: started by exec, heard on a socket, seen to end."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterable

import msgspec

from rqscan.fleet.stable.handle import NEWS_S
from rqscan.installed import plugins
from rqscan.process import kill_group
from rqscan.settings import Settings

__all__ = ["STOP_S", "TemplateHandle"]

START_S = 120.0
"""Longest start: many may start at once, and nothing is claimed for its horses before."""

TITLE = " " * 100
"""Room on the command line for the names of jobs: see `rqscan.process.retitle`."""

STOP_S = 3.0
"""Longest wait for its end: it may wait itself for what it has killed."""


class TemplateHandle:
    """One template process, started with nothing of this process in it.

    Args:
        stacks_fd: the file that horses write their stacks to.
        role: "light" or "full".

    Raises:
        OSError: no process, descriptor or memory could be had.
    """

    def __init__(self, settings: Settings, stacks_fd: int, role: str) -> None:
        self.control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.control.settimeout(0)
        try:
            self._process = _start(theirs, settings, stacks_fd, role)
        except OSError:
            self.control.close()
            raise
        finally:
            theirs.close()
        self.pid = self._process.pid
        self.is_up = False  # it has told something
        self.overdue_at = time.monotonic() + START_S  # when it is frozen, if it has news to tell

    def is_heard(self) -> None:
        """Note that it has told something."""
        self.is_up, self.overdue_at = True, time.monotonic() + NEWS_S

    def end(self, horses: Iterable[int], patience_s: float) -> None:
        """See it ended, with its end of the control closed; if that takes longer it is killed.

        Its horses, whose pids are given, die first: nobody else takes the pid of a child of its.
        """
        for limit_s in (patience_s, 1.0):  # not for ever even then: it may hang in the kernel
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(limit_s)
                return
            for pid in (*horses, self.pid):
                kill_group(pid, signal.SIGKILL)


def _start(
    theirs: socket.socket, settings: Settings, stacks_fd: int, role: str
) -> "subprocess.Popen[bytes]":
    control = theirs.fileno()
    with os.fdopen(os.memfd_create("settings"), "w+b") as memory:  # settings of any size
        memory.write(msgspec.msgpack.encode((settings, plugins())))
        memory.seek(0)
        return subprocess.Popen(
            [
                sys.executable,
                "-m",
                "rqscan.fleet.stable.template_start",
                str(control),
                str(stacks_fd),
                role,
                TITLE,
            ],
            pass_fds=[control, stacks_fd],
            stdin=memory,
            start_new_session=True,
        )
