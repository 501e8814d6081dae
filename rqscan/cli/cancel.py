"""`rqscan cancel`: stop what is queued and running of a scan, everywhere."""

import click
import redis

from rqscan.broker.connect import connect
from rqscan.cli import settings
from rqscan.cli.group import Command, json_option
from rqscan.cli.show import print_json
from rqscan.errors import RedisUnavailable
from rqscan.scan import cancel as cancelling

__all__ = ["cancel"]


@click.command(cls=Command)
@click.argument("scan")
@json_option
def cancel(scan: str, as_json: bool) -> None:
    """Stop what is queued and running of SCAN; what has finished stays.

    `rqscan resume SCAN` runs later what was cancelled.
    """
    found = settings()
    client: redis.Redis | None = None
    reason = ""
    try:
        client = connect(found)
    except RedisUnavailable as e:
        reason = f": {e}"
    done = cancelling.cancel(found, client, scan)
    if not done.is_redis_told and done.queued + done.running:
        words = f"scan {scan} is cancelled in the plan, but Redis is away{reason}"
        click.echo(f"{words}; its jobs are refused, and dropped once Redis is back", err=True)
    if as_json:
        counts = {"queued": done.queued, "running": done.running}
        print_json({"scan_id": scan, "state": done.state, "cancelled": counts})
        return
    counted = f"{done.queued} queued and {done.running} running chunks were cancelled"
    click.echo(f"scan {scan} is {done.state}: {counted}")
