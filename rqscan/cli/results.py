"""`rqscan results`: the rows of a scan, streamed from the store to stdout."""

from collections.abc import Iterator
from datetime import datetime
from itertools import islice
from typing import Any

import click
from msgspec.structs import asdict

from rqscan.cli import repository, show
from rqscan.cli.group import Command, read_age
from rqscan.clock import from_iso, now
from rqscan.model import Row

__all__ = ["print_rows", "results"]

TABLE_ROWS = 1_000  # a table is held in memory to be aligned, and nobody reads more


def _since(_ctx: click.Context, _param: click.Parameter, text: str | None) -> datetime | None:
    try:
        if text and (ago := read_age(text)) is not None:
            return now() - ago
        return from_iso(text) if text else None
    except (ValueError, OverflowError):
        raise click.BadParameter(f"expected an ISO time or 10m, 2h, 1d, got: {text!r}") from None


@click.command(cls=Command)
@click.argument("scan", required=False)
@click.option("--host", help="Only this address.")
@click.option("--port", type=click.IntRange(0, 65535), help="Only this port.")
@click.option("--kind", help="Only what this kind saw.")
@click.option("--since", callback=_since, help="Only what was seen since: ISO time, 10m, 2h, 1d.")
@click.option("--coverage", is_flag=True, help="Also count what was looked at and is not open.")
@click.option("-n", "limit", type=click.IntRange(min=1), help="At most N rows.")
@click.option("--json", "form", flag_value="json", help="Print one JSON array.")
@click.option("--format", "form", type=click.Choice(["table", "json", "jsonl", "csv"]))
def results(scan: str | None, limit: int | None, form: str | None, **only: Any) -> None:
    """Show what a scan has found; without SCAN, the newest scan.

    A table ends after 1,000 rows; the other formats give all of them.
    """
    with repository() as store:
        known = store.scan(scan) if scan else store.latest_scan()
        found = store.rows(known.scan_id, limit=limit, **only) if known else iter(())
        if form == "json":
            show.print_json_array(map(asdict, found))
        elif form == "jsonl":
            show.print_json_lines(map(asdict, found))
        elif form == "csv":
            show.print_csv(Row.__struct_fields__, map(asdict, found))
        else:
            print_rows(found, limit or TABLE_ROWS)


def print_rows(rows: Iterator[Row], limit: int = TABLE_ROWS) -> None:
    """Print rows for people, and say on stderr when there are more than the limit."""
    columns = ["host", "port", "proto", "state", "kind", "data", "observed_at"]
    show.print_table(columns, map(asdict, islice(rows, limit)))
    if next(rows, None):
        click.echo(f"these are the first {limit:,} rows; -n N or --format gives more", err=True)
