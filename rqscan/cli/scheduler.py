"""`rqscan scheduler`: start the scans that are due until told to stop."""

import rich_click as click

from rqscan.cli import settings


@click.command()
@click.option(
    "-l", "--log-level", default="INFO", show_default=True,
    type=click.Choice(["DEBUG", "INFO", "WARNING", "ERROR"], case_sensitive=False),
)  # fmt: skip
@click.option("--log-json", is_flag=True, help="Log JSON lines.")
def scheduler(log_level: str, log_json: bool) -> None:
    """Start the scans of the schedule when they are due.

    Any number may run; one leads, and when it ends another takes over within seconds.
    """
    from rqscan import logs
    from rqscan.broker.connect import connect
    from rqscan.schedule.scheduler import ScanScheduler

    found = settings()
    with connect(found) as client:
        logs.configure(log_level, as_json=log_json)
        ScanScheduler(connection=client, settings=found).run()
