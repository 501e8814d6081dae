"""`rqscan spool`: what this host keeps for the database, its drain, and what was refused."""

import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Any

import click
from msgspec import DecodeError, json, structs

from rqscan.cli import settings
from rqscan.cli.group import Group, Seconds, json_option
from rqscan.cli.show import defuse, print_json, print_json_array, print_json_lines, print_table
from rqscan.errors import ServiceUnavailable, UsageError
from rqscan.idle import SAMPLE_S, Traffic, waiting
from rqscan.interfaces import find_link
from rqscan.settings import Settings
from rqscan.store.breaker import Breaker
from rqscan.store.database import Database
from rqscan.store.drain import Held, backlog, drain
from rqscan.store.spool import Quarantined, Spool
from rqscan.tally import Backlog, Idleness, Moved

__all__ = ["spool"]

POLL_S = 0.1
_YES_OR_NO = {True: "yes", False: "no", None: "?"}
COLUMNS = ("id", "first_seen", "scan_id", "chunk", "rows", "host", "port", "code", "reason")


@click.group(cls=Group)
def spool() -> None:
    """Show and drain what this host keeps for the database."""


@spool.command()
@json_option
def status(as_json: bool) -> None:
    """Tell what is kept, how long, and whether the database is there."""
    found = settings()
    kept, mode = backlog(found), found.spool.mode
    known: dict[str, Any] = {
        "rows": kept.rows,
        "records": kept.records,
        "bytes": kept.bytes,
        "oldest_at": kept.oldest_at,
        "quarantined": kept.quarantined,
        "mode": mode,
        "store_up": _is_store_up(found),
        "stream_up": None if found.spool.redis_url is None else kept.stream_away is None,
    }
    idle = _idleness(found, kept)
    if as_json:
        print_json(known | {"idle": structs.asdict(idle)})
    else:
        known["idle"] = f"{_YES_OR_NO[idle.is_idle]}: {idle.reason}"
        print_table(("what", "is"), ({"what": k, "is": v} for k, v in known.items()))


@spool.command("drain")
@click.option(
    "--timeout", "timeout_s", type=Seconds(0), default=60, show_default=True, metavar="S",
    help="Seconds to wait for another process that drains.",
)  # fmt: skip
@json_option
def drain_spool(timeout_s: float, as_json: bool) -> None:
    """Move what is kept into the database now, and wait for the end."""
    found, began, moved = settings(), time.monotonic(), Moved()
    while True:
        try:
            _drain(found, moved, backlog(found).rows)
            break
        except Held:
            if time.monotonic() - began > timeout_s:
                raise
        time.sleep(POLL_S)
    kept = backlog(found)
    done = {
        "drained": moved.rows,
        "left": kept.rows,
        "quarantined": moved.quarantined,
        "elapsed_s": round(time.monotonic() - began, 3),
    }
    for file, records in moved.salvaged:
        words = f"a spool that was broken is kept as {file}; {records} records of it were saved"
        click.echo(defuse(words), err=True)
    if kept.stream_away:
        click.echo(defuse(f"what the stream holds was not drained: {kept.stream_away}"), err=True)
    if done["left"]:
        words = "are of another database, which database.url named when they came, or are new"
        click.echo(f"{done['left']} rows {words}", err=True)
    if as_json:
        print_json(done)
    else:
        words = (
            "{drained} rows were moved in {elapsed_s:.1f} s, {left} are left, {quarantined} went"
        )
        click.echo((words + " to quarantine").format(**done))


@spool.group(cls=Group)
def quarantine() -> None:
    """See to what the database refused: each entry is one row, or one record of a chunk."""


@quarantine.command("list")
@json_option
def list_entries(as_json: bool) -> None:
    """List what the database refused, and why."""
    rows = (_row(entry) for entry in Spool(settings()).quarantined())
    if as_json:
        print_json_array(rows)
    else:
        print_table(COLUMNS, rows)


def _which(command: Any) -> Any:
    """Give a command ID… and --all."""
    command = click.option("--all", "is_all", is_flag=True, help="All entries.")(command)
    return click.argument("ids", nargs=-1, type=click.IntRange(1), metavar="[ID]...")(command)


