"""Schedule entries: raw tables of ``[[schedule]]`` in, checked entries out, one by one.

A bad table becomes an entry with a reason in `invalid` and harms no other; so does one with a key
that is not in force yet: nothing that was asked for is ignored.
"""

import difflib
import re
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Literal
from zoneinfo import ZoneInfo

import msgspec
from cronsim import CronSim, CronSimError
from msgspec import Meta, Struct, field, structs

from rqscan.broker.queues import declared
from rqscan.errors import UsageError
from rqscan.scan.kinds import load_kinds
from rqscan.scan.plan import check_asked
from rqscan.scan.plugins import plugins
from rqscan.settings import Settings

__all__ = ["Entry", "ScanRequest", "read_entries", "to_utc"]

_YEARS = range(1970, 2200)  # whatever is computed from these fits a datetime

NOT_IN_FORCE = frozenset(
    {"jitter_s", "max_delay_s", "misfire_deadline_s", "misfire_limit", "task", "when"}
)
"""Keys that the settings may have one day: said apart from misspelt ones."""


class ScanRequest(Struct, frozen=True):
    """What a due entry asks for; the names are those of `make_plan`."""

    targets: Annotated[list[str], Meta(min_length=1)]
    kinds: Annotated[list[str], Meta(min_length=1)] = field(default_factory=lambda: ["ports"])
    ports: str | None = None
    exclude: list[str] = field(default_factory=list)


class Entry(Struct, frozen=True, kw_only=True):
    """One schedule entry; exactly one of `cron`, `every_s` and `at` is set, or it is `invalid`."""

    name: str  # unique; "#3" for the third table if that has no usable name
    invalid: str | None = None  # why it never runs
    cron: str | None = None  # five fields, or six with the seconds first
    every_s: Annotated[float, Meta(ge=1, le=1e9)] | None = None
    at: datetime | None = None
    zone: str = "UTC"
    scan: ScanRequest | None = None
    queue: str = "default"
    enabled: bool = True
    start: datetime | None = None  # no run before, and the anchor of `every_s`
    end: datetime | None = None  # no run after
    misfire: Literal["once"] = "once"
    overlap: Literal["skip", "run"] = "skip"


def read_entries(settings: Settings) -> list[Entry]:
    """Check each table of the schedule; one entry a table, in the file's order."""
    load_kinds(settings.jobs.path, plugins())
    entries: dict[str, Entry] = {}
    for number, table in enumerate(settings.schedule, 1):
        name: Any = table.get("name")
        is_usable = isinstance(name, str) and re.fullmatch(r"[A-Za-z0-9_-]{1,64}", name)
        if not is_usable or name in entries:
            rule = "1 to 64 letters, digits, _ or -, and another than those above"
            reason = f"expected name to be {rule}, got: {name!r}"
            entry = Entry(name=f"#{number}", invalid=reason)
        else:
            try:
                entry = _entry(table, settings)
            except (ValueError, UsageError) as e:
                entry = Entry(name=name, invalid=str(e))
        entries[entry.name] = entry
    return list(entries.values())


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
    _refuse_unknown("", table, set(Entry.__struct_fields__) - {"invalid"})
    if isinstance(scan := table.get("scan"), dict):
        _refuse_unknown("scan.", scan, ScanRequest.__struct_fields__)
    given = [key for key in ("cron", "every_s", "at") if key in table]
    if len(given) != 1:
        raise ValueError(f"expected one of cron, every_s and at, got: {given or 'none'}")
    if "scan" not in table:
        raise ValueError("expected scan, such as { targets = ['10.0.0.0/24'] }, got none")
    try:
        entry = msgspec.convert(table, Entry)
    except msgspec.ValidationError as e:
        what, _, path = str(e).rstrip("`").partition(" - at `$.")
        got = table[re.split(r"[.\[]", path)[0]]
        raise ValueError(f"{what.lower()} for {path}, got: {got!r}") from e
    if entry.cron is not None:
        _check_cron(entry.cron)
    declared(settings, entry.queue)
    assert entry.scan  # or it would have been refused above
    check_asked(entry.scan.kinds, entry.scan.ports)
    zone = _zone(entry.zone)
    times = {key: getattr(entry, key) for key in ("at", "start", "end")}
    return structs.replace(entry, **{k: _place(k, at, zone) for k, at in times.items() if at})


def _refuse_unknown(prefix: str, table: Iterable[str], known: Iterable[str]) -> None:
    for key in table:
        if key in NOT_IN_FORCE:
            raise ValueError(f"{prefix}{key} is not in force in this version; leave it out")
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


def _check_cron(text: str) -> None:
    reason = "it is never due"
    try:
        if next(CronSim(text, datetime(2026, 1, 1)), None):  # noqa: DTZ001 - any time will do
            return
    except (CronSimError, ValueError) as e:
        reason = str(e)
    fields = "minute, hour, day, month and weekday, with the seconds before them if there are six"
    raise ValueError(f"cron {text!r} is wrong ({reason}); it has {fields}")
