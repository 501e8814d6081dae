"""What `rqscan schedule` shows: entries with their next and last runs, and what came of runs."""

import math
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

from msgspec import MsgspecError, Struct, convert, json
from msgspec.structs import asdict, replace

from rqscan.batches import batches
from rqscan.broker import keys
from rqscan.cli.show import print_table
from rqscan.model import RunRecord
from rqscan.schedule import table
from rqscan.schedule.calendar import fire_at, next_due
from rqscan.schedule.entries import Entry
from rqscan.schedule.misfire import Run
from rqscan.store.journal import Journal

__all__ = ["Standing", "entry_rows", "history_rows", "in_zone", "print_entries", "row_of", "unlike"]

PAGE = 1_000
COLUMNS = (
    "name", "due", "zone", "next", "next_utc", "last", "last_utc", "lateness_s", "state", "reason",
)  # fmt: skip


class Standing(Struct, frozen=True, kw_only=True):
    """What Redis knows of an entry and of its last run."""

    digest: str = ""
    state: str = ""
    fires_at: datetime | None = None
    outcome: str = ""
    reason: str = ""
    last_at: datetime | None = None
    lateness_s: float | None = None


def entry_rows(
    entries: Mapping[str, Entry], client: Any, journal: Journal, now: datetime
) -> list[dict[str, Any]]:
    """Give each entry under the names of the JSON output.

    Of a last run that Redis has forgotten the journal tells.

    Raises:
        redis.RedisError, StoreUnavailable: a server is away.
    """
    known = _known(client, entries)
    had_runs = journal.last_due() if any(not one.outcome for one in known.values()) else {}
    for name in had_runs.keys() & known.keys():
        if not known[name].outcome:
            known[name] = _with_last(known[name], journal.runs(name, 1))
    return [row_of(entry, known[name], now) for name, entry in entries.items()]


def row_of(entry: Entry, known: Standing, now: datetime) -> dict[str, Any]:
    """Give one entry; what no scheduler has seen of it yet is computed."""
    state, next_at = known.state, known.fires_at
    if known.digest != table.digest([entry]):
        due = next_due(entry, now)
        state, next_at = table.state_of(entry, due), due and fire_at(entry, due)
    if known.outcome == "waiting" and not entry.invalid:
        state = "waiting"
    of_run = known.reason if known.outcome not in {"", "fired"} else ""
    return {
        "name": entry.name,
        "cron": entry.cron,
        "every_s": entry.every_s,
        "at": entry.at,
        "zone": entry.zone,
        "queue": entry.queue,
        "when": entry.when,
        "paused": entry.is_paused,
        "next_at": next_at,
        "last_at": known.last_at,
        "lateness_s": known.lateness_s,
        "state": state,
        "reason": entry.invalid or of_run or None,
    }


def unlike(entries: Mapping[str, Entry], client: Any) -> list[str]:
    """Name the entries that Redis, and so the scheduler that leads, has otherwise or not.

    Raises:
        redis.RedisError: Redis is away.
    """
    theirs = {name: known.digest for name, known in (table.read(client) or {}).items()}
    ours = {name: table.digest([entry]) for name, entry in entries.items()}
    return sorted({name for name, _ in ours.items() ^ theirs.items()})


def print_entries(rows: Iterable[dict[str, Any]]) -> None:
    """Print entries for people: times in the entry's zone and in UTC."""
    shown = []
    for row in rows:
        due = row["cron"] or (f"every {row['every_s']:g} s" if row["every_s"] else "")
        if row["at"]:
            due = f"at {in_zone(row['at'], row['zone'])}"
        cells = {"due": due}
        for which in ("next", "last"):
            at = row[f"{which}_at"]
            cells[which] = in_zone(at, row["zone"]) if at else ""
            cells[f"{which}_utc"] = f"{at:%Y-%m-%d %H:%M:%S}Z" if at else ""
        shown.append(row | cells)
    print_table(COLUMNS, shown)


