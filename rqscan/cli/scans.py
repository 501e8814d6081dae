"""`rqscan scans`: what was asked for, newest first, and how far it is."""

import sys
from contextlib import closing
from typing import Any

import rich_click as click

from rqscan.cli import settings
from rqscan.cli.group import json_option
from rqscan.model import Progress, Scan

__all__ = ["scans"]

TARGETS = 3  # shown in the table; JSON has all


@click.command()
@click.option("-n", "limit", type=click.IntRange(min=1), help="Only the N newest.")
@json_option
def scans(limit: int | None, as_json: bool) -> None:
    """List the scans, newest first."""
    from rqscan.cli.show import print_json_array, print_table
    from rqscan.store.database import Database
    from rqscan.store.repository import Repository

    with closing(Database.open(settings())) as database:
        items = [_item(*both) for both in Repository(database).scans(limit or sys.maxsize)]
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


def _item(scan: Scan, progress: Progress) -> dict[str, Any]:
    counts = progress.chunks
    return {
        "scan_id": scan.scan_id,
        "name": scan.name,
        "state": progress.state,
        "queue": scan.queue,
        "kinds": scan.kinds,
        "targets": scan.targets,
        "schedule": scan.schedule,
        "due_at": scan.due_at,
        "requested_at": scan.requested_at,
        "started_at": progress.started_at,
        "finished_at": progress.finished_at,
        "chunks": {"total": counts.total, "done": counts.done, "failed": counts.failed},
        "observations": progress.observations,
        "probes": progress.probes,
    }
