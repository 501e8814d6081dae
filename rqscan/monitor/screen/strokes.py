"""Strokes: what a terminal sends for keys."""

import re

__all__ = [
    "DOWN", "END", "ENTER", "ERASE", "ESC", "F1", "F6", "HOME", "LEFT", "PAGE_DOWN", "PAGE_UP",
    "QUIT", "REDRAW", "RIGHT", "SHIFT_TAB", "SPACE", "STOP", "TAB", "UP", "WIPE", "split",
]  # fmt: skip

QUIT, REDRAW, WIPE, STOP, ESC = "\x03", "\x0c", "\x15", "\x1a", "\x1b"
ENTER, SPACE, TAB, SHIFT_TAB = "\r", " ", "\t", "\x1b[Z"
UP, DOWN, RIGHT, LEFT = (f"\x1b[{letter}" for letter in "ABCD")
HOME, END, PAGE_UP, PAGE_DOWN = "\x1b[H", "\x1b[F", "\x1b[5~", "\x1b[6~"
F1, F6 = "\x1bOP", "\x1b[17~"
ERASE = "\x7f"

SAME = {
    "\n": ENTER, "\x08": ERASE, "\x06": PAGE_DOWN, "\x02": PAGE_UP, "\x1b[11~": F1,
    "\x1b[1~": HOME, "\x1b[7~": HOME, "\x1b[4~": END, "\x1b[8~": END,
}  # fmt: skip
"""What other terminals send, or people press, for the same key."""


def split(data: bytes) -> list[str]:
    """Split what a terminal sent into keys: single characters and escape sequences."""
    found = re.findall(r"\x1b(?:\[[0-9;]*[A-Za-z~]|O.)|(?s:.)", data.decode(errors="replace"))
    keys = (re.sub(r"^\x1bO([A-DFH])$", "\x1b[\\1", key) for key in found)
    return [SAME.get(key, key) for key in keys]
