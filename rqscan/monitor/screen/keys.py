"""Keys: (state, key, board) → state, without a terminal."""

import math
from collections.abc import Callable, Mapping

from msgspec import structs

from rqscan.monitor.screen.board import HOST, cursor, subject
from rqscan.monitor.screen.columns import Pane
from rqscan.monitor.screen.state import ACTS, Line, Menu, Order, Sort, State, Subject, View
from rqscan.monitor.screen.strokes import (
    DOWN,
    END,
    ENTER,
    ERASE,
    ESC,
    F1,
    F6,
    HOME,
    LEFT,
    PAGE_DOWN,
    PAGE_UP,
    QUIT,
    REDRAW,
    RIGHT,
    SHIFT_TAB,
    SPACE,
    STOP,
    TAB,
    UP,
    WIPE,
)  # fmt: skip

__all__ = ["LETTERS", "PANES", "press"]

Board = Mapping[str, Pane]

PAGE_ROWS = 10
ALL = 1 << 30
MOVES = {
    "j": 1, DOWN: 1, "k": -1, UP: -1, PAGE_DOWN: PAGE_ROWS, PAGE_UP: -PAGE_ROWS,
    "G": ALL, END: ALL, "g": -ALL, HOME: -ALL,
}  # fmt: skip
"""Rows by which the cursor moves: vi's keys, or the arrows and their neighbours."""

PANES = {"1": "queues", "2": "workers", "3": "failed", "4": "schedule", "5": "scans", "6": "waits"}
TABS = {TAB: 1, SHIFT_TAB: -1}
STEPS_S = (0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0)
"""Intervals that + and - lead through."""

LETTERS = "abcdefghijklmnopqrstuvwxyz"
MAX_TYPED = 200


def press(state: State, key: str, board: Board) -> State:
    """Give the state after a key; an unknown one changes nothing.

    Args:
        state: before it; its wish has been fulfilled.
        key: as `split` gives it.
        board: what is on the screen, arranged by the state's view.
    """
    state = structs.replace(state, wish=None, message="")
    if act := ALWAYS.get(key):
        return act(state)
    if isinstance(state.dialog, Line):
        found = _type(state, state.dialog, key)
    elif isinstance(state.dialog, Menu):
        found = _choose(state, state.dialog, key)
    elif state.is_help:
        found = structs.replace(state, is_help=False)
    elif act := COMMON.get(key):
        found = act(state)
    else:
        found = _on_page(state, key) if state.pages else _on_board(state, key, board)
    return found


def _look(state: State, **changes: object) -> State:
    return structs.replace(state, view=structs.replace(state.view, **changes))


def _over(state: State) -> State:
    return structs.replace(state, is_over=True)


def _help(state: State) -> State:
    return structs.replace(state, is_help=True)


def _step(state: State, *, up: bool) -> State:
    longer = [one for one in STEPS_S if one > state.interval_s]
    shorter = [one for one in STEPS_S if one < state.interval_s]
    found = (longer or [state.interval_s])[0] if up else (shorter or [state.interval_s])[-1]
    return structs.replace(state, interval_s=found, message=f"every {found:g} s")


ALWAYS: dict[str, Callable[[State], State]] = {
    QUIT: _over,
    STOP: lambda state: structs.replace(state, wish="shell"),
    REDRAW: lambda state: structs.replace(state, wish="redraw"),
}
"""What keys do even while a line is being typed."""

COMMON: dict[str, Callable[[State], State]] = {
    "q": _over,
    "?": _help,
    "h": _help,
    F1: _help,
    "Z": lambda state: structs.replace(state, is_frozen=not state.is_frozen),
    "r": lambda state: structs.replace(state, wish="refresh"),
    "w": lambda state: structs.replace(state, wish="save"),
    "t": lambda state: _look(state, is_local=not state.view.is_local),
    "+": lambda state: _step(state, up=True),
    "-": lambda state: _step(state, up=False),
    "d": lambda state: structs.replace(state, dialog=Line("interval")),
    "!": lambda state: structs.replace(state, wish=Subject("trouble", "")),
}
"""What keys do on panes and pages."""


def _on_board(state: State, key: str, board: Board) -> State:
    view = state.view
    if act := ARRANGE.get(key):
        return act(state)
    if key in TABS:
        return _look(state, pane=_next(view.pane, board, TABS[key]))
    pane = board.get(view.pane)
    return _on_pane(state, key, pane) if pane else state


def _on_pane(state: State, key: str, pane: Pane) -> State:
    view = state.view
    if key == "/":
        return structs.replace(state, dialog=Line("filter", view.filters.get(view.pane, "")))
    if key in {"s", F6}:
        return structs.replace(state, dialog=Menu(tuple(one.title for one in pane.columns)))
    if key == "S":
        title, is_reversed = view.sorts.get(view.pane, Sort(pane.columns[0].title))
        return _look(state, sorts=view.sorts | {view.pane: Sort(title, not is_reversed)})
    return _on_row(state, key, pane) if pane.items else state


def _to_pane(name: str) -> Callable[[State], State]:
    return lambda state: _look(state, pane=name)


def _plain(state: State) -> State:
    return _look(state, filters={}, is_faults=False, marks=frozenset(), is_alone=False)


