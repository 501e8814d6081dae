"""The journal of the schedule: entries of the command line, who is paused, and what came of runs.

What Redis may forget and the schedule may not.
"""

from contextlib import suppress
from datetime import datetime
from functools import partial
from typing import Any, NamedTuple

from msgspec import json, structs

from rqscan import clock
from rqscan.model import RunRecord
from rqscan.store.chunks import BATCH, text
from rqscan.store.database import Database

__all__ = ["Journal", "KeptEntry"]


class KeptEntry(NamedTuple):
    """What is kept of an entry; `table` is None for one of the settings."""

    table: dict[str, Any] | None
    is_paused: bool


class Journal:
    """Reads and writes the journal of one store.

    All methods raise StoreUnavailable when the database is away or refuses us.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._queries = database.queries

    def entries(self) -> dict[str, KeptEntry]:
        """Give what is kept, by name."""
        with self._database.transaction(read_only=True) as connection:
            return {
                name: KeptEntry(entry and json.decode(entry), bool(is_paused))
                for name, entry, is_paused in self._queries.entries(connection)
            }

    def add_entry(self, name: str, table: dict[str, Any]) -> bool:
        """Keep an entry; False if there is one of that name."""
        row = {"name": name, "entry": json.encode(table).decode()}

        def write(connection: Any) -> bool:
            try:
                self._queries.add_entry(connection, **row, changed_at=_now())
            except self._database.dialect.integrity_error:
                return bool(self._queries.set_entry(connection, **row))
            return True

        return self._database.write(write)

    def remove_entry(self, name: str) -> bool:
        """Forget an entry of the command line; False if there is none."""
        remove = self._queries.remove_entry
        return bool(self._database.write(lambda connection: remove(connection, name=name)))

    def pause(self, name: str, *, is_paused: bool) -> None:
        """Pause or resume an entry, of the command line or of the settings."""
        row = {"name": name, "changed_at": _now()}

        def write(connection: Any) -> None:
            if not self._queries.pause_entry(connection, **row, is_paused=is_paused):
                with suppress(self._database.dialect.integrity_error):  # another was quicker
                    self._queries.add_entry(connection, **row, entry=None)
                self._queries.pause_entry(connection, **row, is_paused=is_paused)

        self._database.write(write)

    def add_run(self, run: RunRecord) -> None:
        """Note what came of a run; what was noted first stands."""
        row = structs.asdict(run)
        row |= {"due_at": text(run.due_at), "fired_at": text(run.fired_at)}
        self._database.write(lambda connection: self._queries.add_run(connection, **row))

    def runs(self, name: str | None, count: int) -> list[RunRecord]:
        """Give the newest runs, of one entry or of all, the newest first."""
        with self._database.transaction(read_only=True) as connection:
            if name is None:
                found = self._queries.runs(connection, count=count)
            else:
                found = self._queries.runs_of(connection, name=name, count=count)
            return [_as_run(row) for row in found]

    def last_due(self) -> dict[str, datetime]:
        """Tell when each entry was due last, of what is known to have come of it."""
        with self._database.transaction(read_only=True) as connection:
            found = self._queries.last_runs(connection)
            return {name: clock.from_iso(due_at) for name, due_at in found}

    def forget_runs(self, before: datetime) -> int:
        """Forget the runs that were due before a time, but the last of each entry; counts them."""
        count = 0
        for name, last in self.last_due().items():
            only = {"name": name, "before": text(min(before, last)), "page": BATCH}
            forget = partial(self._queries.delete_some_runs, **only)
            while some := self._database.write(forget):
                count += some
        return count

    def last_scan(self, name: str) -> str | None:
        """Give the id of the scan that an entry started last."""
        with self._database.transaction(read_only=True) as connection:
            found: str | None = self._queries.last_scan(connection, name=name)
            return found


def _as_run(row: tuple[Any, ...]) -> RunRecord:
    fields = dict(zip(RunRecord.__struct_fields__, row, strict=True))
    for key in ("due_at", "fired_at"):
        fields[key] = clock.from_iso(fields[key])
    return RunRecord(**fields)


def _now() -> str:
    return text(clock.now())
