"""Fit: a snapshot → at most `height` lines of at most `width` cells, trouble first.

Room is shared by rank: where it is short, columns go first, then rows, then whole panes; nothing
wraps. Lines are fitted by hand, because a `rich.Table` takes twenty times as long per frame. Texts
come from other hosts and from targets: each is defused before it becomes part of a line.
"""

import re
from collections.abc import Mapping
from itertools import accumulate

from rich.cells import cell_len, set_cell_size

from rqscan.monitor.panes import Pane, panes, totals
from rqscan.monitor.records import Snapshot

__all__ = ["Line", "Span", "fit"]

Span = tuple[str, str]
"""Text and its rich style."""

Line = list[Span]

HEAD, BAD, WARN = "bold", "bold dark_orange", "dark_orange"
STYLES = {"lost": BAD, "stale": WARN, "mismatched": WARN, "paused": WARN, "unserved": BAD} | {
    "busy": "cyan", "running": "cyan", "STALE": BAD, "FROZEN": WARN
}  # fmt: skip
"""Colour only repeats what a word says."""

NAME_CELLS = 32
"""Most cells of a column but the last."""

LAST_CELLS = 12
"""The last column has its whole text or at least so many cells, else it is dropped."""


def fit(
    snapshot: Snapshot, width: int, height: int, *,
    is_ascii: bool = False, status: str = "", skip: int = 0,
) -> list[Line]:  # fmt: skip
    """Lay out a snapshot.

    Args:
        snapshot: what to show.
        width: cells of a line.
        height: most lines.
        is_ascii: no character beyond ASCII.
        status: the word for how fresh it is, with a time; the snapshot's own by default.
        skip: workers to leave out at the top.
    """
    lines = [_header(snapshot, width, status or f"LIVE {snapshot.at:%H:%M:%S} UTC")]
    lines += [_pairs(pairs, width) for pairs in totals(snapshot)]
    trouble = [
        [("! ", BAD), (one.what.upper(), BAD), (f" {one.object}: {one.cause}", WARN)]
        for one in snapshot.trouble
    ]
    if len(trouble) > (most := max(1, height // 4)):
        trouble[most - 1 :] = [[*trouble[most - 1], (f" (and {len(trouble) - most} more)", BAD)]]
    lines += trouble
    parts = [pane for pane in panes(snapshot, skip, is_ascii=is_ascii) if pane.rows]
    rooms = _share([len(pane.rows) + 1 for pane in parts], height - len(lines))
    for pane, room in zip(parts, rooms, strict=False):  # the last ones may get no room
        lines += _table(pane, room, width)
    return [_crop(line, width, is_ascii=is_ascii) for line in lines[:height]]


def _share(wanted: list[int], room: int) -> list[int]:
    """Share lines: two to each pane in turn while there are any, then one by one by want."""
    shares = [2] * min(len(wanted), room // 2)
    room -= sum(shares)
    while room > 0 and (needy := [i for i, share in enumerate(shares) if share < wanted[i]]):
        for i in needy[:room]:
            shares[i] += 1
        room -= len(needy)
    return shares


def _table(pane: Pane, room: int, width: int) -> list[Line]:
    titles, last = list(pane.columns), len(pane.columns) - 1
    rows = [
        ["-" if cell is None else _safe(str(cell)) for cell in row] for row in pane.rows[: room - 1]
    ]
    sizes = [
        min(NAME_CELLS if i < last else LAST_CELLS, max(map(cell_len, column)))
        for i, column in enumerate(zip(titles, *rows, strict=True))
    ]
    by_rank = sorted(range(len(titles)), key=lambda i: pane.columns[titles[i]])
    ends = accumulate(sizes[i] + 1 for i in by_rank)
    kept = sorted(i for i, end in zip(by_rank, ends, strict=True) if end <= width)

    def cell(i: int, text: str) -> str:
        if i == last:
            return f" {text}"
        text = set_cell_size(text, sizes[i])
        return f" {text if i == 0 else text.rstrip().rjust(len(text))}"

    head = [(cell(i, titles[i]), HEAD) for i in kept]
    note = f" ({len(rows)} of {len(pane.rows)})"
    if len(rows) < len(pane.rows) and sum(cell_len(text) for text, _ in head) + len(note) <= width:
        head.append((note, "dim"))  # cut off it would tell another number
    return [head, *([(cell(i, r[i]), STYLES.get(r[i], "")) for i in kept] for r in rows)]


def _header(snapshot: Snapshot, width: int, status: str) -> Line:
    redis = snapshot.redis
    left = ["rqscan top", f"redis {redis.version or '?'}", f"rtt {redis.rtt_ms:.1f}ms"]
    while len(left) > 1 and cell_len("  ".join([*left, status])) > width:
        left.pop()
    return [("  ".join(left) + "  ", HEAD), (status, STYLES.get(status.partition(" ")[0], HEAD))]


def _pairs(pairs: Mapping[str, object], width: int) -> Line:
    texts = [f"{name} {'-' if value is None else value}" for name, value in pairs.items()]
    ends = accumulate(cell_len(text) + 2 for text in texts)
    kept = [text for text, end in zip(texts, ends, strict=True) if end - 2 <= width]
    return [("  ".join(kept), "")]


def _crop(line: Line, width: int, *, is_ascii: bool) -> Line:
    spans = []
    for text, style in line:
        shown = _safe(text)
        if is_ascii:
            shown = shown.encode("ascii", "replace").decode()
        if cell_len(shown) > width:
            shown = set_cell_size(shown, width)
        width -= cell_len(shown)
        spans.append((shown, style))
    return spans


def _safe(text: str) -> str:
    """Give the text without control, bidi and zero-width characters."""
    return "".join(c for c in re.sub(r"\s", " ", text) if c.isprintable())