ARRANGE: dict[str, Callable[[State], State]] = {
    ESC: _plain,
    "f": lambda state: _look(state, is_faults=not state.view.is_faults),
    "o": lambda state: _look(state, is_alone=not state.view.is_alone),
    "H": lambda state: _look(state, is_by_host=not state.view.is_by_host, pane="workers"),
    "U": lambda state: _look(state, marks=frozenset()),
    **{key: _to_pane(name) for key, name in PANES.items()},
}
"""What keys do to the arrangement of the panes."""


def _next(name: str, board: Board, step: int) -> str:
    names = [one for one, pane in board.items() if pane.items or one == name] or [name]
    at = names.index(name) if name in names else -1
    return names[(at + step) % len(names)]


def _on_row(state: State, key: str, pane: Pane) -> State:
    view, at = state.view, cursor(pane, state.view)
    chosen = subject(pane, pane.items[at])
    if key in MOVES or key == SPACE:
        to = min(max(0, at + MOVES.get(key, 1)), len(pane.items) - 1)
        marks = view.marks ^ {chosen} if key == SPACE else view.marks
        return _look(state, at=view.at | {pane.name: pane.key(pane.items[to])}, marks=marks)
    here = _look(state, at=view.at | {pane.name: pane.key(pane.items[at])})
    if key == ENTER:
        return structs.replace(here, wish=chosen)
    if key in {LEFT, RIGHT} and pane.name == "workers":
        return _fold(state, pane, at, is_open=key == RIGHT)
    if key in ACTS:
        marked = tuple(sorted(one for one in view.marks if one.pane == pane.name))
        return _order(here, key, pane.name, marked or (chosen,))
    return state


def _fold(state: State, pane: Pane, at: int, *, is_open: bool) -> State:
    item = pane.items[at]
    host = item.host or "?"
    hosts = state.view.open_hosts
    moved = state.view.at | {pane.name: HOST + host} if not is_open else state.view.at
    return _look(state, open_hosts=hosts | {host} if is_open else hosts - {host}, at=moved)


def _order(state: State, key: str, pane: str, subjects: tuple[Subject, ...]) -> State:
    verb = ACTS[key].get(pane)
    if state.is_readonly:
        return structs.replace(state, message="read-only: nothing can be changed from here")
    if verb is None:
        return structs.replace(state, message=f"{key} does nothing here; ? tells what it is for")
    return structs.replace(state, wish=Order(verb, subjects), message="counting…")


def _on_page(state: State, key: str) -> State:
    page = state.pages[-1]
    if key in {ESC, LEFT, ERASE}:
        return structs.replace(state, pages=state.pages[:-1])
    if key in MOVES:
        at = min(max(0, page.at + MOVES[key]), max(0, len(page.lines) - 1))
        return structs.replace(state, pages=(*state.pages[:-1], structs.replace(page, at=at)))
    if key == ENTER and page.lines and (linked := page.lines[page.at].subject):
        return structs.replace(state, wish=linked)
    if key in ACTS:
        return _order(state, key, page.subject.pane, (page.subject,))
    return state


def _type(state: State, line: Line, key: str) -> State:
    """Take a key of a line that is being typed; a filter holds while it is."""
    if line.what == "answer" and line.question and line.question.count == 1:
        yes = key in {"y", "Y"}
        wish, message = (line.question, "working…") if yes else (None, "nothing was done")
        return structs.replace(state, dialog=None, wish=wish, message=message)
    if key == ESC or (line.what == "answer" and len(key) == 1 and key.isalpha()):
        told = "" if line.what == "filter" else "nothing was done"
        return _filtered(structs.replace(state, dialog=None, message=told), line, "")
    if key == ENTER:
        return _typed(structs.replace(state, dialog=None), line)
    text = line.text[:-1] if key == ERASE else "" if key == WIPE else line.text
    if len(key) == 1 and key.isprintable():
        text = (text + key)[:MAX_TYPED]
    return _filtered(structs.replace(state, dialog=structs.replace(line, text=text)), line, text)


def _filtered(state: State, line: Line, text: str) -> State:
    if line.what != "filter":
        return state
    filters = {name: one for name, one in state.view.filters.items() if name != state.view.pane}
    return _look(state, filters=filters | ({state.view.pane: text} if text.strip() else {}))


def _typed(state: State, line: Line) -> State:
    if line.what == "interval":
        try:
            interval_s = float(line.text)
        except ValueError:
            interval_s = math.nan
        if not math.isfinite(interval_s):
            return structs.replace(state, message=f"{line.text!r} is no number of seconds")
        interval_s = min(max(STEPS_S[0], interval_s), STEPS_S[-1])
        return structs.replace(state, interval_s=interval_s, message=f"every {interval_s:g} s")
    if line.what == "answer" and line.question:
        if line.text.strip() == str(line.question.count):
            return structs.replace(state, wish=line.question, message="working…")
        said = f"{line.text!r} is not {line.question.count}: nothing was done"
        return structs.replace(state, message=said)
    return state


def _choose(state: State, menu: Menu, key: str) -> State:
    state = structs.replace(state, dialog=None)
    at = LETTERS.find(key) if len(key) == 1 else -1
    if 0 <= at < len(menu.titles):
        view: View = state.view
        return _look(state, sorts=view.sorts | {view.pane: Sort(menu.titles[at])})
    return state
