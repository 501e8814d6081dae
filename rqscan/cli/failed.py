"""`rqscan failed`: failed jobs in groups of the same error, to be read, requeued or deleted."""

import sys
from collections.abc import Callable
from contextlib import closing
from typing import TYPE_CHECKING, Any

import click

from rqscan.cli import settings
from rqscan.cli.group import Group, json_option
from rqscan.cli.queue import check_queue, known_queues
from rqscan.cli.show import defuse, encode, print_json, print_table
from rqscan.errors import UsageError

if TYPE_CHECKING:
    import redis

    from rqscan.monitor.records import Failure
    from rqscan.settings import Settings

__all__ = ["failed"]

SHOWN_JOBS = 3  # in the table; JSON has all

queue_option = click.option("-q", "--queue", help="Only those of this queue.")


@click.group(cls=Group)
def failed() -> None:
    """Show, requeue and delete failed jobs, by id, by group of the same error, or all."""


@failed.command("list")
@queue_option
@json_option
def list_failed(queue: str | None, as_json: bool) -> None:
    """List the failed jobs, grouped by queue and error."""
    from msgspec.structs import asdict

    from rqscan.broker.connect import connect, outage

    found = settings()
    with outage(), closing(connect(found)) as client:
        groups = _groups(client, found, queue)
    if as_json:
        print_json(groups)
        return
    rows = [asdict(group) for group in groups]
    for row in rows:
        more = len(row["jobs"]) - SHOWN_JOBS
        row["jobs"] = " ".join(row["jobs"][:SHOWN_JOBS]) + (f" +{more}" if more > 0 else "")
        row["workers"] = " ".join(row["workers"][:SHOWN_JOBS])
    print_table(["group", "count", "queue", "last_at", "error", "workers", "jobs"], rows)


@failed.command
@click.argument("job")
@json_option
def show(job: str, as_json: bool) -> None:
    """Show all that is known of one failed JOB."""
    from rqscan.broker.connect import connect, outage
    from rqscan.monitor.failed import details

    with outage(), closing(connect(settings())) as client:
        known = details(client, job)
    if known is None:
        raise UsageError(f"no failed job {job!r}; rqscan failed list shows those there are")
    if as_json:
        print_json(known)
        return
    for name, value in known.items():
        for line in value if name in {"losses", "results"} else [value]:
            if name != "traceback" and line is not None:
                words = line if isinstance(line, str) else encode(line)
                click.echo(f"{name:18}{defuse(words)}")
    click.echo("\n".join(map(defuse, known["traceback"].splitlines())))


def _which(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command JOB_OR_GROUP…, --all, --queue and --json."""
    command = json_option(queue_option(command))
    command = click.option("--all", "is_all", is_flag=True, help="All failed jobs.")(command)
    return click.argument("which", nargs=-1, metavar="[JOB|GROUP]...")(command)


@failed.command
@_which
def requeue(as_json: bool, **which: Any) -> None:
    """Put failed jobs back at the end of their queues."""
    from rqscan.broker.connect import connect, outage
    from rqscan.scan.removal import Removal

    found = settings()
    with closing(connect(found)) as client, closing(Removal(found, client)) as removal:
        with outage():
            chosen = _choose(client, found, **which)
        count = removal.requeue(chosen)
    if as_json:
        print_json({"requeued": count})
    else:
        click.echo(f"{count} jobs were put back into their queues")


@failed.command
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@_which
def delete(yes: bool, as_json: bool, **which: Any) -> None:
    """Delete failed jobs; their chunks stand as cancelled in their scans."""
    from rqscan.broker.connect import connect, outage
    from rqscan.scan.removal import Removal

    found = settings()
    with closing(connect(found)) as client, closing(Removal(found, client)) as removal:
        with outage():
            chosen = _choose(client, found, **which)
        if not yes and sys.stdin.isatty():
            count = sum(map(len, chosen.values()))
            click.confirm(f"delete {count} failed jobs?", abort=True, err=True)
        count = removal.delete(chosen)
    if as_json:
        print_json({"deleted": count})
    else:
        click.echo(f"{count} failed jobs were deleted")


def _groups(client: "redis.Redis", found: "Settings", queue: str | None) -> "list[Failure]":
    from rqscan.monitor.failed import groups

    if queue is not None:
        check_queue(client, found, queue)
    return groups(client, [queue] if queue else known_queues(client, found))


def _choose(
    client: "redis.Redis",
    found: "Settings",
    *,
    which: tuple[str, ...],
    is_all: bool,
    queue: str | None,
) -> dict[str, list[str]]:
    """Give the ids of the jobs that are meant, by queue.

    Raises:
        UsageError: nothing is named, or something that is not there.
    """
    if bool(which) == is_all:
        raise UsageError("name failed jobs or groups, or tell them --all, but not both")
    chosen: dict[str, dict[str, None]] = {}
    unknown = dict.fromkeys(which)
    for group in _groups(client, found, queue):
        names = group.jobs if is_all or group.group in which else []
        names = names or [job for job in group.jobs if job in unknown]
        chosen.setdefault(group.queue, {}).update(dict.fromkeys(reversed(names)))
        for name in (group.group, *names):
            unknown.pop(name, None)
    if unknown:
        words = "rqscan failed list shows those there are"
        raise UsageError(f"no failed job or group {next(iter(unknown))!r}; {words}")
    return {name: list(ids) for name, ids in chosen.items()}
