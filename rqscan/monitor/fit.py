"""Fit: a snapshot → at most `height` lines of at most `width` cells, trouble first.

Where room is short, columns go first, then rows, then whole panes; nothing wraps. Lines are fitted
by hand, because a `rich.Table` takes twenty times as long per frame.
"""

import re
from collections.abc import Iterable
from typing import Any

from rich.cells import cell_len, set_cell_size
from rich.text import Text

from rqscan.monitor.keys import State
from rqscan.monitor.panes import Pane, panes, totals
from rqscan.monitor.records import Snapshot, Trouble

__all__ = ["fit"]

Line = list[tuple[str, str]]
"""Texts, each with its rich style."""

CALM = State()

HEAD, BAD, WARN = "bold", "bold dark_orange", "dark_orange"
STYLES = {
    "lost": BAD, "unserved": BAD, "STALE": BAD, "stale": WARN, "mismatched": WARN, "paused": WARN,
    "FROZEN": WARN, "overdue": BAD, "invalid": WARN, "refused": WARN, "failed": WARN,
    "busy": "cyan", "running": "cyan",
}  # fmt: skip
"""Colour only repeats what a word says."""

ASCII = str.maketrans("█░", "#-")

TOTALS = 6
"""Lines of a screen for each line of totals; two lines stand on every screen."""

GAP = 2
"""Cells before each column."""

NAME_CELLS = 32
"""Most cells of a column but the last."""


def fit(
    shot: Snapshot, width: int, height: int, state: State = CALM, *, is_ascii: bool = False
) -> list[Text]:
    """Lay out a snapshot.

    Args:
        shot: what to show.
        width: cells of a line.
        height: most lines.
        state: what the user has chosen.
        is_ascii: no character beyond ASCII.
    """
    status = "STALE" if not shot.redis.up else "FROZEN" if state.is_frozen else "LIVE"
    clock = f" {shot.at:%H:%M:%S} UTC"
    head = ["rqscan top", f"redis {shot.redis.version or '?'}", f"rtt {shot.redis.rtt_ms:.1f}ms"]
    lines: list[Line] = [
        [(_joined(head, width - len(status + clock) - 2), HEAD),
         (status, STYLES.get(status, HEAD)), (clock, HEAD)],
        *([(_joined((f"{name} {_shown(cell)}" for name, cell in row.items()), width), "")]
          for row in totals(shot)[: max(2, height // TOTALS)]),
        *_troubles(shot.trouble, max(1, height // 4)),
    ]  # fmt: skip
    tables = [pane for pane in panes(shot, state.skip) if pane.rows][: (height - len(lines)) // 2]
    rooms = _share([len(pane.rows) + 1 for pane in tables], height - len(lines))
    for pane, room in zip(tables, rooms, strict=True):
        lines += _table(pane, room, width)
    return [_text(line, width, is_ascii=is_ascii) for line in lines[:height]]


def _troubles(trouble: list[Trouble], most: int) -> list[Line]:
    lines = [
        [(f"! {one.what.upper()}", BAD), (f" {one.object}: {one.cause}", WARN)]
        for one in trouble[:most]
    ]
    if len(trouble) > most:
        lines[-1].append((f" (and {len(trouble) - most} more)", BAD))
    return lines


def _share(wanted: list[int], room: int) -> list[int]:
    """Share lines evenly, but give nobody more than is wanted."""
    shares = [0] * len(wanted)
    smallest_first = sorted(range(len(wanted)), key=wanted.__getitem__)
    for rank, i in enumerate(smallest_first):
        shares[i] = min(wanted[i], (room - sum(shares)) // (len(wanted) - rank))
    return shares


def _table(pane: Pane, room: int, width: int) -> list[Line]:
    rows, count = pane.rows, max(len(pane.rows), pane.of)
    shown = [{title: _shown(cell) for title, cell in row.items()} for row in rows[: room - 1]]
    head = {title: title for title in rows[0]}
    first, *_, last = head
    sizes = {
        title: min(
            width // 2 if title == last else NAME_CELLS,
            max(cell_len(row[title]) for row in [head, *shown]),
        )
        for title in head
    }
    while len(sizes) > 1 and sum(sizes.values()) + GAP * len(sizes) > width:
        del sizes[list(sizes)[max(1, len(sizes) - 2)]]
    figures = {title for title in head if all(re.match(r"[-+\d]", row[title]) for row in shown)}

    def cell(title: str, text: str) -> str:
        if title == last:
            return " " * GAP + text
        if title in figures and title != first:
            text = text.rjust(sizes[title] + len(text) - cell_len(text))
        return " " * GAP + set_cell_size(text, sizes[title])

    lines = [[(cell(title, title), HEAD) for title in sizes]]
    note = f" ({len(shown)} of {count})"  # cut off it would tell another number
    if len(shown) < count and cell_len("".join(text for text, _ in lines[0]) + note) <= width:
        lines[0].append((note, "dim"))
    return lines + [[(cell(t, row[t]), STYLES.get(row[t], "")) for t in sizes] for row in shown]


def _shown(cell: Any) -> str:
    return "-" if cell is None else f"{cell:.1f}" if isinstance(cell, float) else str(cell)


def _joined(texts: Iterable[str], width: int) -> str:
    """Join the first texts that fit."""
    joined = ""
    for text in texts:
        if cell_len(joined + text) > width:
            break
        joined += f"{text}  "
    return joined


def _text(line: Line, width: int, *, is_ascii: bool) -> Text:
    """Make a line; texts come from other hosts and from targets: here they are defused."""
    text = Text(no_wrap=True)
    for raw, style in line:
        shown = "".join(c for c in re.sub(r"\s", " ", raw) if c.isprintable())
        if is_ascii:
            shown = shown.translate(ASCII).encode("ascii", "replace").decode()
        text.append(shown, style)
    text.truncate(width, overflow="crop")
    return text