@quarantine.command()
@_which
def export(ids: Sequence[int], is_all: bool) -> None:
    """Print entries whole, one JSON object a line."""
    here = Spool(settings())
    wanted = set(_chosen(here, ids, is_all=is_all))
    entries = (entry for entry in here.quarantined() if entry.id in wanted)
    print_json_lines(_row(entry) | {"record": _content(entry)} for entry in entries)


@quarantine.command()
@_which
@json_option
def retry(ids: Sequence[int], is_all: bool, as_json: bool) -> None:
    """Offer entries to the database again, with the next drain."""
    here = Spool(settings())
    count = len(here.put_back(_chosen(here, ids, is_all=is_all)))
    if as_json:
        print_json({"retried": count})
    else:
        click.echo(f"{count} entries go to the database again; at once with: rqscan spool drain")


@quarantine.command()
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@_which
@json_option
def drop(ids: Sequence[int], is_all: bool, yes: bool, as_json: bool) -> None:
    """Delete entries for good."""
    here = Spool(settings())
    chosen = _chosen(here, ids, is_all=is_all)
    if chosen and not yes and sys.stdin.isatty():
        click.confirm(f"delete {len(chosen)} entries for good?", abort=True, err=True)
    count = len(here.drop(chosen))
    if as_json:
        print_json({"dropped": count})
    else:
        click.echo(f"{count} entries were deleted")


def _is_store_up(found: Settings) -> bool:
    away = Breaker(found.home).away()
    if away and away.until > time.monotonic():  # it was tried a moment ago
        return False
    with suppress(ServiceUnavailable), Database.open(found):
        return True
    return False


def _idleness(found: Settings, backlog: Backlog) -> Idleness:
    """Measure the network for a second, if rows wait for it.

    A worker asks more before it drains: that it was calm for long enough, and no job runs there.
    """
    mode = found.spool.mode
    if mode != "spool_first":
        return Idleness(is_idle=None, reason=f"not measured: nothing waits for it in mode {mode}")
    if not backlog.records:
        return Idleness(is_idle=None, reason="not measured: nothing is spooled")
    traffic = Traffic(find_link(found), for_s=0)
    traffic.look()
    time.sleep(SAMPLE_S)
    traffic.look()
    return waiting(traffic, backlog.oldest_at, found.spool.max_delay_s)


def _drain(found: Settings, moved: Moved, rows: int) -> None:
    from rich.console import Console
    from rich.progress import Progress

    bar = Progress(console=Console(stderr=True), disable=not sys.stderr.isatty(), transient=True)
    task = bar.add_task("rows", total=rows)
    with bar:
        drain(found, moved, by_force=True, on_batch=lambda: bar.update(task, completed=moved.rows))


def _chosen(here: Spool, ids: Sequence[int], *, is_all: bool) -> list[int]:
    if bool(ids) == is_all:
        raise UsageError("name the entries by their ids, or give --all")
    known = [entry.id for entry in here.quarantined()]
    if unknown := sorted(set(ids) - set(known)):
        advice = "rqscan spool quarantine list shows those there are"
        raise UsageError(f"no entry {unknown[0]} in quarantine; {advice}")
    return known if is_all else list(ids)


def _content(entry: Quarantined) -> Any:
    with suppress(DecodeError):
        return json.decode(entry.record)
    return entry.record.decode(errors="replace")


def _row(entry: Quarantined) -> dict[str, Any]:
    content = _content(entry)
    content = content if isinstance(content, dict) else {}
    rows: Iterator[Any] = iter(content.get("observations") or ())
    first = next(rows, None)
    place = first if entry.rows == 1 and isinstance(first, dict) else {}
    return {
        "id": entry.id,
        "first_seen": entry.first_seen,
        "scan_id": content.get("scan_id"),
        "chunk": content.get("chunk"),
        "rows": entry.rows,
        "host": place.get("host"),
        "port": place.get("port"),
        "code": entry.code,
        "reason": entry.reason,
    }