def in_zone(at: datetime, zone: str) -> str:
    """Write a time as the clocks of a zone show it, with what they are off by."""
    return at.astimezone(ZoneInfo(zone)).isoformat(" ", "seconds")


def history_rows(
    name: str | None, count: int, entries: Mapping[str, Entry], client: Any, journal: Journal
) -> list[dict[str, Any]]:
    """Give the newest runs of one entry or of all, the newest first, as the JSON output has them.

    The runs that are not made yet come first, then the entries that have none since they are
    invalid.

    Raises:
        redis.RedisError, StoreUnavailable: a server is away.
    """
    waiting = _waiting(client, name)  # first: a run is in the journal before it is off the list
    kept = journal.runs(name, count)
    noted = {(run.name, run.due_at) for run in kept}
    invalid = [
        _invalid_row(entry)
        for entry in entries.values()
        if entry.invalid and name in {None, entry.name}
    ]
    not_noted = [row for row in waiting if (row["name"], row["due_at"]) not in noted]
    made = [asdict(run) | {"reason": run.reason or None} for run in kept]
    return [*not_noted, *invalid, *made][:count]


def _known(client: Any, names: Iterable[str]) -> dict[str, Standing]:
    found = {}
    for some in batches(names, PAGE):
        with client.pipeline(transaction=False) as pipe:
            for name in some:
                pipe.hgetall(keys.schedule_entry(name)).zscore(keys.SCHEDULE, name)
            answers = iter(pipe.execute())
        for name, fields, at_s in zip(some, answers, answers, strict=False):
            texts = {
                k.decode(errors="replace"): v.decode(errors="replace") for k, v in fields.items()
            }
            said: dict[str, Any] = {field: text for field, text in texts.items() if text}
            if at_s is not None and math.isfinite(at_s):
                said["fires_at"] = datetime.fromtimestamp(at_s, UTC)
            try:
                found[name] = convert(said, Standing, strict=False)
            except MsgspecError:  # nothing that we wrote
                found[name] = Standing()
    return found


def _with_last(known: Standing, runs: list[RunRecord]) -> Standing:
    for run in runs:
        return replace(
            known, outcome=run.outcome, reason=run.reason,
            last_at=run.due_at, lateness_s=run.lateness_s,
        )  # fmt: skip
    return known


def _waiting(client: Any, name: str | None) -> list[dict[str, Any]]:
    runs = []
    for raw, fired_s in client.zrange(keys.RUNS, 0, -1, withscores=True):
        try:
            run = json.decode(raw, type=Run)
        except MsgspecError:  # nothing that we wrote; who makes runs notes it
            continue
        if name in {None, run.entry.name}:
            runs.append((run, datetime.fromtimestamp(fired_s, UTC)))
    if not runs:
        return []
    known = _known(client, {run.entry.name for run, _ in runs})
    why = None if client.exists(keys.LEADER) else "no scheduler leads"
    rows = [_waiting_row(run, fired_at, known[run.entry.name], why) for run, fired_at in runs]
    return sorted(rows, key=lambda row: (row["due_at"], row["name"]), reverse=True)


def _waiting_row(run: Run, fired_at: datetime, known: Standing, why: str | None) -> dict[str, Any]:
    is_told = known.outcome == "waiting" and known.last_at == run.due
    return {
        "name": run.entry.name,
        "due_at": run.due,
        "fired_at": fired_at,
        "lateness_s": round((fired_at - run.at) / timedelta(seconds=1), 6),
        "outcome": "waiting",
        "reason": why or (known.reason if is_told else None),
        "scan_id": None,
    }


def _invalid_row(entry: Entry) -> dict[str, Any]:
    nothing = dict.fromkeys(RunRecord.__struct_fields__)
    return nothing | {"name": entry.name, "outcome": "invalid", "reason": entry.invalid}
