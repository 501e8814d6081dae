"""App: the loop of `rqscan top` on a terminal: draw · wait for a key or the hour · look.

A look waits for Redis two seconds at most, and the keys with it. Signals come through a pipe as
bytes, so that nothing is ever done inside a handler.
"""

import os
import select
import signal
import sys
import termios
import time
import tty
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from typing import Self

from msgspec import structs
from rich.console import Console, ConsoleDimensions
from rich.control import Control
from rich.text import Text

from rqscan.errors import RedisUnavailable
from rqscan.monitor.fit import Line, fit
from rqscan.monitor.keys import HELP, QUIT, State, press, split
from rqscan.monitor.records import Snapshot
from rqscan.monitor.trouble import away

__all__ = ["run"]

Take = Callable[[Snapshot | None], Snapshot]

ENDING = {signal.SIGTERM, signal.SIGINT, signal.SIGHUP}
SIGNALS = {*ENDING, signal.SIGWINCH, signal.SIGTSTP, signal.SIGCONT}

TICK_S = 1.0
"""The clock on the screen moves so often."""

RETRY_S, RETRY_MOST_S = 0.5, 5.0


class _Terminal:
    """The terminal, taken over for as long as the block lasts."""

    def __init__(self) -> None:
        self._keys = sys.stdin.fileno()
        self._console = Console(force_terminal=True, highlight=False)

    def __enter__(self) -> Self:
        self._modes = termios.tcgetattr(self._keys)
        self._signals, wake = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._old_wakeup = signal.set_wakeup_fd(wake)
        self._old = {number: signal.signal(number, lambda *_: None) for number in SIGNALS}
        self._take()
        return self

    def __exit__(self, *_: object) -> None:
        self._give_back()
        for number, handler in self._old.items():
            signal.signal(number, handler)
        for end in (self._signals, signal.set_wakeup_fd(self._old_wakeup)):
            os.close(end)

    def _take(self) -> None:
        tty.setcbreak(self._keys)
        self._console.control(Control.alt_screen(enable=True), Control.show_cursor(show=False))

    def _give_back(self) -> None:
        with suppress(OSError, termios.error):  # the terminal itself may be gone
            self._console.control(Control.show_cursor(show=True), Control.alt_screen(enable=False))
            termios.tcsetattr(self._keys, termios.TCSANOW, self._modes)

    def size(self) -> tuple[int, int]:
        """Give columns and lines as they are now, whatever COLUMNS and LINES say."""
        return os.get_terminal_size(self._keys)

    def draw(self, lines: list[Line], width: int, height: int, *, is_dim: bool) -> None:
        """Write a frame over the last one; lines are filled up, so nothing is cleared."""
        self._console.size = ConsoleDimensions(width, height)
        lines = lines + [[]] * (height - len(lines))
        texts = [Text.assemble(*line, style="dim" if is_dim else "") for line in lines]
        for text in texts:
            text.truncate(width, pad=True)
        self._console.control(Control.home())
        self._console.print(Text("\n").join(texts), end="", no_wrap=True, overflow="crop")

    def wait(self, timeout_s: float) -> list[str]:
        """Wait for keys; a signal that ends us comes as the key that does."""
        ready, _, _ = select.select([self._keys, self._signals], [], [], timeout_s)
        pressed: list[str] = []
        if self._signals in ready:
            pressed += [key for number in os.read(self._signals, 64) for key in self._obey(number)]
        if self._keys in ready:
            with suppress(OSError):
                return [*pressed, *(split(os.read(self._keys, 1024)) or [QUIT])]
            return [QUIT]
        return pressed

    def _obey(self, number: int) -> list[str]:
        if number == signal.SIGTSTP:
            self._give_back()
            ours = signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)  # stands here until SIGCONT
            signal.signal(number, ours)
        if number in {signal.SIGTSTP, signal.SIGCONT}:
            self._take()
        return [QUIT] if number in ENDING else []


def run(take: Take, interval_s: float, refreshes: int | None, *, is_ascii: bool) -> None:
    """Show snapshots until the user or `refreshes` ends it.

    Raises:
        RedisUnavailable: the very first look failed; later ones are tried again for ever.
    """
    shot, reason, retry_s, looks = take(None), "", RETRY_S, 1
    seen_at = time.monotonic()
    due_at = seen_at + interval_s
    state = State(interval_s)
    with _Terminal() as terminal:
        while not state.is_over:
            now = time.monotonic()
            next_s = max(0.0, due_at - now)
            view = away(shot, f"{reason}; next try in {next_s:.0f} s") if reason else shot
            status = _status(view, now - seen_at, state)
            width, height = terminal.size()
            lines = fit(view, width, height, is_ascii=is_ascii, status=status, skip=state.skip)
            if state.is_help:
                lines = [lines[0], *([(text, "")] for text in HELP)]
            terminal.draw(lines, width, height, is_dim=bool(reason))
            for key in terminal.wait(TICK_S if state.is_frozen else min(TICK_S, next_s)):
                state = press(state, key)
            now = time.monotonic()
            if not reason:
                due_at = min(due_at, now + state.interval_s)
            if not (state.is_due or (now >= due_at and not state.is_frozen)):
                continue
            if looks == refreshes:
                return
            state, looks = structs.replace(state, is_due=False), looks + 1
            try:
                shot, reason, retry_s = take(shot), "", RETRY_S
                seen_at = time.monotonic()
                due_at = seen_at + state.interval_s
            except RedisUnavailable as e:
                reason, due_at = str(e), time.monotonic() + retry_s
                retry_s = min(RETRY_MOST_S, retry_s * 2)


def _status(view: Snapshot, age_s: float, state: State) -> str:
    if not view.redis.up:
        return f"STALE {age_s:.0f}s"
    clock = f"{view.at + timedelta(seconds=age_s):%H:%M:%S} UTC"
    return f"FROZEN {age_s:.0f}s  {clock}" if state.is_frozen else f"LIVE {clock}"
