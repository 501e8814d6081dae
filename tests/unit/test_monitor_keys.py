"""Keys as tables: what was chosen before, the keys, and what is chosen or wished after them."""

import pytest
from msgspec import structs

from rqscan.monitor.screen.board import arrange
from rqscan.monitor.screen.keys import press
from rqscan.monitor.screen.state import (
    ACTS,
    Line,
    Menu,
    Order,
    Page,
    PageLine,
    Question,
    Sort,
    State,
    Subject,
    View,
)
from rqscan.monitor.screen.strokes import split
from tests.shots import troubled

SHOT = troubled()
CALM = State()
ORDER = Order("requeue", (Subject("failed", "00000001"),), jobs={"fast": ["a"]})
ONE, MANY = Question(ORDER, 1, "requeue 1"), Question(ORDER, 31, "requeue 31")
JOB = Page(Subject("job", "j1"), "job j1", (PageLine("a"), PageLine("b", Subject("job", "j2"))))
UP, DOWN = "\x1b[A", "\x1b[B"


def after(keys: str, state: State = CALM) -> State:
    for key in split(keys.encode()):
        state = press(state, key, arrange(SHOT, state.view))
    return state


def viewed(**changes) -> View:
    return structs.replace(View(), **changes)


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ("q", State(is_over=True)),
        ("\x03", State(is_over=True)),
        ("/\x03", State(is_over=True, dialog=Line("filter"))),
        ("Z", State(is_frozen=True)),
        ("ZZ", CALM),
        ("r", State(wish="refresh")),
        ("w", State(wish="save")),
        ("\x0c", State(wish="redraw")),
        ("\x1a", State(wish="shell")),
        ("!", State(wish=Subject("trouble", ""))),
        ("?", State(is_help=True)),
        ("\x1bOP", State(is_help=True)),
        ("?q", CALM),  # any key closes the help
        ("x\x1b", CALM),  # Escape never quits
        ("é", CALM),
        ("t", State(view=viewed(is_local=True))),
        ("f", State(view=viewed(is_faults=True))),
        ("f\x1b", CALM),
        ("o", State(view=viewed(is_alone=True))),
        ("H", State(view=viewed(is_by_host=True, pane="workers"))),
        ("3", State(view=viewed(pane="failed"))),
        ("\t", State(view=viewed(pane="workers"))),
        ("\x1b[Z", State(view=viewed(pane="waits"))),
        ("\t\t\t\t\t\t", CALM),  # six panes have something to show
    ],
)
def test_keys_change_the_state(keys, expected) -> None:
    assert after(keys) == expected


@pytest.mark.parametrize(
    ("keys", "row"),
    [
        ("j", "scan.deep"), (DOWN, "scan.deep"), ("jk", "scan.fast"), ("\x1bOB" + UP, "scan.fast"),
        ("kkk", "scan.fast"), ("jjjjj", "report"), ("G", "report"), ("Gg", "scan.fast"),
        ("\x1b[6~", "report"), ("\x1b[6~\x1b[5~", "scan.fast"), ("\x1b[F\x1b[H", "scan.fast"),
    ],
)  # fmt: skip
def test_the_cursor_moves_and_stays_on_the_screen(keys, row) -> None:
    assert after(keys).view.at == {"queues": row}


def test_the_cursor_follows_the_name_of_its_row() -> None:
    state = after("j")
    fewer = structs.replace(SHOT, queues=SHOT.queues[1:])
    board = arrange(fewer, state.view)
    assert press(state, "\r", board).wish == Subject("queues", "scan.deep")


@pytest.mark.parametrize(
    ("keys", "wish"),
    [
        ("\r", Subject("queues", "scan.fast")),
        ("2\r", Subject("workers", "db02.1")),
        ("H\r", Subject("host", "db02")),
        ("5\n", Subject("scans", "nightly-20261201T020000Z")),
        ("3R", Order("requeue", (Subject("failed", "00000001"),))),
        ("3jD", Order("delete", (Subject("failed", "00000002"),))),
        ("2 jU  W", Order("stop", (Subject("workers", "old.1"), Subject("workers", "web03.1")))),
        ("2X", Order("stop-job", (Subject("workers", "db02.1"),))),
        ("2W", Order("stop", (Subject("workers", "db02.1"),))),
        ("P", Order("pause", (Subject("queues", "scan.fast"),))),
        (" P", Order("pause", (Subject("queues", "scan.fast"),))),
        ("E", Order("empty", (Subject("queues", "scan.fast"),))),
        ("5X", Order("cancel", (Subject("scans", "nightly-20261201T020000Z"),))),
    ],
)  # fmt: skip
def test_what_is_wished_of_others(keys, wish) -> None:
    assert after(keys).wish == wish


