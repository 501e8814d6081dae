"""`rqscan top`: the live view; once, as JSON, or as a check for scripts."""

import os
import sys
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

import rich_click as click

from rqscan.cli import settings
from rqscan.cli.group import json_option

if TYPE_CHECKING:
    from rqscan.monitor.app import Take
    from rqscan.monitor.records import Snapshot

__all__ = ["top"]

PLAIN_COLUMNS = 120


@click.command
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
    readonly: bool,  # noqa: ARG001 - there is no action yet, so it is always so
    is_ascii: bool,
) -> int:
    """Watch queues, workers and scans."""
    is_terminal = sys.stdin.isatty() and sys.stdout.isatty()
    is_terminal = is_terminal and os.environ.get("TERM", "dumb") not in {"dumb", "unknown"}
    is_ascii = is_ascii or "utf" not in (sys.stdout.encoding or "").lower()
    if is_terminal and not (once or as_json or check):
        click.echo("rqscan top: connecting", nl=False)  # loading Redis' client takes its time
        try:
            take = _source()
        finally:
            click.echo("\r\x1b[K", nl=False)
        from rqscan.monitor.app import run

        run(take, interval, refreshes, is_ascii=is_ascii)
        return 0
    from rqscan.cli.show import defuse, print_json

    for i, shot in enumerate(_looks(interval, 1 if once else refreshes or 1)):
        if as_json:
            print_json(shot)
        elif check:
            for one in shot.trouble:
                click.echo(defuse(f"{one.what} {one.object}: {one.cause}"))
        else:
            click.echo("\n" * bool(i) + _page(shot, is_ascii))
        sys.stdout.flush()
    if not check:
        return 0
    return 3 if not shot.redis.up else 1 if shot.trouble else 0


def _source() -> "Take":
    from rqscan.broker.connect import connect
    from rqscan.monitor.snapshot import impatient, take

    loaded = settings()
    client = impatient(connect(loaded))
    return lambda before: take(client, loaded, before)


def _looks(interval_s: float, refreshes: int) -> "Iterator[Snapshot]":
    from rqscan.errors import RedisUnavailable
    from rqscan.monitor.trouble import away

    take = _source()
    shot = take(None)
    yield shot
    for _ in range(refreshes - 1):
        time.sleep(interval_s)
        try:
            shot = take(shot)
        except RedisUnavailable as e:
            shot = away(shot, str(e))
        yield shot


def _page(shot: "Snapshot", is_ascii: bool) -> str:
    from shutil import get_terminal_size

    from rqscan.monitor.fit import fit

    lines = fit(shot, get_terminal_size((PLAIN_COLUMNS, 0)).columns, sys.maxsize, is_ascii=is_ascii)
    return "\n".join("".join(text for text, _ in line).rstrip() for line in lines)
