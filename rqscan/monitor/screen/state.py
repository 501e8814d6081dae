"""State: what the user has chosen, and what is wished of those who know Redis; frozen data."""

from typing import Literal, NamedTuple

from msgspec import Struct

__all__ = [
    "ACTS", "Here", "Line", "Menu", "Order", "Page", "PageLine", "Question", "Sort",
    "State", "Subject", "Verb", "View", "Wish",
]  # fmt: skip

Verb = Literal["requeue", "delete", "stop-job", "stop", "pause", "resume", "empty", "cancel"]


class Subject(NamedTuple):
    """What a row or a line stands for: one of a pane, a host, or a job."""

    pane: str
    name: str


class Order(Struct, frozen=True):
    """What is to be done to what; `jobs` by their queues, once it is known which are meant."""

    verb: Verb
    subjects: tuple[Subject, ...] = ()
    jobs: dict[str, list[str]] = {}


class Question(Struct, frozen=True):
    """What an order would do to how many, to be answered before it is carried out."""

    order: Order
    count: int
    text: str


class PageLine(NamedTuple):
    """A line of a page, and what it opens."""

    text: str
    subject: Subject | None = None


class Page(Struct, frozen=True):
    """What is known of one subject, from top to bottom."""

    subject: Subject
    title: str
    lines: tuple[PageLine, ...]
    at: int = 0  # the line under the cursor
    is_failed: bool = False  # of a job: it can be requeued and deleted
    is_running: bool = False  # of a job: it can be stopped


class Line(Struct, frozen=True):
    """A line that is being typed."""

    what: Literal["filter", "interval", "answer"]
    text: str = ""
    question: Question | None = None


class Menu(Struct, frozen=True):
    """Columns to choose one from, by letters."""

    titles: tuple[str, ...]


class Sort(NamedTuple):
    """By which column a pane is sorted."""

    title: str
    is_reversed: bool = False


class View(Struct, frozen=True):
    """How the panes are arranged; each mapping is by a pane's name."""

    pane: str = "queues"
    at: dict[str, str] = {}  # name of the row under the cursor
    sorts: dict[str, Sort] = {}
    filters: dict[str, str] = {}
    marks: frozenset[Subject] = frozenset()
    is_faults: bool = False
    is_alone: bool = False  # the pane has the whole screen
    is_by_host: bool = False
    open_hosts: frozenset[str] = frozenset()
    is_local: bool = False  # times in this host's zone


Here = Literal["refresh", "save", "redraw", "shell"]
Wish = Here | Subject | Order | Question
"""What the loop is to do: open a subject, count what an order means, carry an answered one out."""


class State(Struct, frozen=True):
    """What the user has chosen."""

    view: View = View()
    interval_s: float = 2.0
    is_over: bool = False
    is_frozen: bool = False
    is_readonly: bool = False
    is_help: bool = False
    pages: tuple[Page, ...] = ()  # the last one is on the screen
    dialog: Line | Menu | None = None
    message: str = ""
    wish: Wish | None = None


ACTS: dict[str, dict[str, Verb]] = {
    "R": {"failed": "requeue", "job": "requeue"},
    "D": {"failed": "delete", "job": "delete"},
    "X": {"workers": "stop-job", "job": "stop-job", "scans": "cancel"},
    "W": {"workers": "stop"},
    "P": {"queues": "pause"},
    "E": {"queues": "empty"},
}
"""Keys that do something: what, to what. Capitals, so that no slip does."""
