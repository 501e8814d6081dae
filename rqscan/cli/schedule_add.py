"""`rqscan schedule add`: an entry of the command line, checked as one of rqscan.toml is."""

import math
from collections.abc import Callable
from contextlib import closing
from typing import Any

import click
from msgspec.structs import asdict, replace

from rqscan import clock
from rqscan.broker import keys
from rqscan.broker.connect import connect, outage
from rqscan.cli import settings
from rqscan.cli.group import Command, json_option, read_age, split
from rqscan.cli.schedule_rows import Standing, in_zone, row_of
from rqscan.cli.show import print_json
from rqscan.errors import OutOfScopeError, RedisUnavailable, UsageError
from rqscan.scan.plan import make_plan
from rqscan.schedule.entries import NAME, NAME_RULE, Entry, read_entries, read_entry
from rqscan.settings import Settings
from rqscan.store.journal import Journal
from rqscan.store.migrate import open_current

__all__ = ["NO_LEADER", "add", "tell_leader"]

NO_LEADER = "no scheduler leads (start one with: rqscan scheduler)"

OF_SCAN = ("targets", "kinds", "ports", "exclude")


def tell_leader(found: Settings, *names: str) -> bool:
    """Have the scheduler that leads look at these entries now; False if none leads.

    While Redis is away that is said on stderr: the leader looks by itself once it is back.
    """
    try:
        with outage(), closing(connect(found)) as client:
            for name in names:
                client.publish(keys.SCHEDULE_CHANGED, name)
            return bool(client.exists(keys.LEADER))
    except RedisUnavailable as e:
        late = "the scheduler that leads sees it within 30 s of its return"
        click.echo(f"{e}; it is stored, and {late}", err=True)
        return True  # as far as is known


def _span(_ctx: click.Context, _param: click.Parameter, text: str | None) -> float | None:
    if text is None:
        return None
    try:
        age = read_age(text)
        span_s = float(text) if age is None else age.total_seconds()
    except (ValueError, OverflowError):
        span_s = math.nan
    if not math.isfinite(span_s):
        raise click.BadParameter(f"expected seconds, or 30s, 5m, 2h, 1d, got: {text!r}")
    return span_s


def _span_option(flag: str, key: str, text: str) -> Callable[[Any], Callable[..., Any]]:
    return click.option(flag, key, callback=_span, metavar="SPAN", help=text)


@click.command(cls=Command)
@click.argument("name")
@click.argument("targets", nargs=-1, metavar="[TARGET]...")
@click.option("--cron", metavar="TEXT", help="Due by cron: '0 2 * * *', or with seconds first.")
@_span_option("--every", "every_s", "Due every so often: seconds, or 30s, 5m, 2h, 1d.")
@click.option("--at", metavar="TIME", help="Due once, at an ISO time in the zone.")
@click.option("--zone", metavar="ZONE", help="Such as Europe/Berlin; UTC if none is given.")
@click.option("--target", "more", multiple=True, metavar="TARGET", help="As TARGET (repeatable).")
@click.option("-p", "--ports", help="22,80,8000-8100 · top-100 · top-1000 · - for all.")
@click.option("--kind", "kinds", multiple=True, callback=split, help="Kinds, by commas.")
@click.option("--exclude", multiple=True, metavar="TARGET", callback=split,
              help="Leave out (may be repeated).")  # fmt: skip
@click.option(
    "--task", type=click.Choice(["drain", "prune", "upkeep"]), help="What to do instead of a scan."
)
@_span_option("--older-than", "older_than_s", "How long ago scans have ended that `prune` deletes.")
@click.option("-q", "--queue", help="The queue of its scans.")
@_span_option("--jitter", "jitter_s", "Put each run off by up to so long.")
@click.option("--start", metavar="TIME", help="No run before; also what --every counts from.")
@click.option("--end", metavar="TIME", help="No run after.")
@click.option("--misfire", type=click.Choice(["skip", "once", "all"]),
              help="What to do of the runs that nobody fired in time.")  # fmt: skip
@click.option("--misfire-limit", type=int, metavar="N", help="Most runs that `all` makes up for.")
@_span_option("--misfire-deadline", "misfire_deadline_s", "A run later than that is missed.")
@click.option("--overlap", type=click.Choice(["skip", "queue", "run", "cancel"]),
              help="What to do while the run before has not ended.")  # fmt: skip
@click.option("--when", type=click.Choice(["idle"]), help="Once due, wait until the fleet is idle.")
@_span_option("--max-delay", "max_delay_s", "Wait for that no longer than so long.")
@click.option("--disabled", is_flag=True, help="Keep it, but let it not be due.")
@json_option
def add(
    name: str,
    targets: tuple[str, ...],
    more: tuple[str, ...],
    disabled: bool,
    as_json: bool,
    **asked: Any,
) -> None:
    """Add the entry NAME: a scan of each TARGET, or a --task, by --cron, --every or --at.

    It is kept in the database, so that any scheduler of the fleet starts it.
    """
    found = settings()
    given = {key: value for key, value in asked.items() if value is not None and value != []}
    scan = {key: given.pop(key) for key in OF_SCAN if key in given}
    if targets or more or "task" not in given:
        scan["targets"] = [*targets, *more]
    wanted = {"name": name} | given | ({"scan": scan} if scan else {})
    wanted |= {"enabled": False} if disabled else {}
    with open_current(found) as database:
        journal = Journal(database)
        kept = journal.entries()
        known = read_entries(found, kept)  # knows the kinds from here on
        _refuse_taken(name, known, found)
        entry = _checked(wanted, found)
        if not journal.add_entry(name, wanted):  # another was quicker
            _refuse_taken(name, {name: entry}, found)
    if name in kept:
        entry = replace(entry, is_paused=kept[name].is_paused)
    if not tell_leader(found, name):
        click.echo(f"{NO_LEADER}; no run is made until one does", err=True)
    row = row_of(entry, Standing(), clock.now())
    if as_json:
        print_json(row)
        return
    next_at = row["next_at"]
    words = f"next run {in_zone(next_at, entry.zone)}" if next_at else f"it is {row['state']}"
    click.echo(f"entry {name!r} is added; {words}")


def _refuse_taken(name: str, known: dict[str, Entry], found: Settings) -> None:
    """Make sure that no entry has the name.

    Raises:
        UsageError: one has.
    """
    if any(table.get("name") == name for table in found.schedule):
        where = found.path or "rqscan.toml"
        raise UsageError(f"there is an entry {name!r} in {where}; choose another name")
    if name in known:
        advice = f"choose another name, or first: rqscan schedule remove {name}"
        raise UsageError(f"there is an entry {name!r}; {advice}")


def _checked(wanted: dict[str, Any], found: Settings) -> Entry:
    """Check an entry, and plan its scan to see whether it may be scanned; nothing is kept.

    Raises:
        UsageError: with the name and what is wrong.
        OutOfScopeError: it is outside the scope.
    """
    name = wanted["name"]
    if not NAME.fullmatch(name):
        raise UsageError(f"expected NAME to be {NAME_RULE}, got: {name!r}")
    if wanted.get("scan", {}).get("targets") == []:
        raise UsageError(f"entry {name!r} is not added: no target is given; name one")
    entry = read_entry(wanted, found)
    if entry.invalid:
        raise UsageError(f"entry {name!r} is not added: {entry.invalid}")
    if not entry.scan:
        return entry
    try:
        make_plan(settings=found, queue=entry.queue, name=name, **asdict(entry.scan))
    except (UsageError, OutOfScopeError) as e:
        raise type(e)(f"entry {name!r} is not added: {e}") from e
    return entry
