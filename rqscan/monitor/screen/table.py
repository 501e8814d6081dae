"""Table: a pane → lines of a given width.

They are fitted by hand, because a `rich.Table` takes twenty times as long per frame.
"""

import re
from collections.abc import Iterable

from rich.cells import cell_len, set_cell_size

from rqscan.monitor.screen.board import cursor, subject
from rqscan.monitor.screen.columns import Pane
from rqscan.monitor.screen.state import View

__all__ = ["BAD", "HEAD", "STYLES", "WARN", "Line", "joined", "share", "table"]

Line = list[tuple[str, str]]
"""Texts, each with its rich style."""

HEAD, BAD, WARN, CHOSEN = "bold", "bold dark_orange", "dark_orange", "reverse"
STYLES = {
    "lost": BAD, "unserved": BAD, "STALE": BAD, "stale": WARN, "mismatched": WARN, "paused": WARN,
    "FROZEN": WARN, "overdue": BAD, "invalid": WARN, "refused": WARN, "failed": WARN,
    "busy": "cyan", "running": "cyan",
}  # fmt: skip
"""Colour only repeats what a word says."""

GAP = 2
"""Cells before each column; those before the first have the cursor and the marks."""

NAME_CELLS = 32
"""Most cells of a column but the last."""


def share(wanted: list[int], room: int) -> list[int]:
    """Share lines evenly, but give nobody more than is wanted."""
    shares = [0] * len(wanted)
    smallest_first = sorted(range(len(wanted)), key=wanted.__getitem__)
    for turn, i in enumerate(smallest_first):
        shares[i] = min(wanted[i], (room - sum(shares)) // (len(wanted) - turn))
    return shares


def table(pane: Pane, room: int, width: int, view: View | None, number: str = "") -> list[Line]:
    """Lay out a pane.

    Args:
        pane: what to show.
        room: lines, at least one, of which the first has the titles.
        width: cells of a line.
        view: what the user has chosen, if the pane has the cursor.
        number: the key of the pane.
    """
    at, most = cursor(pane, view) if view else 0, max(1, room - 1)
    first = at // most * most
    items = pane.items[first : first + most] if room > 1 else []
    rows = [pane.cells(item) for item in items]
    titles = [column.title for column in pane.columns]
    sizes = _sizes(titles, rows, width)
    figures = {
        title for title in titles if all(re.match(r"[-+\d]|never$", row[title]) for row in rows)
    }
    head: Line = [(number.ljust(GAP), "dim")]
    head += _cells({title: title for title in titles}, sizes, figures, HEAD)
    if note := _note(pane, first, len(items), view):
        head = _beside(head, note, width)
    lines = [head]
    for i, (item, row) in enumerate(zip(items, rows, strict=True)):
        is_chosen = view is not None and first + i == at
        is_marked = view is not None and subject(pane, item) in view.marks
        sign = ("*" if is_marked else " ") + (">" if is_chosen else " ")
        lines.append([(sign, ""), *_cells(row, sizes, figures, CHOSEN if is_chosen else "")])
    return lines


def _beside(head: Line, note: str, width: int) -> Line:
    """Put a note behind the titles, or over the last of them: cut off, it would mislead."""
    room, kept = width - cell_len(note), head[:]
    while kept and sum(cell_len(part) for part, _ in kept) > room:
        kept.pop()
    if kept != head:
        kept.append((" " * max(0, room - sum(cell_len(part) for part, _ in kept)), ""))
    return [*kept, (note, "dim")]


def _note(pane: Pane, first: int, count: int, view: View | None) -> str:
    every = max(len(pane.items), pane.of)
    parts = [pane.note] if pane.note else []
    if view and (sort := view.sorts.get(pane.name)):
        parts.insert(0, f"by {sort.title}{' reversed' if sort.is_reversed else ''}")
    if count < every:
        parts.append(f"{first + 1}-{first + count} of {every}" if count else f"{every}")
    return f"  ({'; '.join(parts)})" if parts else ""


def _sizes(titles: list[str], rows: list[dict[str, str]], width: int) -> dict[str, int]:
    *_, last = titles
    sizes = {
        title: min(
            width // 2 if title == last else NAME_CELLS,
            max([cell_len(title), *(cell_len(row[title]) for row in rows)]),
        )
        for title in titles
    }
    while len(sizes) > 1 and sum(sizes.values()) + GAP * len(sizes) > width:
        del sizes[list(sizes)[max(1, len(sizes) - 2)]]
    return sizes


def _cells(row: dict[str, str], sizes: dict[str, int], figures: set[str], style: str) -> Line:
    """Give the cells of a row; the last one is as long as it is."""
    line: Line = []
    first, *_, last = row
    for title, size in sizes.items():
        text = row[title]
        if title != last:
            if title in figures and title != first:
                text = text.rjust(size + len(text) - cell_len(text))
            text = set_cell_size(text, size)
        line.append(
            (text if title == first else " " * GAP + text, style or STYLES.get(row[title], ""))
        )
    return line


def joined(texts: Iterable[str], width: int) -> str:
    """Join the first texts that fit."""
    joined = ""
    for text in texts:
        if cell_len(joined + text) > width:
            break
        joined += f"{text}  "
    return joined
