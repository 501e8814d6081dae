"""`rqscan top`: the live view; once, as JSON, or as a check for scripts."""

import os
import sys
import time
from typing import TYPE_CHECKING

import click

from rqscan.cli import settings
from rqscan.cli.group import Command, json_option

if TYPE_CHECKING:
    from collections.abc import Callable

    import redis

    from rqscan.monitor.records import Snapshot
    from rqscan.monitor.screen.app import Look
    from rqscan.monitor.screen.state import Order, Page, Question, Subject
    from rqscan.settings import Settings

__all__ = ["top", "watch"]

PLAIN_COLUMNS = 120
IS_UTF = "utf" in (sys.stdout.encoding or "").lower()


@click.command(cls=Command)
@click.option("--once", is_flag=True, help="Look once and end (the default without a terminal).")
@json_option
@click.option(
    "-n", "refreshes", type=click.IntRange(min=1), metavar="N", help="End after N refreshes."
)
@click.option("-i", "--interval", type=click.FloatRange(0.5, 60), default=2.0, show_default=True,
              metavar="S", help="Seconds between refreshes.")  # fmt: skip
@click.option(
    "--check", is_flag=True, help="Print what is wrong; exit 0 ok, 1 trouble, 3 no Redis."
)
@click.option("--readonly", is_flag=True, help="Offer no action that changes anything.")
@click.option("--ascii", "is_ascii", is_flag=True, help="Use ASCII characters only.")
def top(
    once: bool,
    as_json: bool,
    refreshes: int | None,
    interval: float,
    check: bool,
    readonly: bool,
    is_ascii: bool,
) -> int:
    """Watch queues, workers and scans."""
    is_terminal = sys.stdin.isatty() and sys.stdout.isatty()
    is_terminal = is_terminal and os.environ.get("TERM", "dumb") not in {"dumb", "unknown"}
    if is_terminal and not (once or as_json or check):
        watch(settings, interval, refreshes, is_ascii=is_ascii, is_readonly=readonly)
        return 0
    from rqscan.cli.show import defuse, print_json

    look, shot = _looker(settings(), is_whole=True), None
    for i in range(1 if once else refreshes or 1):
        time.sleep(interval if i else 0)
        shot = look()
        if as_json:
            print_json(shot)
        elif check:
            for one in shot.trouble:
                if one.level != "note":
                    click.echo(defuse(f"{one.what} {one.object}: {one.cause}"))
        else:
            click.echo("\n" * bool(i) + _page(shot, is_ascii or not IS_UTF))
        sys.stdout.flush()
    if not check or not shot:
        return 0
    return 3 if not shot.redis.up else 1 if any(o.level != "note" for o in shot.trouble) else 0


def watch(
    load: "Callable[[], Settings]",
    interval_s: float = 2.0,
    refreshes: int | None = None,
    *,
    is_ascii: bool = False,
    is_readonly: bool = False,
) -> None:
    """Show the live view on this terminal until the user ends it."""
    from rqscan.monitor.screen.terminal import Terminal

    with Terminal() as terminal:
        terminal.clear("rqscan top  connecting to Redis")
        # All that weighs is loaded now that the user sees something.
        from rqscan.monitor.screen.app import run
        from rqscan.monitor.screen.state import State

        state = State(interval_s=interval_s, is_readonly=is_readonly)
        run(terminal, _Fleet(load()), state, refreshes, is_ascii=is_ascii or not IS_UTF)


class _Fleet:
    """The hands of the live view: Redis' library is loaded once the first frame is drawn.

    Looks have a connection of their own, so that none waits for what the user asks.
    """

    def __init__(self, settings: "Settings") -> None:
        self._settings = settings
        self._look: Look | None = None
        self._client: redis.Redis | None = None

    @property
    def where(self) -> str:
        from rqscan.settings import mask_url

        return mask_url(self._settings.redis.url or "embedded")

    def look(self) -> "Snapshot":
        self._look = self._look or _looker(self._settings)
        return self._look()

    def read(self, subject: "Subject", shot: "Snapshot") -> "Page":
        from rqscan.monitor.details import read

        return read(self._connection, subject, shot)

    def ask(self, order: "Order", shot: "Snapshot") -> "Question":
        from rqscan.monitor.actions import ask

        return ask(self._connection(), order, shot)

    def act(self, order: "Order") -> str:
        from rqscan.monitor.actions import act

        return act(self._connection(), self._settings, order)

    def _connection(self) -> "redis.Redis":
        from rqscan.broker.connect import connect

        self._client = self._client or connect(self._settings)
        return self._client


def _looker(settings: "Settings", *, is_whole: bool = False) -> "Look":
    from rqscan.broker.connect import connect
    from rqscan.monitor.snapshot import Lookout

    return Lookout(connect(settings), settings, is_whole=is_whole).look


def _page(shot: "Snapshot", is_ascii: bool) -> str:
    from shutil import get_terminal_size

    from rqscan.monitor.screen.fit import ENDLESS, fit

    width = get_terminal_size((PLAIN_COLUMNS, 0)).columns
    lines = fit(shot, width, ENDLESS, is_ascii=is_ascii)
    return "\n".join(line.plain.rstrip() for line in lines)
