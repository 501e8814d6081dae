"""`rqscan db`: make the database's tables, or check that they are there."""

import click

from rqscan.cli import settings
from rqscan.cli.group import Group, json_option
from rqscan.cli.show import print_json
from rqscan.errors import FailedError
from rqscan.store.database import Database
from rqscan.store.migrate import apply, current, pending

__all__ = ["db"]


@click.group(cls=Group)
def db() -> None:
    """Make and check the database's tables."""


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
