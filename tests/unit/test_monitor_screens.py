"""The screen as it is drawn at several sizes, kept in screens/; and under any keys and sizes.

After a change that is meant: python tests/unit/test_monitor_screens.py
"""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import structs
from rich.cells import cell_len

from rqscan.monitor import trouble
from rqscan.monitor.records import Server, Snapshot
from rqscan.monitor.screen.board import arrange
from rqscan.monitor.screen.fit import Watch, screen
from rqscan.monitor.screen.keys import press
from rqscan.monitor.screen.state import Line, Order, Page, PageLine, Question, State, Subject
from rqscan.monitor.screen.strokes import split
from tests.shots import AT, troubled

FOLDER = Path(__file__).parent / "screens"
SHOT = troubled()
QUESTION = Question(Order("requeue"), 31, "requeue 31 failed jobs of scan.fast: each is put back")
TRACEBACK = tuple(PageLine(f"  File 'x.py', line {n}, in f{n}" * (n % 4)) for n in range(40))
PAGE = Page(Subject("job", "nightly-1-1"), "job nightly-1-1", TRACEBACK)
STATES = {
    "calm": State(),
    "hosts": State(view=structs.replace(State().view, is_by_host=True, pane="workers")),
    "faults": State(view=structs.replace(State().view, is_faults=True, pane="failed")),
    "question": State(dialog=Line("answer", "3", QUESTION)),
    "page": State(pages=(structs.replace(PAGE, at=3),)),
    "help": State(is_help=True),
    "frozen": State(is_frozen=True),
    "away": State(message="Redis is away: nothing can be changed now"),
}
SHOWN = [
    *((size, "calm") for size in ("40x8", "60x15", "80x24", "140x45", "200x60")),
    *(("80x24", name) for name in STATES if name != "calm"),
]


def drawn(size: str, name: str, *, is_ascii: bool = False) -> str:
    width, height = map(int, size.split("x"))
    state, watch, shot = STATES[name], Watch(where="10.0.0.5:6379/0", interval_s=2.0), SHOT
    if name == "away":
        shot = trouble.away(SHOT, "cannot use Redis: Connection refused")
        watch = Watch(12.4, 0.6, "10.0.0.5:6379/0", 2.0)
    board = arrange(shot, state.view)
    lines = screen(shot, (width, height), state, watch, board, is_ascii=is_ascii)
    return "".join(f"{line.plain.rstrip()}\n" for line in lines)


def kept(size: str, name: str) -> Path:
    return FOLDER / f"{size}-{name}.txt"


@pytest.mark.parametrize(("size", "name"), SHOWN)
def test_the_screen_is_as_it_was_last_looked_at(size, name) -> None:
    assert drawn(size, name) == kept(size, name).read_text("utf-8")


@pytest.mark.parametrize(("size", "name"), SHOWN)
def test_ascii_is_ascii_everywhere(size, name) -> None:
    assert drawn(size, name, is_ascii=True).isascii()


KEYS = st.sampled_from([
    *"jkgGhHfFoOsSabcxzZ123456 !?/drtwU+-RDXWPEy", "\t", "\x1b[Z", "\r", "\x1b", "\x7f", "\x15",
    "\x0c", "\x1a", "\x1b[A", "\x1b[B", "\x1b[C", "\x1b[D", "\x1b[5~", "\x1b[6~", "\x1b[H", "31",
    "é",
])  # fmt: skip
SIZES = st.integers(1, 220), st.integers(1, 70)
SHOTS = [
    SHOT,
    Snapshot(at=AT, redis=Server(up=True, version=None, rtt_ms=0.0)),
    trouble.away(SHOT, "refused"),
    structs.replace(SHOT, workers=SHOT.workers[:1], queues=[], trouble=SHOT.trouble * 20),
]


@settings(max_examples=300, deadline=None)
@given(st.lists(st.tuples(KEYS, *SIZES, st.sampled_from(SHOTS))))
def test_no_key_at_any_size_breaks_the_screen(steps) -> None:
    state = State()
    for typed, width, height, shot in steps:
        for key in split(typed.encode()):
            state = press(state, key, arrange(shot, state.view))
        state = fulfilled(state)
        board = arrange(shot, state.view)
        lines = screen(shot, (width, height), state, Watch(), board)
        assert len(lines) == height
        assert all(cell_len(line.plain) <= width for line in lines)
        assert all(line.plain.isprintable() for line in lines)


def fulfilled(state: State) -> State:
    """Do for a state what the loop does, as far as no Redis is needed for it."""
    wish = state.wish
    if isinstance(wish, Subject):
        state = structs.replace(state, pages=(*state.pages, structs.replace(PAGE, subject=wish)))
    elif isinstance(wish, Order):
        question = structs.replace(QUESTION, order=wish)
        state = structs.replace(state, dialog=Line("answer", question=question))
    return structs.replace(state, wish=None)


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for size, name in SHOWN:
        kept(size, name).write_text(drawn(size, name), "utf-8")
