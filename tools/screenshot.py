"""Draws docs/top.svg, the README's picture: `rqscan top` before a live fleet with faults."""

import re
import socket
import sys
import time
from io import StringIO
from itertools import count, groupby
from pathlib import Path
from typing import Any

import pyte
from rich._export_format import CONSOLE_SVG_FORMAT
from rich.console import Console
from rich.style import Style
from rich.text import Text

from tests.servers import wait_for
from tests.terminal import Terminal
from tests.troubled import TroubledFleet, troubled_fleet

PICTURE = Path(__file__).resolve().parent.parent / "docs/top.svg"
COLUMNS, LINES = 140, 40
WORK_S = 60
"""The fleet works for so long before the picture, so that the last minute's rates are whole."""

LOST_S = 9
"""A worker that is silent for so long is lost."""

DIM, BLINK = 2, 5
MOST_BYTES = 150_000
FONTS = "ui-monospace, SFMono-Regular, Menlo, Consolas, 'DejaVu Sans Mono', monospace"


class Screen(pyte.Screen):
    """An emulator that has dim text blink, because pyte knows no dim."""

    def select_graphic_rendition(self, *codes: int, **more: Any) -> None:
        """Set how the text that follows looks."""
        colour = next((at for at, code in enumerate(codes) if code in {38, 48}), len(codes))
        looks = [BLINK if code == DIM else code for code in codes[:colour]]
        super().select_graphic_rendition(*looks, *codes[colour:], **more)


def watch(fleet: TroubledFleet) -> Screen:
    """Give the monitor's screen after a minute, with all that went wrong."""
    env = fleet.env | {"TERM": "xterm-256color", "LANG": "C.UTF-8"}
    terminal = Terminal([fleet.python, "-m", "rqscan", "top", "-i", "1"], env, COLUMNS, LINES)
    try:
        until = time.monotonic() + WORK_S
        wait_for(lambda: terminal.lines() and time.monotonic() > until, WORK_S + 10)
        fleet.break_down()
        until = time.monotonic() + LOST_S
        wait_for(lambda: terminal.lines() and time.monotonic() > until, LOST_S + 10)
    finally:
        terminal.close()
    screen = Screen(COLUMNS, LINES)
    pyte.ByteStream(screen).feed(terminal.raw)
    return screen


def texts(screen: Screen) -> list[Text]:
    """Give the lines of a screen; each word is a text of its own.

    Viewers drop blanks, and have fonts of other widths: a word begins where it should all the same.
    """
    lines = []
    for y in range(LINES):
        line, words = Text(), count()
        cells = [screen.buffer[y][x] for x in range(COLUMNS)]
        for (looks, _), same in groupby(cells, lambda one: (one[1:], one.data == " ")):
            fg, bg, is_bold, _, is_underlined, _, is_reverse, is_dim = looks
            style = Style(
                color=colour(fg), bgcolor=colour(bg), bold=is_bold, dim=is_dim,
                reverse=is_reverse, underline=is_underlined, meta={"word": next(words)},
            )  # fmt: skip
            line.append("".join(one.data for one in same), style)
        lines.append(line)
    return lines


def colour(name: str) -> str | None:
    """Give rich's name of a colour of pyte's."""
    if re.fullmatch("[0-9a-f]{6}", name):
        return f"#{name}"
    name = name.replace("brown", "yellow").replace("bright", "bright_")
    return None if name == "default" else name


def draw(lines: list[Text]) -> str:
    """Draw a screen as SVG that loads nothing from elsewhere, not even its font."""
    console = Console(
        record=True, width=COLUMNS, file=StringIO(), force_terminal=True, color_system="truecolor",
        legacy_windows=False, highlight=False,
    )  # fmt: skip
    for line in lines:
        console.print(line, no_wrap=True, overflow="crop", crop=True)
    form = re.sub(r"@font-face \{\{.*?\}\}|<!--.*?-->", "", CONSOLE_SVG_FORMAT, flags=re.DOTALL)
    form = form.replace("Fira Code, monospace", FONTS)
    return console.export_svg(
        title="rqscan top", code_format=form, font_aspect_ratio=0.6, unique_id="top"
    )


def check(picture: str, fleet: TroubledFleet) -> None:
    """Refuse a picture that tells of this machine, loads something, or is too large.

    Raises:
        SystemExit: it does; nothing was written.
    """
    told = [socket.gethostname(), str(Path.home()), str(PICTURE.parents[1]), str(fleet.folder)]
    links = set(re.findall(r"https?://[^\s\"')]+", picture)) - {"http://www.w3.org/2000/svg"}
    if found := [word for word in (*told, *links) if word in picture]:
        sys.exit(f"screenshot: the picture would show {', '.join(found)}; nothing was written")
    if len(picture.encode()) > MOST_BYTES:
        sys.exit(f"screenshot: {len(picture.encode())} bytes, most are {MOST_BYTES}; not written")


def main() -> None:
    """Draw it."""
    with troubled_fleet() as fleet:
        picture = draw(texts(watch(fleet)))
        check(picture, fleet)
    PICTURE.write_text(picture)
    sys.stdout.write(f"{PICTURE.relative_to(Path.cwd())}: {len(picture.encode())} bytes\n")


if __name__ == "__main__":
    main()
