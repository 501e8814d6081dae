"""`rqscan schedule`: what is due when, what came of it, and what operators change about it."""

import sys
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from datetime import UTC, datetime, timedelta
from difflib import get_close_matches
from typing import Any

import click
from msgspec import json

from rqscan import clock
from rqscan.broker import keys
from rqscan.broker.connect import connect, outage
from rqscan.cli import settings
from rqscan.cli.group import Group, json_option
from rqscan.cli.schedule_add import NO_LEADER, add, tell_leader
from rqscan.cli.schedule_rows import entry_rows, history_rows, print_entries, unlike
from rqscan.cli.show import print_json, print_json_array, print_table
from rqscan.errors import UsageError
from rqscan.schedule.calendar import run_id
from rqscan.schedule.entries import NAME, Entry, read_entries
from rqscan.schedule.misfire import Run
from rqscan.settings import Settings
from rqscan.store.journal import Journal
from rqscan.store.migrate import open_current

__all__ = ["schedule"]

SHOWN_RUNS = 20  # in the table; JSON has all
SHOWN_NAMES = 5
RUN_COLUMNS = ("name", "due_at", "fired_at", "lateness_s", "outcome", "scan_id", "reason")


@click.group(cls=Group)
def schedule() -> None:
    """Show and change what is due when; entries are of rqscan.toml and of the command line."""


schedule.add_command(add)


@contextmanager
def _opened() -> Iterator[tuple[Settings, Any, Journal]]:
    """Open Redis and the store for what needs both.

    Raises:
        RedisUnavailable, StoreUnavailable: one is away.
    """
    found = settings()
    with outage(), closing(connect(found)) as client, open_current(found) as database:
        yield found, client, Journal(database)


@schedule.command("list")
@json_option
def list_entries(as_json: bool) -> None:
    """List the entries with their next and last runs, in the entry's zone and in UTC."""
    with _opened() as (found, client, journal):
        entries = read_entries(found, journal.entries())
        rows = entry_rows(entries, client, journal, clock.now())
        has_leader = client.exists(keys.LEADER)
        unseen = unlike(entries, client) if has_leader and not as_json else []
    if as_json:
        print_json_array(rows)
        return
    print_entries(rows)
    if not has_leader and any(row["next_at"] for row in rows):
        click.echo(NO_LEADER, err=True)
    if unseen:
        names = ", ".join(map(repr, unseen[:SHOWN_NAMES])) + (", …" * (len(unseen) > SHOWN_NAMES))
        words = "the scheduler that leads has not seen these yet, or has another rqscan.toml"
        click.echo(f"{words}: {names}", err=True)


@schedule.command
@click.argument("name", required=False)
@click.option("-n", "limit", type=click.IntRange(min=1),
              help=f"Only the N newest; in a table {SHOWN_RUNS} if not told.")  # fmt: skip
@json_option
def history(name: str | None, limit: int | None, as_json: bool) -> None:
    """Show what came of the runs of NAME, or of all entries, the newest first."""
    most = limit or (sys.maxsize - 1 if as_json else SHOWN_RUNS)
    with _opened() as (found, client, journal):
        entries = read_entries(found, journal.entries())
        rows = history_rows(name, most + 1, entries, client, journal)
    if name is not None and not rows:
        _check_known([name], entries)
    if as_json:
        print_json_array(rows[:most])
        return
    print_table(RUN_COLUMNS, rows[:most])
    if len(rows) > most:
        click.echo(f"these are the newest {most:,} runs; -n N or --json gives more", err=True)


@schedule.command
@click.argument("name")
@json_option
def remove(name: str, as_json: bool) -> None:
    """Remove the entry NAME of the command line; its scans and its history stay."""
    found = settings()
    with open_current(found) as database:
        journal = Journal(database)
        if name in read_entries(found):
            where = found.path or "rqscan.toml"
            raise UsageError(f"entry {name!r} stands in {where}; remove it there")
        if not journal.remove_entry(name):
            _check_known([name], read_entries(found, journal.entries()))
    tell_leader(found, name)
    if as_json:
        print_json({"name": name, "removed": True})
    else:
        click.echo(f"entry {name!r} is removed")


@schedule.command
@click.argument("names", nargs=-1, required=True, metavar="NAME...")
@json_option
def pause(names: tuple[str, ...], as_json: bool) -> None:
    """Let no run of each NAME fall due until it is resumed; `run` still works."""
    _set_paused(names, is_paused=True, as_json=as_json)


@schedule.command
@click.argument("names", nargs=-1, required=True, metavar="NAME...")
@json_option
def resume(names: tuple[str, ...], as_json: bool) -> None:
    """Let the runs of each NAME fall due again, from now on."""
    _set_paused(names, is_paused=False, as_json=as_json)


def _set_paused(names: tuple[str, ...], *, is_paused: bool, as_json: bool) -> None:
    found = settings()
    with open_current(found) as database:
        journal = Journal(database)
        _check_known(names, read_entries(found, journal.entries()))
        for name in names:
            if not NAME.fullmatch(name):
                raise UsageError(f"entry {name!r} has no name of its own; give it one first")
        for name in names:
            journal.pause(name, is_paused=is_paused)
    tell_leader(found, *names)
    if as_json:
        print_json([{"name": name, "paused": is_paused} for name in names])
        return
    for name in names:
        click.echo(f"entry {name!r} is {'paused' if is_paused else 'resumed'}")


@schedule.command
@click.argument("name")
@json_option
def run(name: str, as_json: bool) -> None:
    """Run the entry NAME now, also one that is paused or disabled.

    What the entry says of overlap holds; for idleness it does not wait.
    """
    with _opened() as (found, client, journal):
        entries = read_entries(found, journal.entries())
        _check_known([name], entries)
        entry = entries[name]
        if entry.invalid:
            raise UsageError(f"entry {name!r} is invalid: {entry.invalid}")
        scan_id = _ask(client, entry)
        if not client.exists(keys.LEADER):
            click.echo(f"{NO_LEADER}; the run is made once one does", err=True)
    if as_json:
        print_json({"name": name, "scan_id": scan_id})
    else:
        click.echo(f"a run of entry {name!r} is asked for" + (f": {scan_id}" if scan_id else ""))


def _ask(client: Any, entry: Entry) -> str | None:
    """Put a run on the list of runs; gives its scan id, if it is a scan. Twice a second is once."""
    seconds, microseconds = client.time()
    due = datetime.fromtimestamp(seconds, UTC)
    asked = Run(entry=entry, due=due, at=due, is_asked=True)
    fired_s = (due + timedelta(microseconds=microseconds)).timestamp()
    client.zadd(keys.RUNS, {json.encode(asked): fired_s}, nx=True)
    if not client.exists(keys.RUNS_BELL):
        client.rpush(keys.RUNS_BELL, "1")
    return run_id(entry.name, due) if entry.scan else None


def _check_known(names: tuple[str, ...] | list[str], entries: Mapping[str, Entry]) -> None:
    """Make sure that there are such entries.

    Raises:
        UsageError: there is none of a name.
    """
    for name in names:
        if name not in entries:
            near = get_close_matches(name, entries, n=1)
            hint = f"did you mean {near[0]!r}?" if near else "see: rqscan schedule list"
            raise UsageError(f"no schedule entry {name!r}; {hint}")
