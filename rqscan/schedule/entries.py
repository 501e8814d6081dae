"""Schedule entries: raw tables of ``[[schedule]]`` in, checked entries out, one by one.

A bad table becomes an entry with a reason in `invalid` and harms no other: nothing that was asked
for is ignored.
"""

import difflib
import re
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Literal
from zoneinfo import ZoneInfo

import msgspec
from cronsim import CronSim, CronSimError
from msgspec import Meta, Struct, field, structs

from rqscan.broker.queues import declared
from rqscan.errors import UsageError
from rqscan.installed import plugins
from rqscan.scan.kinds import load_kinds
from rqscan.scan.plan import check_asked
from rqscan.settings import Settings
from rqscan.store.journal import KeptEntry

__all__ = [
    "NAME",
    "NAME_RULE",
    "NICKNAMES",
    "Entry",
    "ScanRequest",
    "read_entries",
    "read_entry",
    "to_utc",
    "with_kept",
]

_YEARS = range(1970, 2200)  # whatever is computed from these fits a datetime

NICKNAMES = {
    "@yearly": "0 0 1 1 *", "@annually": "0 0 1 1 *", "@monthly": "0 0 1 * *",
    "@weekly": "0 0 * * 0", "@daily": "0 0 * * *", "@midnight": "0 0 * * *", "@hourly": "0 * * * *",
}  # fmt: skip
"""As crontab(5) has them."""

NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")
NAME_RULE = "1 to 64 letters, digits, _ or -"

Seconds = Annotated[float, Meta(ge=0, le=1e9)]


class ScanRequest(Struct, frozen=True):
    """What a due entry asks for; the names are those of `make_plan`."""

    targets: Annotated[list[str], Meta(min_length=1)]
    kinds: Annotated[list[str], Meta(min_length=1)] = field(default_factory=lambda: ["ports"])
    ports: str | None = None
    exclude: list[str] = field(default_factory=list)


class Entry(Struct, frozen=True, kw_only=True):
    """One schedule entry; exactly one of `cron`, `every_s` and `at` is set, or it is `invalid`.

    A task `drain` may have none: what is spooled is drained anyway.
    """

    name: str  # unique; "#3" for the third table if that has no usable name
    invalid: str | None = None  # why it never runs
    cron: str | None = None  # five fields, six with the seconds first, or one of `NICKNAMES`
    every_s: Annotated[float, Meta(ge=1, le=1e9)] | None = None
    at: datetime | None = None
    zone: str = "UTC"
    scan: ScanRequest | None = None
    task: Literal["drain", "prune", "upkeep"] | None = None  # in place of a scan
    older_than_s: Annotated[float, Meta(ge=60, le=3e9)] | None = None  # what `prune` deletes
    queue: str = "default"
    jitter_s: Seconds = 0.0  # most that a run is put off, by name and due time
    enabled: bool = True
    start: datetime | None = None  # no run before, and the anchor of `every_s`
    end: datetime | None = None  # no run after
    misfire: Literal["skip", "once", "all"] = "once"
    misfire_limit: Annotated[int, Meta(ge=1, le=10_000)] = 100  # most runs that `all` makes up for
    misfire_deadline_s: Seconds | None = None  # a run that is later than that is missed
    overlap: Literal["skip", "queue", "run", "cancel"] = "skip"
    when: Literal["idle"] | None = None  # once due it waits for that
    max_delay_s: Seconds | None = None  # no longer than that; None: spool.max_delay_s
    is_paused: bool = False  # by an operator


def read_entries(
    settings: Settings, kept: Mapping[str, KeptEntry] | None = None
) -> dict[str, Entry]:
    """Check each table of the settings, in the file's order, and what the journal keeps."""
    load_kinds(settings.jobs.path, plugins())
    entries: dict[str, Entry] = {}
    for number, table in enumerate(settings.schedule, 1):
        name: Any = table.get("name")
        is_usable = isinstance(name, str) and NAME.fullmatch(name)
        if not is_usable or name in entries:
            rule = f"{NAME_RULE}, and another than those above"
            reason = f"expected name to be {rule}, got: {name!r}"
            entry = Entry(name=f"#{number}", invalid=reason)
        else:
            entry = read_entry(table, settings)
        entries[entry.name] = entry
    return with_kept(entries, kept or {}, settings)


