"""`rqscan worker`: run the jobs of some queues until told to stop."""

import os
import re
import sys

import click
from msgspec.structs import replace

from rqscan.broker.connect import outage
from rqscan.broker.queues import declared
from rqscan.cli import settings, start_log
from rqscan.cli.group import Command, Seconds, log_options
from rqscan.errors import UsageError
from rqscan.fleet.first_connection import wait_for_redis
from rqscan.fleet.launch import launch
from rqscan.fleet.worker import ScanWorker
from rqscan.settings import Settings

NAME = r"[A-Za-z0-9.:@_-]{1,100}"


@click.command(cls=Command)
@click.argument("queues", nargs=-1, metavar="QUEUE...")
@click.option("-n", "--name", help="Name in the fleet (default: HOST.PID).")
@click.option("-c", "--concurrency", type=click.IntRange(1), help="Jobs at once (default: CPUs).")
@click.option("--max-jobs-per-horse", type=click.IntRange(0), help="Jobs per horse; 0: no limit.")
@click.option("--stop-timeout", type=Seconds(0), help="Seconds for jobs to finish.")
@click.option("--burst", is_flag=True, help="End when the queues are empty.")
@log_options
def worker(
    queues: tuple[str, ...],
    name: str | None,
    concurrency: int | None,
    max_jobs_per_horse: int | None,
    stop_timeout: float | None,
    burst: bool,
    log_level: str,
    log_json: bool,
) -> None:
    """Run the jobs of each QUEUE (`default` if none is named), the first named first.

    The first signal lets running jobs finish, up to --stop-timeout, then gives them back to their
    queues; the second gives them back at once.
    """
    found = settings()
    names = list(dict.fromkeys(queues)) or ["default"]
    for queue in names:
        declared(found, queue)
    if name is not None and not re.fullmatch(NAME, name):
        raise UsageError(f"worker name {name!r} is not 1 to 100 letters, digits and . : @ _ or -")
    if max_jobs_per_horse is not None:
        found = replace(found, worker=replace(found.worker, max_jobs_per_horse=max_jobs_per_horse))
    _check(found)
    start_log(log_level, as_json=log_json)
    client = wait_for_redis(found)
    if client is None:
        return
    with outage():
        fleet_worker = ScanWorker(
            names, name=name, connection=client, settings=found, concurrency=concurrency
        )
        plan = fleet_worker.plan(stop_timeout_s=stop_timeout)
    launch(plan, is_burst=burst, log_level=log_level, log_json=log_json)


def _check(found: Settings) -> None:
    """Tell a kind or a scope that can't be loaded, from a child: what it imports goes with it."""
    if pid := os.fork():
        if status := os.waitpid(pid, 0)[1]:
            sys.exit(os.waitstatus_to_exitcode(status))
        return
    from rqscan.installed import plugins
    from rqscan.scan.runner import Runner

    Runner(found, plugins())
    sys.exit()
