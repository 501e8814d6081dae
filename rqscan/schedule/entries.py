"""Schedule entries: raw tables of ``[[schedule]]`` in, checked entries out, one by one.

A bad table becomes an entry with a reason in `invalid` and harms no other. A key of the contract
that is not in force yet makes its entry invalid as well: nothing that was asked for is ignored.
"""

import difflib
import re
from collections.abc import Container, Iterable
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Literal
from zoneinfo import ZoneInfo

import msgspec
from cronsim import CronSim, CronSimError
from msgspec import Meta, Struct, field

from rqscan.broker.queues import declared
from rqscan.config import Settings
from rqscan.errors import UsageError

__all__ = ["ALIASES", "Entry", "ScanRequest", "read_entries", "to_utc"]

ALIASES = {
    "@hourly": "0 * * * *",
    "@daily": "0 0 * * *",
    "@midnight": "0 0 * * *",
    "@weekly": "0 0 * * 0",
    "@monthly": "0 0 1 * *",
    "@yearly": "0 0 1 1 *",
    "@annually": "0 0 1 1 *",
}
"""Names for cron expressions, as crontab(5) has them."""

_NOT_YET = {"task", "when", "max_delay_s", "misfire_limit", "misfire_deadline_s"}
_SCAN_NOT_YET = {"profile", "rate", "skip_out_of_scope", "params"}
_VALUES_NOT_YET = {"misfire": ("skip", "all"), "overlap": ("queue", "cancel")}
_YEARS = range(1970, 2200)  # whatever is computed from these fits a datetime


class ScanRequest(Struct, frozen=True, forbid_unknown_fields=True):
    """What a due entry asks for."""

    targets: Annotated[list[str], Meta(min_length=1)]
    kinds: Annotated[list[str], Meta(min_length=1)] = field(default_factory=lambda: ["ports"])
    ports: str | None = None
    exclude: list[str] = field(default_factory=list)


class Entry(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One schedule entry; exactly one of `cron`, `every_s` and `at` is set, or it is `invalid`."""

    name: str  # unique; "#3" for the third table if that has no usable name
    invalid: str | None = None  # why it never runs
    cron: str | None = None  # five fields, six with the seconds first, or one of `ALIASES`
    every_s: Annotated[float, Meta(ge=0.001, le=1e9)] | None = None
    at: datetime | None = None
    zone: str = "UTC"
    scan: ScanRequest | None = None
    queue: str = "default"
    enabled: bool = True
    start: datetime | None = None  # no run before, and the anchor of `every_s`
    end: datetime | None = None  # no run after
    jitter_s: Annotated[float, Meta(ge=0, le=86_400)] = 0
    misfire: Literal["once"] = "once"
    overlap: Literal["skip", "run"] = "skip"


def read_entries(settings: Settings) -> list[Entry]:
    """Check each table of the schedule; one entry a table, in the file's order."""
    entries: dict[str, Entry] = {}
    for number, table in enumerate(settings.schedule, 1):
        name = f"#{number}"
        try:
            _check_name(table.get("name"), entries)
            name = table["name"]
            entries[name] = _entry(table, settings)
        except (ValueError, UsageError) as e:
            entries[name] = Entry(name=name, invalid=str(e))
    return list(entries.values())


def to_utc(local: datetime, zone: ZoneInfo) -> datetime:
    """Place a local time without zone: the first occurrence, or the first valid moment after it."""
    at = local.replace(tzinfo=zone, fold=0)
    while (utc := at.astimezone(UTC)).astimezone(zone) != at:  # the clocks skip it
        at = at.replace(second=0, microsecond=0) + timedelta(minutes=1)
    return utc


def _check_name(name: Any, known: Container[str]) -> None:
    if not isinstance(name, str) or not re.fullmatch(r"[A-Za-z0-9_-]{1,64}", name):
        raise ValueError(f"expected name to be 1 to 64 letters, digits, _ or -, got: {name!r}")
    if name in known:
        raise ValueError(f"name {name!r} is used by an entry above; choose another")


def _entry(table: dict[str, Any], settings: Settings) -> Entry:
    """Convert one table.

    Raises:
        ValueError: with a sentence that says what is wrong.
        UsageError: the queue is not declared.
    """
    _check_keys("", table, set(Entry.__struct_fields__) - {"invalid"}, _NOT_YET)
    if isinstance(scan := table.get("scan"), dict):
        _check_keys("scan.", scan, ScanRequest.__struct_fields__, _SCAN_NOT_YET)
    for key, values in _VALUES_NOT_YET.items():
        if table.get(key) in values:
            raise ValueError(f"{key} = {table[key]!r} is not available yet")
    given = [key for key in ("cron", "every_s", "at") if key in table]
    if len(given) != 1:
        raise ValueError(f"expected one of cron, every_s and at, got: {given or 'none'}")
    if "scan" not in table:
        raise ValueError("expected scan, such as { targets = ['10.0.0.0/24'] }, got none")
    zone = _zone(table.get("zone", "UTC"))
    times = {key: _time(key, table[key], zone) for key in ("at", "start", "end") if key in table}
    try:
        entry = msgspec.convert(table | times, Entry)
    except msgspec.ValidationError as e:
        what, _, path = str(e).partition(" - at `$.")
        got = table[path.rstrip("`").partition("[")[0].partition(".")[0]]
        raise ValueError(f"{what.lower()} for {path.rstrip('`')}, got: {got!r}") from e
    if entry.cron is not None:
        _check_cron(entry.cron)
    declared(settings, entry.queue)
    return entry


def _check_keys(prefix: str, table: Iterable[str], known: Iterable[str], later: set[str]) -> None:
    for key in table:
        if key in later:
            raise ValueError(f"{prefix}{key} is not available yet")
        if key not in known:
            near = difflib.get_close_matches(key, known, n=1)
            hint = f", did you mean {prefix}{near[0]}?" if near else ""
            raise ValueError(f"unknown key {prefix}{key}{hint}")


def _zone(name: Any) -> ZoneInfo:
    try:
        return ZoneInfo(name)
    except (OSError, ValueError, TypeError, AttributeError, LookupError):
        raise ValueError(
            f"expected zone to be a name such as 'Europe/Berlin', got: {name!r}"
        ) from None


def _time(key: str, value: Any, zone: ZoneInfo) -> datetime:
    """Read an ISO time, local to the zone unless it has an offset."""
    try:
        at = value if isinstance(value, datetime) else datetime.fromisoformat(value)
    except (ValueError, TypeError):
        at = None
    if at is None or at.year not in _YEARS:
        raise ValueError(f"expected {key} to be like '2026-12-01T02:00:00', got: {value!r}")
    return at.astimezone(UTC) if at.tzinfo else to_utc(at, zone)


def _check_cron(text: str) -> None:
    expression = ALIASES.get(text.strip().lower(), text)
    try:
        next(CronSim(expression, datetime(2026, 1, 1)))  # noqa: DTZ001 - any time will do
    except (CronSimError, ValueError) as e:
        raise ValueError(
            f"cron {text!r} is wrong ({e}); it has minute, hour, day, month and weekday, with the "
            f"seconds before them if there are six, or is one of {', '.join(ALIASES)}"
        ) from e
    except StopIteration:
        raise ValueError(f"cron {text!r} is never due") from None
