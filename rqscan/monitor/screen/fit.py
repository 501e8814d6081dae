"""Fit: a snapshot and what the user has chosen → the lines of a screen, trouble first.

Where room is short, columns go first, then rows, then whole panes; nothing wraps but pages.
"""

import re
from collections.abc import Mapping
from datetime import timedelta
from itertools import groupby
from typing import Any, NamedTuple

from msgspec import structs
from rich.text import Text

from rqscan.monitor.records import Snapshot, Trouble
from rqscan.monitor.screen.board import arrange
from rqscan.monitor.screen.columns import Pane, age, shown
from rqscan.monitor.screen.keys import PANES
from rqscan.monitor.screen.pages import footer, overlay
from rqscan.monitor.screen.panes import totals
from rqscan.monitor.screen.state import State, View
from rqscan.monitor.screen.table import BAD, HEAD, STYLES, WARN, Line, joined, share, table

__all__ = ["ENDLESS", "Watch", "fit", "screen"]

CALM = State()
ASCII = str.maketrans("█░▁▂▃▄▅▆▇…", "#-_.:-=+*~")
NUMBERS = {name: key for key, name in PANES.items()}

TOTALS = 6
"""Lines of a screen for each line of totals; two lines stand on every screen."""

IMPORTANT = ("queues", "workers", "failed", "scans", "schedule", "waits")
"""Panes in the order in which they get room."""

ENDLESS = 1 << 20
"""Lines of what is no screen: nothing is left out."""

NOTES = 18
"""Lines from which a screen has notes too."""

LEAST_ROWS = 2
"""Of a pane that has as many, below its titles; one on a small screen."""

SMALL_LINES = 9
"""Of all panes together."""

LEAST_LINES = 4
"""Of a body: what a screen has less is not drawn."""


class Watch(NamedTuple):
    """How the snapshot on the screen stands in time."""

    age_s: float = 0.0  # since it was taken
    retry_s: float | None = None  # until Redis, which is away, is asked again
    where: str = ""  # Redis' address
    interval_s: float | None = None  # between looks


def screen(
    shot: Snapshot | None,
    size: tuple[int, int],
    state: State,
    watch: Watch,
    board: Mapping[str, Pane],
    *,
    is_ascii: bool = False,
) -> list[Text]:
    """Lay out a whole screen: exactly as many lines as it has, of which the last is the footer.

    Args:
        shot: what to show; none before the first.
        size: cells of a line, and lines.
        state: what the user has chosen.
        watch: how the snapshot stands in time.
        board: the snapshot's panes, arranged.
        is_ascii: no character beyond ASCII.
    """
    width, height = size
    room = max(LEAST_LINES, height) - 1
    head = _head(shot, width, state, watch)
    body: list[Line] = []
    if shot:
        body = overlay(state, width, room - 1) or _body(shot, (width, room - 1), state, board)
    lines = [head, *body][:room]
    lines += [[]] * (room - len(lines)) + [footer(state, width)]
    return [_text(line, width, is_ascii=is_ascii) for line in lines[-height:]]


def fit(
    shot: Snapshot, width: int, height: int, state: State = CALM, *, is_ascii: bool = False
) -> list[Text]:
    """Lay out a snapshot in at most `height` lines of at most `width` cells, without a footer."""
    board = arrange(shot, state.view)
    head = _head(shot, width, state, Watch())
    lines = [head, *_body(shot, (width, height - 1), state, board, is_live=False)]
    return [_text(line, width, is_ascii=is_ascii) for line in lines[:height]]


