"""Terminal: taken over for as long as the live view lasts, and given back as it was.

Signals come through a pipe as bytes, so that nothing is ever done inside a handler; ^C and ^Z come
as keys. Nothing is imported that weighs: the first frame is drawn before all else is loaded.
"""

import os
import select
import signal
import sys
import termios
from contextlib import suppress
from typing import Self

from rqscan.monitor.screen.strokes import QUIT, split

__all__ = ["Terminal"]

SCREEN, SHELL = "\x1b[?1049h\x1b[?25l", "\x1b[?25h\x1b[?1049l"
"""Turn to the other screen, without a cursor, and back: xterm's codes, which all have."""

WIPED = "\x1b[H\x1b[2J"

ENDING = {signal.SIGTERM, signal.SIGINT, signal.SIGHUP}
SIGNALS = {*ENDING, signal.SIGWINCH}


class Terminal:
    """This process' terminal, inside the block."""

    def __enter__(self) -> Self:
        self._keys = sys.stdin.fileno()
        self._modes = termios.tcgetattr(self._keys)
        self._signals, self._wake = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._old_wake = signal.set_wakeup_fd(self._wake)
        self._old = {number: signal.signal(number, lambda *_: None) for number in SIGNALS}
        self._take()
        return self

    def __exit__(self, *_: object) -> None:
        self._give_back()
        signal.set_wakeup_fd(self._old_wake)
        for number, handler in self._old.items():
            signal.signal(number, handler)

    def _take(self) -> None:
        modes = termios.tcgetattr(self._keys)
        modes[3] &= ~(termios.ICANON | termios.ECHO | termios.ISIG)
        termios.tcsetattr(self._keys, termios.TCSADRAIN, modes)
        _write(SCREEN + WIPED)

    def _give_back(self) -> None:
        with suppress(OSError, termios.error):  # the terminal itself may be gone
            _write(SHELL)
            termios.tcsetattr(self._keys, termios.TCSANOW, self._modes)

    def stop(self) -> None:
        """Leave the terminal to the shell until that brings us back."""
        self._give_back()
        os.kill(0, signal.SIGTSTP)  # as the terminal itself would: the whole job
        self._take()

    def wake(self) -> None:
        """End the wait, from another thread."""
        with suppress(BlockingIOError):  # then it ends anyway
            os.write(self._wake, b"\0")

    def size(self) -> tuple[int, int]:
        """Give columns and lines as they are now, whatever COLUMNS and LINES say."""
        return os.get_terminal_size(self._keys)

    def clear(self, words: str = "") -> None:
        """Wipe what others have written, and write so much at the top."""
        _write(WIPED + words)

    def wait(self, timeout_s: float | None) -> list[str]:
        """Wait for keys; a signal that ends us comes as the key that does."""
        ready, _, _ = select.select([self._keys, self._signals], [], [], timeout_s)
        if self._signals in ready and ENDING & set(os.read(self._signals, 4096)):
            return [QUIT]
        if self._keys not in ready:
            return []
        with suppress(OSError):
            return split(os.read(self._keys, 1024)) or [QUIT]
        return [QUIT]


def _write(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()
