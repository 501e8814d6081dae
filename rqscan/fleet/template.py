"""The template process: small, loaded once, forked into a work-horse for every job.

It is started by exec (``python -m rqscan.fleet.template FD``, the settings on stdin), holds no
thread and no connection, and never imports RQ or Redis: a fork costs what the process weighs. Over
its control socket comes one socket per horse wanted; back go (pid, -1) for each fork, (0, 0) for
one that failed, and (pid, wait status) for each death. When the worker's end closes, every horse's
group is killed.
"""

import contextlib
import gc
import os
import select
import signal
import socket
import struct
import sys
from typing import NoReturn

import msgspec
from setproctitle import setproctitle

from rqscan.config import Settings
from rqscan.fleet import horse
from rqscan.scan.execute import Runner

__all__ = ["NEWS", "main"]

NEWS = struct.Struct("ii")
"""What the template tells: pid (0: no fork), and wait status or -1 for a fork."""


def main(control_fd: int) -> None:
    """Serve a worker until it goes away."""
    control = socket.socket(fileno=control_fd)
    settings = msgspec.msgpack.decode(sys.stdin.buffer.read(), type=Settings)
    with open(os.devnull, "rb") as nothing:  # noqa: PTH123 - settings hold secrets: no job reads them
        os.dup2(nothing.fileno(), 0)
    runner = horse.prepare(settings)
    setproctitle("rqscan template")
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the terminal's ^C is the worker's to handle
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
        _serve(control, woken, settings, runner, horses)
    for pid in horses:
        kill_group(pid, signal.SIGKILL)
    os._exit(0)


def _serve(
    control: socket.socket, woken: int, settings: Settings, runner: Runner, horses: set[int]
) -> None:
    poll = select.poll()
    poll.register(control, select.POLLIN)
    poll.register(woken, select.POLLIN)
    while True:
        for fd, _ in poll.poll():
            if fd == woken:
                with contextlib.suppress(BlockingIOError):
                    os.read(woken, 4096)
                _bury(control, horses)
                continue
            wish, fds, *_ = socket.recv_fds(control, 16, 1, socket.MSG_CMSG_CLOEXEC)
            if not wish:
                return
            me = os.getpid()
            try:
                pid = os.fork()
            except OSError:  # the limit of processes, or no memory: running horses go on
                os.close(fds[0])
                control.send(NEWS.pack(0, 0))
                continue
            if not pid:
                _become_horse(fds[0], [control.fileno(), woken], me, settings, runner)
            with contextlib.suppress(OSError):
                os.setpgid(pid, pid)  # here and in the child: whoever is first
            os.close(fds[0])
            horses.add(pid)
            control.send(NEWS.pack(pid, -1))


def _become_horse(
    fd: int, not_ours: list[int], template_pid: int, settings: Settings, runner: Runner
) -> NoReturn:
    try:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        for other in not_ours:
            os.close(other)
        horse.main(socket.socket(fileno=fd), template_pid, settings, runner)
    finally:
        os._exit(1)


def _bury(control: socket.socket, horses: set[int]) -> None:
    while horses:
        pid, status = os.waitpid(-1, os.WNOHANG)
        if not pid:
            return
        kill_group(pid, signal.SIGKILL)  # what the job started ends with it
        horses.discard(pid)
        control.send(NEWS.pack(pid, status))


def kill_group(pid: int, signum: int) -> None:
    """Signal a horse and all that it started; a group that is gone, or not known yet, is fine."""
    if pid:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(pid, signum)


if __name__ == "__main__":
    main(int(sys.argv[1]))
