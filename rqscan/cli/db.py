"""`rqscan db`: make the database's tables, check that they are there, delete old scans."""

import sys
from datetime import timedelta

import click

from rqscan.cli import settings
from rqscan.cli.group import Group, json_option, read_age
from rqscan.cli.show import print_json
from rqscan.clock import iso
from rqscan.errors import FailedError
from rqscan.store.database import Database
from rqscan.store.migrate import apply, current, open_current, pending
from rqscan.store.prune import Pruner
from rqscan.store.spool import Spool

__all__ = ["db"]

LONGEST = timedelta(days=36_500)


@click.group(cls=Group)
def db() -> None:
    """Make and check the database's tables, and delete old scans."""


@db.command()
@json_option
def migrate(as_json: bool) -> None:
    """Bring the tables up to date; every command that writes does the same by itself."""
    with Database.open(settings()) as database:
        applied = apply(database)
        version = current(database)
    if as_json:
        print_json({"version": version, "applied": applied})
    else:
        did = f"applied {', '.join(applied) or 'nothing'}"
        click.echo(f"{did}; the tables are at version {version}")


@db.command()
@json_option
def check(as_json: bool) -> None:
    """Check that the database answers and its tables are up to date; exit 1 if they are not."""
    with Database.open(settings()) as database:
        missing = pending(database)
        version = current(database)
    if as_json:
        print_json({"ok": not missing, "version": version, "pending": missing})
    elif not missing:
        click.echo(f"the tables are up to date, at version {version}")
    if missing:
        message = f"the tables are at version {version} and lack {', '.join(missing)}"
        raise FailedError(message, advice="run: rqscan db migrate")


def _age(_ctx: click.Context, _param: click.Parameter, text: str) -> timedelta:
    try:
        age = read_age(text)
    except OverflowError:
        age = None
    if age is None or age > LONGEST:
        raise click.BadParameter(f"expected an age like 12h or 90d, got: {text!r}")
    return age


@db.command()
@click.option(
    "--older-than", "age", callback=_age, required=True, metavar="AGE",
    help="How long ago a scan has ended at least: 30m, 12h, 90d.",
)  # fmt: skip
@click.option("--dry-run", is_flag=True, help="Delete nothing, tell what would be.")
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@json_option
def prune(age: timedelta, dry_run: bool, yes: bool, as_json: bool) -> None:
    """Delete old scans with all that they have found, and old runs of the schedule's history.

    What has not ended stays, and what this host's spool or quarantine holds rows of. One that is
    cut off has done its part, and the next goes on. The database's files do not shrink: what comes
    later takes the room.
    """
    found = settings()
    with open_current(found) as database:
        pruner = Pruner(database, age, Spool(found).scans())
        if not (dry_run or yes) and sys.stdin.isatty():
            words = f"delete the scans that ended before {iso(pruner.before)}?"
            click.confirm(words, abort=True, err=True)
        (pruner.count if dry_run else pruner.prune)()
    done = pruner.pruned
    if as_json:
        gone = {name: getattr(done, name) for name in ("scans", "chunks", "observations", "runs")}
        kept = {"not_ended": done.not_ended, "spooled": done.spooled}
        print_json({"before": iso(pruner.before), "dry_run": dry_run} | gone | {"kept": kept})
        return
    did = "would be" if dry_run else "were"
    what = f"{done.scans} scans, {done.chunks} chunks and {done.observations} rows"
    click.echo(f"{what} {did} deleted, of scans that ended before {iso(pruner.before)}")
    if done.not_ended or done.spooled:
        words = f"{done.not_ended} older scans have not ended, and {done.spooled} have rows in"
        click.echo(f"{words} this host's spool: they stay", err=True)
