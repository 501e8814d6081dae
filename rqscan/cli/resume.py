"""`rqscan resume`: compare the plan with Redis, and enqueue what is missing."""

import click

from rqscan.broker.connect import connect
from rqscan.cli import settings, tell_former_store
from rqscan.cli.group import Command, json_option
from rqscan.cli.show import print_json
from rqscan.errors import UsageError
from rqscan.scan import resume as resuming
from rqscan.scan.compare import compare

__all__ = ["resume"]


@click.command(cls=Command)
@click.argument("scan", required=False)
@click.option("--all", "is_all", is_flag=True, help="Every scan that has not ended.")
@json_option
def resume(scan: str | None, is_all: bool, as_json: bool) -> None:
    """Run again only what is missing of SCAN, which is also what failed or was cancelled.

    With --all, enqueue of every scan what Redis has lost; what failed or was cancelled stays so.
    """
    if (scan is None) is not is_all:
        raise UsageError("name one SCAN, or --all")
    found = settings()
    client = connect(found)
    done = compare(found, client) if scan is None else resuming.resume(found, client, scan)
    tell_former_store(done.former_store)
    if as_json:
        print_json({"scans": done.scans, "enqueued": done.enqueued})
        return
    click.echo(f"{done.enqueued} chunks of {done.scans} unfinished scans were enqueued")
