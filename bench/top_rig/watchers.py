"""Who watches: each as its own command, refreshed again and again, in a process of its own."""

import contextlib
import fcntl
import json
import os
import pty
import re
import select
import signal
import socket
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable
from typing import Any, Protocol, Self
from urllib.request import urlopen

from jobs_rig.rig import Rig

from tests.servers import DIE_WITH_US

__all__ = ["OURS", "RQ", "Live", "Piped", "Screen", "Served", "Watcher"]

OURS = [sys.executable, "-m", "rqscan", "top"]
RQ = [sys.executable, "-m", "rq.cli", "info"]
PAUSE_S = 0.5
WAIT_S = 60
STOP_S = 5
QUIET_S = 0.4  # without output: it is drawn at the begin of a refresh, and at its end
COLUMNS, LINES = 140, 45
FOR_STYLE = re.compile(rb"\x1b\[[0-9;]*m")
ENDED = "{} has ended by itself: {}"


class Watcher(Protocol):
    """A monitor that runs."""

    pid: int

    def __enter__(self) -> Self: ...

    def __exit__(self, *_: object) -> None: ...

    def refresh(self, times: int) -> float | None:
        """Let it refresh so often, and give the seconds that took without the pauses, if known."""


def _environ(rig: Rig, url: str) -> dict[str, str]:
    (rig.folder / "top.toml").touch()  # settings of nobody
    found = rig.environ({"TERM": "xterm-256color", "RQSCAN_CONFIG": str(rig.folder / "top.toml")},
                        url)  # fmt: skip
    return {key: value for key, value in found.items() if key not in {"COLUMNS", "LINES"}}


class _Process:
    """A process that dies with us, and tells why it ended."""

    def __init__(self, rig: Rig, command: list[str], url: str, stdout: int) -> None:
        self._what, self._log = command, (rig.folder / "watcher.log").open("w+b")
        self._process = subprocess.Popen(
            [sys.executable, "-ISc", DIE_WITH_US, str(os.getpid()), command[0], *command],
            env=_environ(rig, url), cwd=rig.folder, stdin=subprocess.DEVNULL, stdout=stdout,
            stderr=self._log, start_new_session=True,
        )  # fmt: skip
        self.pid = self._process.pid

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait(STOP_S)
        if self._process.stdout:
            self._process.stdout.close()
        self._log.close()

    def _ended(self) -> RuntimeError:
        self._log.seek(0)
        return RuntimeError(ENDED.format(" ".join(self._what), self._log.read()[-1000:].decode()))


class Piped(_Process):
    """Prints one refresh after another, each with one `mark` in it, with a pause in between."""

    def __init__(self, rig: Rig, command: list[str], url: str, mark: bytes) -> None:
        super().__init__(rig, command, url, subprocess.PIPE)
        self._mark, self._last = mark, time.monotonic()

    def refresh(self, times: int) -> float | None:
        assert self._process.stdout
        began, left, tail, deadline = self._last, times, b"", time.monotonic() + WAIT_S
        out = self._process.stdout.fileno()
        while left > 0:
            if time.monotonic() > deadline:
                raise TimeoutError(f"no refresh in {WAIT_S} s: {' '.join(self._what)}")
            if not _is_ready(out, 1.0):
                continue
            data = os.read(out, 1 << 20)
            if not data:
                raise self._ended()
            left -= (tail + data).count(self._mark)
            tail = data[1 - len(self._mark) :] if len(self._mark) > 1 else b""
        self._last = time.monotonic()
        return self._last - began - times * PAUSE_S


class Served(_Process):
    """rq-dashboard; a refresh is what its pages of queues and of workers ask for."""

    PAGES = ("queues", "workers")

    def __init__(self, rig: Rig, python: str, url: str) -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        command = [python, "-m", "rq_dashboard", "-b", "127.0.0.1", "-p", str(port), "-u", url]
        super().__init__(rig, command, url, subprocess.DEVNULL)
        self._at, deadline = f"http://127.0.0.1:{port}/0/data/", time.monotonic() + WAIT_S
        while not self._is_there(port):
            if self._process.poll() is not None or time.monotonic() > deadline:
                with self:
                    raise self._ended()
            time.sleep(0.02)

    @staticmethod
    def _is_there(port: int) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", port)) == 0

    def get(self, page: str) -> Any:
        with urlopen(f"{self._at}{page}.json", timeout=WAIT_S) as answer:
            return json.loads(answer.read())

    def refresh(self, times: int) -> float | None:
        began = time.monotonic()
        for _ in range(times):
            for page in self.PAGES:
                assert self.get(page)[page]
        return time.monotonic() - began


class Screen:
    """A command on a terminal of its own; started without a wrapper, since its start is timed."""

    def __init__(self, rig: Rig, command: list[str], url: str) -> None:
        self._near, far = pty.openpty()
        fcntl.ioctl(far, termios.TIOCSWINSZ, struct.pack("HHHH", LINES, COLUMNS, 0, 0))
        environ = _environ(rig, url)
        self.seen, self._began = b"", time.monotonic()
        self._process = subprocess.Popen(
            command, env=environ, cwd=rig.folder, stdin=far, stdout=far, stderr=far,
            start_new_session=True,
        )  # fmt: skip
        os.close(far)
        self.pid = self._process.pid

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired, TimeoutError):
                self.read(lambda: False, STOP_S)
        self._process.kill()
        self._process.wait(STOP_S)
        os.close(self._near)

    def read(self, is_enough: Callable[[], bool], timeout_s: float = WAIT_S) -> bool:
        """Read until it is enough, or the terminal is closed: then False."""
        deadline = time.monotonic() + timeout_s
        while not is_enough():
            if time.monotonic() > deadline:
                raise TimeoutError(f"not seen in {timeout_s} s: {self.seen[-500:]!r}")
            if _is_ready(self._near, 0.05):
                try:
                    self.seen += os.read(self._near, 1 << 16)
                except OSError:  # EIO: nobody has it open any more
                    return False
        return True

    def seconds_until(self, text: bytes) -> float:
        """Give the seconds from the start until a regular expression is on the screen."""

        def is_there() -> bool:
            return re.search(text, FOR_STYLE.sub(b"", self.seen)) is not None

        if not self.read(is_there):
            raise RuntimeError(ENDED.format("the screen", self.seen[-500:].decode()))
        return time.monotonic() - self._began

    def seconds_until_end(self) -> float:
        self.read(lambda: False)
        return time.monotonic() - self._began

    def next_frame(self) -> None:
        """Wait until something new was drawn, all of it."""
        self.seen = b""
        self.read(lambda: bool(self.seen))
        deadline = time.monotonic() + WAIT_S
        while _is_ready(self._near, QUIET_S) and time.monotonic() < deadline:
            self.seen += os.read(self._near, 1 << 16)


class Live(Screen):
    """Our live view."""

    def refresh(self, times: int) -> float | None:
        for _ in range(times):
            self.next_frame()
        return None


def _is_ready(fd: int, timeout_s: float) -> bool:
    """Wait for input; not by `select.select`, which knows no number above 1023."""
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    return bool(poll.poll(1000 * timeout_s))
