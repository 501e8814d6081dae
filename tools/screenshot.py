"""Draws docs/top.svg, the README's picture: `rqscan top` before a live fleet with faults."""

import os
import re
import socket
import sys
import time
from io import StringIO
from pathlib import Path

from rich._export_format import CONSOLE_SVG_FORMAT
from rich.console import Console
from rich.style import Style
from rich.text import Text

from rqscan import config
from rqscan.broker.connect import connect
from rqscan.monitor.fit import fit
from rqscan.monitor.records import Snapshot
from rqscan.monitor.snapshot import reader, take
from tests.servers import wait_for
from tests.troubled import TroubledFleet, troubled_fleet

PICTURE = Path(__file__).resolve().parent.parent / "docs/top.svg"
COLUMNS, LINES = 140, 40
WORK_S = 60
"""The fleet works for so long before the picture, so that the last minute's rates are whole."""

MOST_BYTES = 150_000
FONTS = "ui-monospace, SFMono-Regular, Menlo, Consolas, 'DejaVu Sans Mono', monospace"


def watch(fleet: TroubledFleet) -> Snapshot:
    """Give the fleet as the monitor sees it after a minute, with all that went wrong."""
    os.environ.update({k: v for k, v in fleet.env.items() if k.startswith("RQSCAN_")})
    settings = config.load()
    until = time.monotonic() + WORK_S
    wait_for(lambda: time.monotonic() > until, WORK_S + 10)
    fleet.break_down()
    with reader(connect(settings)) as client:
        lost = len(fleet.workers["web03"] + fleet.workers["db01"])

        def seen() -> Snapshot | None:
            shot = take(client, settings)
            return shot if [one.state for one in shot.workers].count("lost") == lost else None

        found: Snapshot = wait_for(seen, 30, f"{lost} lost workers")
        return found


def draw(lines: list[Text]) -> str:
    """Draw a screen as SVG that loads nothing from elsewhere, not even its font."""
    console = Console(
        record=True, width=COLUMNS, file=StringIO(), force_terminal=True, color_system="truecolor",
        legacy_windows=False, highlight=False,
    )  # fmt: skip
    for line in lines:
        for word in re.finditer(r"\S+", line.plain):
            # a place of its own, since viewers drop blanks and have fonts of other widths
            line.stylize(Style(meta={"word": word.start()}), *word.span())
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
        picture = draw(fit(watch(fleet), COLUMNS, LINES))
        check(picture, fleet)
    PICTURE.write_text(picture)
    sys.stdout.write(f"{PICTURE.relative_to(Path.cwd())}: {len(picture.encode())} bytes\n")


if __name__ == "__main__":
    main()
