"""`rqscan up`: Redis, worker and scheduler on this machine, until ^C."""

import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import rich_click as click

from rqscan.cli import settings

if TYPE_CHECKING:
    from pathlib import Path

    import redis

    from rqscan.config import Settings

START_S = 30.0
PR_SET_PDEATHSIG = 1  # <linux/prctl.h>


@click.command()
@click.option("--scan", "target", metavar="TARGET", help="First scan all ports of TARGET.")
def up(target: str | None) -> int:
    """Run everything on this machine: Redis, a worker for every queue, a scheduler.

    On a terminal the live view is shown; ^C or q ends all. With --scan and no terminal it ends
    after the scan.
    """
    from pathlib import Path

    from rqscan.broker import embedded
    from rqscan.broker.connect import connect

    found = settings()
    client = connect(found)
    is_terminal = sys.stdin.isatty() and sys.stdout.isatty()
    code = 0
    with _fleet(found, Path(found.home)) as processes:
        _wait_for_worker(client, processes, Path(found.home))
        if target:
            code = _first_scan(found, client, target)
        if is_terminal:
            from rqscan.cli.top import top

            context = click.get_current_context()
            assert context is not None
            context.invoke(top)
        elif not target:
            _wait_for_signal(processes)
    client.close()
    if found.redis.url is None:
        embedded.release(Path(found.home), wait=True)
    return code


@contextmanager
def _fleet(settings: "Settings", home: "Path") -> "Iterator[dict[str, subprocess.Popen[bytes]]]":
    """Run a worker and a scheduler; they end with this process, however it ends."""
    config = ["--config", settings.path] if settings.path else []
    roles = {"worker": sorted(settings.queues), "scheduler": []}
    processes = {}
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
                    preexec_fn=_die_with_parent,  # noqa: PLW1509 - no threads here
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


def _die_with_parent() -> None:
    import ctypes

    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def _wait_for_worker(
    client: "redis.Redis", processes: "dict[str, subprocess.Popen[bytes]]", home: "Path"
) -> None:
    from rqscan.errors import FailedError
    from rqscan.fleet.presence import is_listening

    until = time.monotonic() + START_S
    while not is_listening(client, "default"):
        for role, process in processes.items():
            if process.poll() is not None or time.monotonic() > until:
                raise FailedError(f"the {role} did not start; its log is {home / role}.log")
        time.sleep(0.02)


def _first_scan(settings: "Settings", client: "redis.Redis", target: str) -> int:
    from rqscan.cli.scan import follow
    from rqscan.scan.kinds import load_kinds
    from rqscan.scan.plan import make_plan
    from rqscan.scan.submit import submit

    load_kinds(settings.jobs.path)
    plan = make_plan(settings=settings, targets=[target], kinds=["ports"], ports="-", name="first")
    submit(plan, settings=settings, client=client)
    return follow(plan.scan, settings, client)


def _wait_for_signal(processes: "dict[str, subprocess.Popen[bytes]]") -> None:
    from rqscan.errors import FailedError

    click.echo("worker and scheduler run; ^C ends all", err=True)
    while True:
        for role, process in processes.items():
            if process.poll() is not None:
                raise FailedError(f"the {role} ended by itself with {process.returncode}")
        time.sleep(0.2)
