"""Pages: what lies over the panes (help, a page on one subject, a menu), and the footer."""

import textwrap

from rich.cells import cell_len, chop_cells

from rqscan.monitor.screen.keys import LETTERS
from rqscan.monitor.screen.state import ACTS, Line, Menu, Page, State, Verb
from rqscan.monitor.screen.table import HEAD, WARN, joined
from rqscan.monitor.screen.table import Line as Shown

__all__ = ["footer", "overlay"]

HELP = (
    "q ^C quit   Esc back, clears filters and marks   ? h F1 this help",
    "j k arrows PgUp PgDn g G   move the cursor",
    "Tab 1-6   pane: 1 queues 2 workers 3 failed 4 schedule 5 scans 6 waits",
    "Enter   open what is under the cursor; o   this pane alone   !   all trouble",
    "/ filter: word, !word not, column:word (state:busy host:web)",
    "s F6 sort, S reverse   f faults only   H by host (left, right fold)",
    "Z freeze   r refresh   + - d interval   t local time   ^L redraw",
    "w save the screen's text and the snapshot's JSON   ^Z shell",
)
DOES = (
    "Space mark, U unmark. These ask first:",
    "R requeue   D delete (failed jobs)   E empty   P pause or resume (queue)",
    "X stop a worker's jobs, cancel a scan   W stop a worker once its jobs end",
)
BRIEF = (
    "q quit", "? keys", "Enter open", "Tab pane", "/ filter", "s sort", "f faults", "! trouble",
    "Z freeze", "w save",
)  # fmt: skip
ON_PAGE = ("q quit", "Esc back", "Enter open", "j k move")
WORDS = {
    "requeue": "R requeue", "delete": "D delete", "stop-job": "X stop job", "cancel": "X cancel",
    "stop": "W stop", "pause": "P pause", "empty": "E empty",
}  # fmt: skip


def overlay(state: State, width: int, room: int) -> list[Shown]:
    """Give what lies over the panes; nothing if nothing does."""
    if isinstance(state.dialog, Menu):
        return _menu(state.dialog, state.view.pane, width)
    if state.is_help:
        lines = HELP if state.is_readonly else (*HELP, *DOES)
        return [[(part, "")] for line in lines for part in _wrapped(line, width)][:room]
    return _page(state.pages[-1], width, room) if state.pages else []


def _wrapped(text: str, width: int) -> list[str]:
    """Cut a line between words; where characters are wide, anywhere."""
    width = max(1, width)
    if cell_len(text) <= width:
        return [text]
    if cell_len(text) > len(text):
        return chop_cells(text, width)
    return textwrap.wrap(text, width, drop_whitespace=False, replace_whitespace=False)


def _page(page: Page, width: int, room: int) -> list[Shown]:
    rows = [
        (i, part, bool(line.subject))
        for i, line in enumerate(page.lines)
        for part in _wrapped(line.text, width - 2)
    ]
    here = next((row for row, (i, _, _) in enumerate(rows) if i == page.at), 0)
    last = max((row for row, (i, _, _) in enumerate(rows) if i == page.at), default=0)
    most = max(1, room - 1)
    first = here // most * most
    if last >= first + most and here > first:  # a line that does not end on this part begins one
        first = here
    note = (
        f"  ({first + 1}-{min(first + most, len(rows))} of {len(rows)})" if len(rows) > most else ""
    )
    lines: list[Shown] = [[(page.title, HEAD), (note, "dim")]]
    for row, (i, part, is_link) in enumerate(rows[first : first + most], first):
        sign = "> " if row == max(here, first) and i == page.at else "  "
        lines.append([(sign, HEAD), (part, "underline" if is_link else "")])
    return lines


def _menu(menu: Menu, pane: str, width: int) -> list[Shown]:
    lines: list[Shown] = [[(f"sort {pane} by", HEAD)]]
    line = ""
    for letter, title in zip(LETTERS, menu.titles, strict=False):
        part = f"{letter} {title}"
        if line and cell_len(line) + cell_len(part) + 3 > width:
            lines.append([(line, "")])
            line = ""
        line += f"{part}   "
    return [*lines, [(line, "")]]


def footer(state: State, width: int) -> Shown:
    """Give the last line: what is asked or typed, what was said, or the keys."""
    if isinstance(state.dialog, Line):
        return _asked(state.dialog, state.view.pane, width)
    if isinstance(state.dialog, Menu):
        return [("a letter chooses, any other key closes", "dim")]
    if state.message:
        return [(state.message, WARN)]
    if state.is_help:
        return [("any key closes", "dim")]
    brief = ON_PAGE if state.pages else BRIEF
    name = state.pages[-1].subject.pane if state.pages else state.view.pane
    verbs = [] if state.is_readonly else [each[name] for each in ACTS.values() if name in each]
    if state.pages and name == "job":
        verbs = [verb for verb in verbs if _is_open(state.pages[-1], verb)]
    return [(joined([*brief[:3], *map(WORDS.__getitem__, verbs), *brief[3:]], width), "dim")]


def _is_open(page: Page, verb: Verb) -> bool:
    return page.is_running if verb == "stop-job" else page.is_failed


def _asked(line: Line, pane: str, width: int) -> Shown:
    if line.what == "filter":
        return [(f"filter {pane}: ", HEAD), (f"{line.text}_", "")]
    if line.what == "interval":
        return [("seconds between refreshes: ", HEAD), (f"{line.text}_", "")]
    assert line.question is not None
    count = line.question.count
    how = "; y: yes, n: no" if count == 1 else f"; type {count} and Enter, n: no: {line.text}_"
    text = line.question.text
    if cell_len(text) + len(how) > width:  # what is to be typed must be seen
        text = text[: max(0, width - len(how) - 1)] + "…"
    return [(text, HEAD), (how, WARN)]
