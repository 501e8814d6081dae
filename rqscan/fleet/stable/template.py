"""The template process: small, loaded once, forked into a work-horse for every job.

It is started by exec (`fleet.stable.template_start`, with two descriptors, and the settings on
stdin) and holds no thread and no connection. A fork costs what the process weighs,
so there are two roles: ``light`` never imports RQ or Redis; ``full`` has them loaded, and starts
when the first plain function comes. Over its control socket comes one socket per horse wanted; back
go (pid, -1) for each fork, (0, 0) for one that failed, and (pid, wait status) for each death. When
the worker's end closes, every horse and all that it started is killed.
"""

import contextlib
import faulthandler
import gc
import importlib
import os
import select
import signal
import socket
import sys
import time
from collections.abc import Callable
from typing import NoReturn

import msgspec

from rqscan.fleet.stable import horse
from rqscan.fleet.stable.handle import STOP_GRACE_S
from rqscan.fleet.stable.stacks import DUMP_SIGNAL
from rqscan.fleet.stable.wire import NEWS
from rqscan.process import adopt_orphans, children, forget_handler, kill_group, retitle
from rqscan.settings import Settings

__all__ = ["main"]

END_S = 2
"""Longest wait for killed processes to be gone: one may hang in the kernel."""


def main(control_fd: int, stacks_fd: int, role: str, after_fork: Callable[[], None]) -> None:
    """Serve a worker until it goes away; each horse calls `after_fork` first."""
    os.set_inheritable(stacks_fd, False)  # noqa: FBT003 - its one argument
    faulthandler.register(DUMP_SIGNAL, file=stacks_fd, all_threads=True)  # for the horses
    adopt_orphans()
    control = socket.socket(fileno=control_fd)
    settings, plugins = msgspec.msgpack.decode(
        sys.stdin.buffer.read(), type=tuple[Settings, list[str]]
    )
    with open(os.devnull, "rb") as nothing:  # noqa: PTH123 - settings hold secrets: no job reads them
        os.dup2(nothing.fileno(), 0)
    runner, plain = horse.prepare(settings, plugins), None
    if role == "full":
        plain = importlib.import_module("rqscan.fleet.stable.horse_rq").PlainRunner(settings)

    def fork() -> int:
        runner.foresee()
        return os.fork()

    def main_of_horse(sock: socket.socket, template_pid: int) -> None:
        after_fork()
        horse.main(sock, template_pid, settings, runner, plain)

    retitle(f"rqscan template {role}")
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the terminal's ^C is the worker's to handle
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # asks a horse to end, whoever started us
    woken, wake = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    # Children share these pages until someone writes to them: keep the collector away.
    gc.collect()
    gc.freeze()
    gc.disable()
    horses: set[int] = set()
    # A worker killed with unread news gives an error instead of the end of the stream.
    with contextlib.suppress(OSError):
        _serve(control, woken, horses, fork, main_of_horse)
    _end_all(horses)
    os._exit(0)


def _serve(
    control: socket.socket,
    woken: int,
    horses: set[int],
    fork: Callable[[], int],
    main_of_horse: Callable[..., None],
) -> None:
    orphans = _Orphans(horses)
    poll = select.poll()
    poll.register(control, select.POLLIN)
    poll.register(woken, select.POLLIN)
    while True:
        for fd, _ in poll.poll(orphans.wait_ms()):
            if fd == woken:
                with contextlib.suppress(BlockingIOError):
                    os.read(woken, 4096)
                _bury(control, horses, orphans)
                continue
            wish, fds, *_ = socket.recv_fds(control, 16, 1, socket.MSG_CMSG_CLOEXEC)
            if not wish:
                return
            me = os.getpid()
            try:
                pid = fork()
            except OSError:  # the limit of processes, or no memory: running horses go on
                os.close(fds[0])
                control.send(NEWS.pack(0, 0, 0))
                continue
            if not pid:
                _become_horse(fds[0], [control.fileno(), woken], me, main_of_horse)
            with contextlib.suppress(OSError):
                os.setpgid(pid, pid)  # here and in the child: whoever is first
            os.close(fds[0])
            horses.add(pid)
            control.send(NEWS.pack(pid, -1, 0))
        orphans.end()


def _become_horse(
    fd: int, not_ours: list[int], template_pid: int, main_of_horse: Callable[..., None]
) -> NoReturn:
    try:
        signal.set_wakeup_fd(-1)
        forget_handler(signal.SIGCHLD)
        for other in not_ours:
            os.close(other)
        main_of_horse(socket.socket(fileno=fd), template_pid)
    finally:
        os._exit(1)


def _bury(control: socket.socket, horses: set[int], orphans: "_Orphans") -> None:
    with contextlib.suppress(ChildProcessError):
        while (found := os.wait4(-1, os.WNOHANG))[0]:
            pid, status, used = found
            if pid in horses:
                horses.discard(pid)
                orphans.are_left_by(pid, status)
                control.send(NEWS.pack(pid, status, used.ru_maxrss))
            else:
                orphans.are_due = True  # it may have left some of its own


class _Orphans:
    """What the jobs of dead horses had started: all our children that are no horses.

    A living horse adopts what its job leaves behind, so they belong to nobody. They die with their
    horse, and have the same grace as it where it was asked to stop.
    """

    def __init__(self, horses: set[int]) -> None:
        self._horses = horses
        self._asked: set[int] = set()
        self._kill_at = 0.0  # monotonic
        self.are_due = False

    def are_left_by(self, pid: int, status: int) -> None:
        """Note how a horse died; one that exits with 0 has said that it leaves nothing."""
        if os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGTERM:
            self._kill_at = time.monotonic() + STOP_GRACE_S
        elif status:
            kill_group(pid, signal.SIGKILL)
        self.are_due = self.are_due or status != 0

    def wait_ms(self) -> float | None:
        """Give how long to wait until some must be killed."""
        return max(0.0, self._kill_at - time.monotonic()) * 1000 if self._asked else None

    def end(self) -> None:
        """End those that are there; each that dies wakes us again."""
        is_late = time.monotonic() >= self._kill_at
        if not self.are_due and not (self._asked and is_late):
            return
        self.are_due = False
        left = {pid for pid in children() if pid not in self._horses}
        for pid in left if is_late else left - self._asked:
            _signal(pid, signal.SIGKILL if is_late else signal.SIGTERM)
        self._asked = set() if is_late else left


def _end_all(horses: set[int]) -> None:
    """Kill every horse and what it started, down to what only shows when its parent is dead."""
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.alarm(END_S)
    for pid in horses:
        kill_group(pid, signal.SIGKILL)
    with contextlib.suppress(ChildProcessError):
        while True:
            for pid in children():
                _signal(pid, signal.SIGKILL)
            os.waitpid(-1, 0)


def _signal(pid: int, signum: int) -> None:
    with contextlib.suppress(PermissionError):  # it has become another user
        os.kill(pid, signum)
