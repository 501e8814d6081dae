"""A terminal for the tests: a pty with a process on it, read by an emulator."""

import fcntl
import os
import pty
import struct
import subprocess
import sys
import termios
from pathlib import Path

import pyte

from tests.servers import wait_for

__all__ = ["TOP", "Terminal"]

ROOT = Path(__file__).resolve().parent.parent

TOP = [sys.executable, "-m", "rqscan", "top"]

# A session leader that opens a terminal gets it as its own: ^Z, ^C and SIGWINCH work as in a shell.
OWN_TERMINAL = (
    "import os, sys; os.open(os.ttyname(0), os.O_RDWR); os.execv(sys.argv[1], sys.argv[1:])"
)


class Terminal:
    """A pty with a process on it, and what a user would see."""

    def __init__(self, argv, env, columns=80, lines=24, cwd=ROOT) -> None:
        self._master, slave = pty.openpty()
        os.set_blocking(self._master, False)
        self._screen = pyte.Screen(columns, lines)
        self._stream = pyte.ByteStream(self._screen)
        self._slave = slave
        self.raw = b""
        self.resize(columns, lines)
        self.modes = termios.tcgetattr(slave)
        self.process = subprocess.Popen(
            [sys.executable, "-ISc", OWN_TERMINAL, *argv],
            stdin=slave, stdout=slave, stderr=slave, env=env, cwd=cwd, start_new_session=True,
        )  # fmt: skip

    def resize(self, columns, lines) -> None:
        fcntl.ioctl(self._slave, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
        self._screen.resize(lines, columns)

    def type(self, text) -> None:
        os.write(self._master, text.encode())

    def lines(self) -> list[str]:
        while True:
            try:
                data = os.read(self._master, 65536)
            except BlockingIOError:
                return [line.rstrip() for line in self._screen.display]
            self.raw += data
            self._stream.feed(data)

    def until(self, *words) -> list[str]:
        def seen():
            lines = self.lines()
            return all(any(word in line for line in lines) for word in words) and lines

        return wait_for(seen, 20, f"{words} in {self.lines()}")

    def ended(self) -> int:
        wait_for(lambda: self.lines() and self.process.poll() is not None, 20, "the end")
        self.lines()
        return self.process.returncode

    def is_sane(self) -> bool:
        return termios.tcgetattr(self._slave) == self.modes

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(10)
        os.close(self._master)
        os.close(self._slave)
