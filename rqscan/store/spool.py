"""The spool: chunk records on this host's disk that are not in the store yet, oldest first.

A chunk's record with all its rows is one row of the file: the store takes it in one transaction,
and fences it as a whole, so a part of it could neither be judged nor replayed. What the store
refuses of it goes to quarantine row by row, in the transaction that takes it out of the record.
"""

import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from functools import partial
from typing import Any, NamedTuple

from msgspec import json, structs

from rqscan import clock
from rqscan.errors import HomeUnavailable
from rqscan.home import known_id
from rqscan.model import ChunkRecord
from rqscan.settings import Settings
from rqscan.store.chunks import text
from rqscan.store.spool_file import SpoolFile
from rqscan.tally import Backlog

__all__ = ["Quarantined", "Refused", "Spool", "Spooled", "encoded"]

BATCH_RECORDS, BATCH_ROWS, BATCH_BYTES = 500, 1_000, 1_000_000
"""Most of one batch, but for its first record."""

LOGGED, OVERHEAD_BYTES = 2, 32_768
"""What comes in is in the file's log first, and then for a while in both; with pages around it."""

PAGE = 100


class Spooled(NamedTuple):
    """A record as it lies in the spool, or in the stream."""

    id: Any  # an int; bytes in the stream
    rows: int
    is_part: bool  # its rows come after the others of their attempt
    record: bytes  # a ChunkRecord, JSON
    store_id: str | None = None  # told by the stream alone, which is not asked for one store's


class Refused(NamedTuple):
    """What the store refuses: a chunk's record, with the refused rows alone."""

    record: bytes
    rows: int
    is_part: bool
    code: str
    reason: str


class Quarantined(NamedTuple):
    """An entry of the quarantine."""

    id: int
    rows: int
    first_seen: datetime
    code: str
    reason: str
    record: bytes


def encoded(record: ChunkRecord) -> bytes:
    """Write a record as the spool has it: JSON."""
    error = record.error and record.error.encode("utf-8", "replace").decode()
    return json.encode(structs.replace(record, error=error))


class Spool:
    """The spool of one home; every method is one durable transaction, or one a page.

    All of them raise HomeUnavailable when the file cannot be used.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self.file = SpoolFile(settings.home)
        self._queries: Any = self.file.queries

    def foresee(self) -> None:
        """Make the names that each fork of this process would else make for its record."""
        known_id(self._settings)
        _ = self.file.bytes

    def append(self, record: ChunkRecord) -> None:
        """Keep a record; it is on the disk when this returns.

        Raises:
            HomeUnavailable: the spool, or its disk, is full: the record was not taken.
        """
        raw = encoded(record)
        most = self._settings.spool.max_bytes
        if self.file.bytes + LOGGED * len(raw) + OVERHEAD_BYTES > most:
            raise HomeUnavailable(
                f"the spool '{self.file.path}' is full: {self.file.bytes} of {most} bytes are "
                f"used, and the record has {len(raw)}; see to the database, or raise "
                "spool.max_bytes"
            )
        self.put([(raw, len(record.observations), False, known_id(self._settings))])

    def put(self, records: Iterable[tuple[bytes, int, bool, str]]) -> None:
        """Keep records: each as JSON, with its rows counted, whether it is a part, its store."""
        now = text(clock.now())
        names = ("record", "rows", "is_part", "store_id")
        rows = [dict(zip(names, one, strict=True)) | {"spooled_at": now} for one in records]

        def add(connection: sqlite3.Connection) -> None:
            for row in rows:
                self._queries.add_record(connection, **row)

        self.file.run(add)

    def batch(self, store_id: str) -> list[Spooled]:
        """Give the oldest records that are for a store; none when there are no more."""
        if not self.file.exists:
            return []

        def read(connection: sqlite3.Connection) -> list[Spooled]:
            found = self._queries.oldest(connection, store_id=store_id, count=BATCH_RECORDS)
            first = last = found[0][0] if found else 0
            rows = size = 0
            for number, its_rows, its_size in found:
                rows, size = rows + its_rows, size + its_size
                if number != first and (rows > BATCH_ROWS or size > BATCH_BYTES):
                    break
                last = number
            between = {"first": first, "last": last, "store_id": store_id}
            return [
                Spooled(number, its_rows, bool(is_part), record)
                for number, its_rows, is_part, record in self._queries.contents(
                    connection, **between
                )
            ]

        return self.file.run(read, for_room=True)

    def remove(self, records: Sequence[Spooled]) -> None:
        """Forget records that the store has committed, and give their room back to the disk."""
        ids = [(one.id,) for one in records]
        self.file.run(lambda connection: self._queries.remove(connection, ids), for_room=True)

    def set_aside(self, spooled: Spooled, refused: Iterable[Refused], rest: bytes | None) -> None:
        """Move what the store refuses of a record to quarantine; `rest` is what remains of it.

        Args:
            spooled: the record.
            refused: what the store refuses of it.
            rest: the record without that; None if nothing is to remain.
        """
        now, entries = text(clock.now()), list(refused)
        rows = spooled.rows - sum(one.rows for one in entries)

        def move(connection: sqlite3.Connection) -> None:
            for one in entries:
                self._queries.set_aside(connection, id=spooled.id, first_seen=now, **one._asdict())
            if rest is None:
                self._queries.remove(connection, [(spooled.id,)])
            else:
                self._queries.change(connection, id=spooled.id, rows=rows, record=rest)

        self.file.run(move, for_room=True)

    def status(self) -> Backlog:
        """Tell what it holds."""
        if not self.file.exists:
            return Backlog()
        records, rows, oldest, quarantined = self.file.run(
            self._queries.totals, for_room=True, is_read=True
        )
        return Backlog(
            records=records,
            rows=rows,
            bytes=self.file.bytes,
            oldest_at=clock.from_iso(oldest) if oldest else None,
            quarantined=quarantined,
        )

    def scans(self) -> set[str]:
        """Give the ids of the scans that it holds something of, in quarantine too."""
        if not self.file.exists:
            return set()
        return {scan_id for (scan_id,) in self.file.run(self._queries.scans, is_read=True)}

    def quarantined(self) -> Iterator[Quarantined]:
        """Give the entries of the quarantine, the oldest first."""
        after = 0
        while self.file.exists:
            page = self.file.run(
                partial(self._queries.quarantined, after=after, page=PAGE), is_read=True
            )
            for number, rows, first_seen, *rest in page:
                yield Quarantined(number, rows, clock.from_iso(first_seen), *rest)
                after = number
            if len(page) < PAGE:
                return

    def put_back(self, ids: Iterable[int]) -> list[int]:
        """Let the store be asked again for these entries; gives those that there were."""
        now = text(clock.now())
        return self._take_out(ids, lambda c, n: self._queries.put_back(c, id=n, spooled_at=now))

    def drop(self, ids: Iterable[int]) -> list[int]:
        """Forget these entries for good; gives those that there were."""
        return self._take_out(ids, lambda _connection, _id: None)

    def _take_out(self, ids: Iterable[int], before: Any) -> list[int]:
        wanted = list(ids)

        def take_out(connection: sqlite3.Connection) -> list[int]:
            taken = []
            for number in wanted:
                before(connection, number)
                if self._queries.drop_quarantined(connection, id=number):
                    taken.append(number)
            return taken

        return self.file.run(take_out) if self.file.exists else []
