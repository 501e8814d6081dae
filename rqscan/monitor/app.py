"""App: the loop of `rqscan top` on a terminal: draw · wait for a key or the hour · look.

A look waits for Redis two seconds at most, and the keys with it. Signals come through a pipe as
bytes, so that nothing is ever done inside a handler; ^C and ^Z come as keys.
"""

import os
import select
import signal
import sys
import termios
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Self

from msgspec import structs
from rich.console import Console
from rich.text import Text

from rqscan.monitor.fit import fit
from rqscan.monitor.keys import HELP, QUIT, STOP, State, press, split
from rqscan.monitor.records import Snapshot

__all__ = ["Look", "run"]

Look = Callable[[], Snapshot]
"""Gives the fleet as it is."""

ENDING = {signal.SIGTERM, signal.SIGINT, signal.SIGHUP}
SIGNALS = {*ENDING, signal.SIGWINCH}

RETRY_S = 3.0
"""Redis, when away, is tried again at least so often."""


class _Terminal:
    """The terminal, taken over for as long as the block lasts."""

    def __enter__(self) -> Self:
        self._keys = sys.stdin.fileno()
        self._modes = termios.tcgetattr(self._keys)
        self._console = Console(force_terminal=True, highlight=False)
        self._signals, wake = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._old_wake = signal.set_wakeup_fd(wake)
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
        self._console.set_alt_screen()
        self._console.show_cursor(show=False)

    def _give_back(self) -> None:
        with suppress(OSError, termios.error):  # the terminal itself may be gone
            self._console.show_cursor()
            self._console.set_alt_screen(enable=False)
            termios.tcsetattr(self._keys, termios.TCSANOW, self._modes)

    def stop(self) -> None:
        """Leave the terminal to the shell until that brings us back."""
        self._give_back()
        os.kill(0, signal.SIGTSTP)  # as the terminal itself would: the whole job
        self._take()

    def size(self) -> tuple[int, int]:
        """Give columns and lines as they are now, whatever COLUMNS and LINES say."""
        self._console.size = size = os.get_terminal_size(self._keys)
        return size

    def draw(self, lines: list[Text], *, is_dim: bool) -> None:
        """Write a frame over the last one."""
        frame = Text("\n", "dim" if is_dim else "", no_wrap=True, overflow="crop").join(lines)
        self._console.update_screen(frame)

    def wait(self, timeout_s: float | None) -> list[str]:
        """Wait for keys; a signal that ends us comes as the key that does."""
        ready, _, _ = select.select([self._keys, self._signals], [], [], timeout_s)
        if self._signals in ready and ENDING & set(os.read(self._signals, 64)):
            return [QUIT]
        if self._keys not in ready:
            return []
        with suppress(OSError):
            return split(os.read(self._keys, 1024)) or [QUIT]
        return [QUIT]


def run(look: Look, interval_s: float, refreshes: int | None, *, is_ascii: bool) -> None:
    """Show snapshots until the user or `refreshes` ends it.

    Raises:
        RedisUnavailable: the very first look failed; later ones are tried again for ever.
    """
    shot, looks, state, looked_at = look(), 1, State(), time.monotonic()
    with _Terminal() as terminal:
        while not state.is_over:
            pause_s = interval_s if shot.redis.up else min(interval_s, RETRY_S)
            wait_s = None if state.is_frozen else looked_at + pause_s - time.monotonic()
            if state.is_due or (wait_s is not None and wait_s <= 0):
                if looks == refreshes:
                    return
                shot, looks, state = look(), looks + 1, structs.replace(state, is_due=False)
                looked_at = time.monotonic()
                continue
            width, height = terminal.size()
            lines = fit(shot, width, height - 1, state, is_ascii=is_ascii)
            lines += [Text()] * (height - 1 - len(lines))
            terminal.draw([*lines, Text(HELP, "dim")], is_dim=not shot.redis.up)
            for key in terminal.wait(wait_s):
                if key == STOP:
                    terminal.stop()
                state = press(state, key)
