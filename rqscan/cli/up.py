"""`rqscan up`: Redis, worker and scheduler on this machine, until ^C."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import click

from rqscan.broker import embedded
from rqscan.broker.connect import connect
from rqscan.cli import settings
from rqscan.cli.group import Command
from rqscan.cli.scan import scan
from rqscan.cli.top import top
from rqscan.errors import FailedError, HomeUnavailable
from rqscan.fleet.roster import is_listening
from rqscan.process import die_with
from rqscan.settings import Settings

START_S = 30.0

Processes = dict[str, subprocess.Popen[bytes]]


@click.command(cls=Command)
@click.option("--scan", "target", metavar="TARGET", help="First scan all ports of TARGET.")
@click.pass_context
def up(ctx: click.Context, target: str | None) -> int:
    """Run everything on this machine: Redis, a worker for every queue, a scheduler.

    On a terminal the live view is shown; ^C or q ends all. With --scan and no terminal it ends
    after the scan.
    """
    found = settings()
    home = Path(found.home)
    code = 0
    try:
        home.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as e:
        raise HomeUnavailable(f"cannot make the home {home}: {e.strerror}") from e
    with connect(found) as client, _fleet(found, home) as processes:
        until = time.monotonic() + START_S
        while not is_listening(client, "default"):
            _check(processes, home)
            if time.monotonic() > until:
                raise FailedError(f"no worker started in {START_S:g} s; its log is in {home}")
            time.sleep(0.02)
        if target:
            code = ctx.invoke(scan, targets=(target,), ports="-", name="first")
        if sys.stdin.isatty() and sys.stdout.isatty():
            ctx.invoke(top)
        elif not target:
            click.echo("worker and scheduler run; ^C ends all", err=True)
            while True:
                _check(processes, home)
                time.sleep(0.2)
    if found.redis.url is None:
        embedded.release(home, wait=True)
    return code


@contextmanager
def _fleet(settings: Settings, home: Path) -> Iterator[Processes]:
    """Run a worker and a scheduler; they end with this process, however it ends."""
    config = ["--config", settings.path] if settings.path else []
    roles = {"worker": sorted(settings.queues), "scheduler": []}
    processes: Processes = {}
    for number in (signal.SIGINT, signal.SIGTERM):  # a requested stop, and no failure
        signal.signal(number, lambda *_: sys.exit(0))
    try:
        for role, arguments in roles.items():
            with (home / f"{role}.log").open("ab") as log:
                processes[role] = subprocess.Popen(
                    [sys.executable, "-m", "rqscan", *config, role, *arguments],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    start_new_session=True,  # ^C is for this process, which stops them in order
                    preexec_fn=partial(die_with, os.getpid(), signal.SIGTERM),  # noqa: PLW1509 - no threads here
                )
        yield processes
    finally:
        for process in processes.values():
            process.terminate()
        for process in processes.values():
            try:
                process.wait(settings.worker.stop_timeout_s + 5)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _check(processes: Processes, home: Path) -> None:
    for role, process in processes.items():
        if process.poll() is not None:
            ended = f"the {role} ended by itself with {process.returncode}"
            raise FailedError(f"{ended}; its log is {home / role}.log")