@pytest.mark.parametrize("key", ACTS)
@pytest.mark.parametrize("pane", "123456")
def test_a_readonly_view_changes_nothing(pane, key) -> None:
    state = after(pane + key, State(is_readonly=True))
    assert state.wish is None
    assert state.message.startswith("read-only")


def test_an_action_that_a_pane_does_not_have_says_so() -> None:
    state = after("1R")
    assert (state.wish, state.message) == (None, "R does nothing here; ? tells what it is for")


@pytest.mark.parametrize(
    ("question", "keys", "wish", "message"),
    [
        (ONE, "y", ONE, "working…"),
        (ONE, "Y", ONE, "working…"),
        (ONE, "n", None, "nothing was done"),
        (ONE, "\x1b", None, "nothing was done"),
        (ONE, "\r", None, "nothing was done"),
        (MANY, "31\r", MANY, "working…"),
        (MANY, "32\x7f1\r", MANY, "working…"),
        (MANY, "y", None, "nothing was done"),
        (MANY, "3n", None, "nothing was done"),
        (MANY, "\r", None, "'' is not 31: nothing was done"),
        (MANY, "3\r", None, "'3' is not 31: nothing was done"),
        (MANY, "31\x1b", None, "nothing was done"),
    ],
)
def test_what_was_asked_is_done_for_the_right_answer_alone(question, keys, wish, message) -> None:
    state = after(keys, State(dialog=Line("answer", question=question)))
    assert (state.wish, state.message, state.dialog) == (wish, message, None)


def test_a_filter_holds_while_it_is_typed_and_escape_drops_it() -> None:
    typing = after("2/busy")
    assert typing.view.filters == {"workers": "busy"}
    assert after("\r", typing).view.filters == {"workers": "busy"}
    assert after("\x7f\x7f\x7f\x7f\r", typing).view.filters == {}
    assert after("\x15host:web\r", typing).view.filters == {"workers": "host:web"}
    assert after("\x1b", typing) == State(view=viewed(pane="workers"))
    assert after("q", typing).view.filters == {"workers": "busyq"}  # a letter as any other


@pytest.mark.parametrize(
    ("keys", "interval_s"),
    [("+", 5.0), ("++", 10.0), ("-", 1.0), ("-----", 0.5), ("+++++++", 60.0), ("d7\r", 7.0),
     ("d0\r", 0.5), ("d9999\r", 60.0), ("dnan\r", 2.0), ("dx\r", 2.0), ("d7\x1b", 2.0)],
)  # fmt: skip
def test_the_interval(keys, interval_s) -> None:
    assert after(keys).interval_s == interval_s


def test_sorting_by_a_menu_and_back() -> None:
    menu = after("s")
    assert isinstance(menu.dialog, Menu)
    assert menu.dialog.titles[:2] == ("QUEUE", "WAIT")
    assert after("b", menu).view.sorts == {"queues": Sort("WAIT")}
    assert after("bSS", menu).view.sorts == {"queues": Sort("WAIT", is_reversed=False)}
    assert after("bS", menu).view.sorts == {"queues": Sort("WAIT", is_reversed=True)}
    assert after("\x1b", menu) == CALM
    assert after("zz", menu) == CALM


def test_hosts_fold_and_open() -> None:
    opened = after("H" + "\x1b[C")
    assert opened.view.open_hosts == {"db02"}
    member = after("j", opened)
    assert member.view.at == {"workers": "db02.1"}
    folded = after("\x1b[D", member)
    assert (folded.view.open_hosts, folded.view.at) == (frozenset(), {"workers": "host db02"})


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ("j", State(pages=(structs.replace(JOB, at=1),))),
        ("kk", State(pages=(JOB,))),
        ("\x1b", CALM),
        ("\x7f", CALM),
        ("j\r", State(pages=(structs.replace(JOB, at=1),), wish=Subject("job", "j2"))),
        ("\r", State(pages=(JOB,))),
        ("q", State(pages=(JOB,), is_over=True)),
    ],
)
def test_a_page_is_read_and_left(keys, expected) -> None:
    assert after(keys, State(pages=(JOB,))) == expected


def test_a_job_s_page_offers_what_can_be_done_to_it() -> None:
    for key, verb in {"R": "requeue", "D": "delete", "X": "stop-job"}.items():
        assert after(key, State(pages=(JOB,))).wish == Order(verb, (Subject("job", "j1"),))


def test_keys_are_split_as_terminals_send_them() -> None:
    assert split(b"q\x1b[A\x1bOA\x1b[15~\x1bOPz\x03\n\x08") == [
        "q", UP, UP, "\x1b[15~", "\x1bOP", "z", "\x03", "\r", "\x7f",
    ]  # fmt: skip
    assert split(b"\xff") == ["�"]
