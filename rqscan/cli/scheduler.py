"""`rqscan scheduler`: start the scans that are due until told to stop."""

import click

from rqscan.cli import settings, start_log
from rqscan.cli.group import Command, log_options
from rqscan.fleet.first_connection import wait_for_redis
from rqscan.schedule.scheduler import ScanScheduler


@click.command(cls=Command)
@log_options
def scheduler(log_level: str, log_json: bool) -> None:
    """Start the scans of the schedule when they are due.

    Any number may run; one leads, and when it ends another takes over within seconds.
    """
    found = settings()
    start_log(log_level, as_json=log_json)
    if client := wait_for_redis(found):
        with client:
            ScanScheduler(connection=client, settings=found).run()
