"""`rqscan scheduler`: start the scans that are due until told to stop."""

import rich_click as click

from rqscan.broker.connect import connect
from rqscan.cli import settings, start_log
from rqscan.cli.group import log_options
from rqscan.schedule.scheduler import ScanScheduler


@click.command()
@log_options
def scheduler(log_level: str, log_json: bool) -> None:
    """Start the scans of the schedule when they are due.

    Any number may run; one leads, and when it ends another takes over within seconds.
    """
    found = settings()
    with connect(found) as client:
        start_log(found, log_level, as_json=log_json)
        ScanScheduler(connection=client, settings=found).run()
