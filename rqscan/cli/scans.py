"""`rqscan scans`: what was asked for, newest first, and how far it is."""

import sys
from contextlib import closing
from typing import Any

import click
from msgspec.structs import asdict

from rqscan.broker.connect import connect
from rqscan.cli import repository, settings
from rqscan.cli.group import Command, json_option
from rqscan.cli.show import print_json_array, print_table
from rqscan.errors import RedisUnavailable
from rqscan.model import Progress, Scan
from rqscan.scan.progress import read_progress

__all__ = ["scans", "summary"]

SUMMARY = (
    "scan_id", "name", "state", "queue", "kinds", "targets", "schedule", "due_at", "requested_at",
    "started_at", "finished_at", "chunks", "observations", "probes",
)  # fmt: skip
TARGETS = 3  # shown in the table; JSON has all


@click.command(cls=Command)
@click.option("-n", "limit", type=click.IntRange(min=1), help="Only the N newest.")
@json_option
def scans(limit: int | None, as_json: bool) -> None:
    """List the scans, newest first."""
    with repository() as store:
        items = [summary(*both) for both in _as_counted(store.scans(limit or sys.maxsize))]
    if as_json:
        print_json_array(items)
        return
    for item in items:
        item["chunks"] = "{done} of {total}, {failed} failed".format(**item["chunks"])
        item["kinds"] = " ".join(item["kinds"])
        more = len(item["targets"]) - TARGETS
        item["targets"] = " ".join(item["targets"][:TARGETS]) + (f" +{more}" if more > 0 else "")
    columns = ["scan_id", "state", "queue", "chunks", "observations", "requested_at", "finished_at"]
    print_table([*columns, "kinds", "targets"], items)


def _as_counted(found: list[tuple[Scan, Progress]]) -> list[tuple[Scan, Progress]]:
    """Have Redis, which counts first, tell of the scans that the store saw no end of."""
    if all(progress.is_ended for _, progress in found):
        return found
    try:
        with closing(connect(settings())) as client:
            return [
                (scan, stored if stored.is_ended else read_progress(client, scan.scan_id) or stored)
                for scan, stored in found
            ]
    except RedisUnavailable:
        return found


def summary(scan: Scan, progress: Progress) -> dict[str, Any]:
    """Give a scan and how far it is under the names of the JSON output."""
    counts = progress.chunks
    known = asdict(scan) | asdict(progress) | {"state": progress.state}
    known["chunks"] = {"total": counts.total, "done": counts.done, "failed": counts.failed}
    return {name: known[name] for name in SUMMARY}