def _body(
    shot: Snapshot,
    size: tuple[int, int],
    state: State,
    board: Mapping[str, Pane],
    *,
    is_live: bool = True,
) -> list[Line]:
    """Give what stands below the head; with the cursor, and the pane's keys, if it is live."""
    (width, height), view = size, state.view
    lines: list[Line] = [
        [(joined((f"{name} {_total(cell)}" for name, cell in row.items()), width), "")]
        for row in totals(shot)[: max(2, (height + 1) // TOTALS)]
    ]
    lines += _troubles(shot.trouble, height)
    panes = [
        pane for pane in board.values()
        if pane.items or pane.note or (is_live and pane.name == view.pane)
    ]  # fmt: skip
    panes = _chosen(panes, view if is_live else None, height - len(lines))
    rooms = share([len(pane.items) + 1 for pane in panes], height - len(lines))
    for pane, room in zip(panes, rooms, strict=True):
        has_cursor = is_live and pane.name == view.pane
        number = NUMBERS[pane.name] if is_live else ""
        lines += table(pane, room, width, view if has_cursor else None, number)
    return lines


def _total(cell: Any) -> str:
    return "-" if cell is None else shown(cell)


def _chosen(panes: list[Pane], view: View | None, room: int) -> list[Pane]:
    """Leave out panes where there is no room for their titles and a row or two."""
    focus = view.pane if view else ""
    if view and view.is_alone:
        return [pane for pane in panes if pane.name == focus]
    least, kept = LEAST_ROWS if room >= SMALL_LINES else 1, list[str]()
    for pane in sorted(panes, key=lambda one: (one.name != focus, IMPORTANT.index(one.name))):
        room -= min(least, len(pane.items)) + 1
        if room >= 0 or not kept:
            kept.append(pane.name)
    return [pane for pane in panes if pane.name in kept]


def _head(shot: Snapshot | None, width: int, state: State, watch: Watch) -> Line:
    if shot is None:
        return [(f"rqscan top  connecting to Redis {watch.where}", HEAD)]
    status = "FROZEN" if state.is_frozen else "LIVE"
    if not shot.redis.up:
        status = f"STALE {age(watch.age_s)}"
    at = shot.at + timedelta(seconds=watch.age_s)
    clock = f" {at.astimezone():%H:%M:%S %Z}" if state.view.is_local else f" {at:%H:%M:%S} UTC"
    redis = shot.redis
    parts = ["rqscan top", f"redis {redis.version or '?'}", f"rtt {redis.rtt_ms:.1f}ms"]
    if not redis.up and watch.retry_s is not None:
        parts.insert(1, f"next try in {watch.retry_s:.0f}s")
    if redis.memory_bytes is not None:
        parts.append(f"mem {redis.memory_bytes >> 20}M")
    parts += [f"every {watch.interval_s:g}s"] if watch.interval_s else []
    parts.append(watch.where)
    parts += [f"clients {redis.clients}"] if redis.clients is not None else []
    left = joined((part for part in parts if part), width - len(status + clock) - 2)
    style = STYLES.get(status.split()[0], HEAD)
    return [(left, HEAD), (status, style), (clock, HEAD)]


def _troubles(trouble: list[Trouble], height: int) -> list[Line]:
    """Give what is wrong in a part of so many lines, with notes if it is large.

    Each kind has a line of its own, or the last line names the kinds that have none; each trouble
    has one while they take no more than a quarter of the lines; a note only on an endless screen.
    """
    if height < NOTES:
        trouble = [one for one in trouble if one.level != "note"]
    kinds = [list(each) for _, each in groupby(_by_kind(trouble), lambda one: one.what)]
    most = max(2, 2 * height // 5)
    spare = height // 4 - len(kinds)
    lines: list[Line] = []
    for i, each in enumerate(kinds):
        if len(lines) == most - 1 and i < len(kinds) - 1:
            rest = ", ".join(f"{len(more)} {more[0].what}" for more in kinds[i:])
            return [*lines, [("! AND ", BAD), (rest, WARN)]]
        is_told_apart = each[0].level != "note" or height > ENDLESS // 2
        if 1 < len(each) <= spare + 1 and is_told_apart:
            spare -= len(each) - 1
            lines += [_trouble([one]) for one in each]
        else:
            lines.append(_trouble(each))
    return lines


def _by_kind(trouble: list[Trouble]) -> list[Trouble]:
    turn: dict[str, int] = {}
    for one in trouble:
        turn.setdefault(one.what, len(turn))
    return sorted(trouble, key=lambda one: turn[one.what])


def _trouble(each: list[Trouble]) -> Line:
    """Tell of troubles of one kind; of several their objects, and the cause of the first."""
    what, object_, cause, level = structs.astuple(each[0])
    words = f" {object_}: {cause}"
    if len(each) > 1:
        what, words = f"{what} {len(each)}", f" {', '.join(one.object for one in each)}: {cause}"
    if level == "note":
        return [(f"- {what}", ""), (words, "dim")]
    return [(f"! {what.upper()}", BAD if level == "fail" else WARN), (words, WARN)]


def _text(line: Line, width: int, *, is_ascii: bool) -> Text:
    """Make a line; texts come from other hosts and from targets: here they are defused."""
    text = Text(no_wrap=True)
    for raw, style in line:
        words = "".join(c for c in re.sub(r"\s", " ", raw) if c.isprintable())
        if is_ascii:
            words = words.translate(ASCII).encode("ascii", "replace").decode()
        text.append(words, style)
    text.truncate(width, overflow="crop")
    return text