def with_kept(
    of_file: Mapping[str, Entry], kept: Mapping[str, KeptEntry], settings: Settings
) -> dict[str, Entry]:
    """Add what the journal keeps to the entries of the file, whose names are theirs."""
    entries = dict(of_file)
    for name, one in kept.items():
        if one.table is not None and name not in entries:
            entries[name] = read_entry(one.table, settings)
        if one.is_paused and name in entries:
            entries[name] = structs.replace(entries[name], is_paused=True)
    return entries


def read_entry(table: dict[str, Any], settings: Settings) -> Entry:
    """Check one table with a usable name."""
    try:
        return _entry(table, settings)
    except (ValueError, UsageError) as e:
        return Entry(name=table["name"], invalid=str(e))


def to_utc(local: datetime, zone: ZoneInfo) -> datetime:
    """Place a local time without zone: the first occurrence, or the first valid moment after it."""
    at = local.replace(tzinfo=zone, fold=0)
    while (utc := at.astimezone(UTC)).astimezone(zone) != at:  # the clocks skip it
        at = at.replace(second=0, microsecond=0) + timedelta(minutes=1)
    return utc


def _entry(table: dict[str, Any], settings: Settings) -> Entry:
    """Convert one table.

    Raises:
        ValueError: with a sentence that says what is wrong.
        UsageError: the queue is not declared.
    """
    _refuse_unknown("", table, set(Entry.__struct_fields__) - {"invalid", "is_paused"})
    if isinstance(scan := table.get("scan"), dict):
        _refuse_unknown("scan.", scan, ScanRequest.__struct_fields__)
    given = [key for key in ("cron", "every_s", "at") if key in table]
    if len(given) != 1 and (given or table.get("task") != "drain"):
        raise ValueError(f"expected one of cron, every_s and at, got: {given or 'none'}")
    if ("scan" in table) == ("task" in table):
        got = "both" if "task" in table else "none"
        raise ValueError(
            f"expected scan, such as {{ targets = ['10.0.0.0/24'] }}, or task, got {got}"
        )
    if ("older_than_s" in table) != (table.get("task") == "prune"):
        raise ValueError("expected older_than_s with task = 'prune', and with no other")
    try:
        entry = msgspec.convert(table, Entry)
    except msgspec.ValidationError as e:
        what, _, path = str(e).rstrip("`").partition(" - at `$.")
        got = table[re.split(r"[.\[]", path)[0]]
        raise ValueError(f"{what.lower()} for {path}, got: {got!r}") from e
    if entry.cron is not None:
        check_cron(entry.cron)
    declared(settings, entry.queue)
    if entry.scan:
        check_asked(entry.scan.kinds, entry.scan.ports)
    zone = _zone(entry.zone)
    times = {key: getattr(entry, key) for key in ("at", "start", "end")}
    return structs.replace(entry, **{k: _place(k, at, zone) for k, at in times.items() if at})


def _refuse_unknown(prefix: str, table: Iterable[str], known: Iterable[str]) -> None:
    for key in table:
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1)
            hint = f", did you mean {prefix}{near[0]}?" if near else ""
            raise ValueError(f"unknown key {prefix}{key}{hint}")


def _zone(name: str) -> ZoneInfo:
    try:
        return ZoneInfo(name)
    except (OSError, ValueError, LookupError):
        raise ValueError(
            f"expected zone to be a name such as 'Europe/Berlin', got: {name!r}"
        ) from None


def _place(key: str, at: datetime, zone: ZoneInfo) -> datetime:
    if at.year not in _YEARS:
        raise ValueError(f"expected {key} to be from 1970 to 2199, got: {at}")
    return at.astimezone(UTC) if at.tzinfo else to_utc(at, zone)


def check_cron(text: str) -> None:
    """Check an expression.

    Raises:
        ValueError: it is wrong, or never due.
    """
    reason = "it is never due"
    try:
        if next(CronSim(NICKNAMES.get(text, text), datetime(2026, 1, 1)), None):  # noqa: DTZ001 - any time will do
            return
    except (CronSimError, ValueError) as e:
        reason = str(e)
    fields = "minute, hour, day, month and weekday, with the seconds before them if there are six"
    raise ValueError(f"cron {text!r} is wrong ({reason}); it has {fields}")
