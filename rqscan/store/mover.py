"""The mover: one batch of kept records into the store, and what it refuses into quarantine.

A batch is one transaction. Where rows in it are refused, its records are stored one by one, and the
rows of such a record that are to blame are found by halves: the rest of their chunk is stored. What
the stream holds goes through the spool when it is to be sorted out.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec import json, structs

from rqscan.errors import Fault, StoreUnavailable
from rqscan.model import ChunkRecord, Observation
from rqscan.store.database import Database
from rqscan.store.intake import Refusal, Taken
from rqscan.store.repository import Repository
from rqscan.store.spool import Refused, Spool, Spooled
from rqscan.tally import Moved

if TYPE_CHECKING:
    from rqscan.store.stream import Stream

__all__ = ["Mover"]

UNREADABLE, UNKNOWN, TOO_LARGE = "unreadable", "unknown_chunk", "too_large"
"""Codes of our own, beside those of the store's errors."""


class Mover:
    """Moves batch after batch; counts in `moved`."""

    def __init__(
        self, spool: Spool, stream: "Stream | None", database: Database, moved: Moved
    ) -> None:
        self._spool, self._stream, self._moved = spool, stream, moved
        self._refusal = database.dialect.refusal
        self._store = Repository(database)
        self._store_id = self._store.store_id()
        self._large = self._store.longest_statement() // 4
        """From so many bytes on a row may be too large, with what is added to it on its way."""

    def batch(self) -> list[Spooled]:
        """Give the oldest records, of the spool or else of the stream; none if there is none."""
        return self._spool.batch(self._store_id) or (self._stream.batch() if self._stream else [])

    def move(self, batch: Sequence[Spooled]) -> None:
        """Move a batch into the store.

        Raises:
            StoreUnavailable: the store is away; what was not moved stays where it is.
            HomeUnavailable: the spool cannot be used.
        """
        if self._stream and batch[0].store_id is not None:
            self._move_on(self._stream, batch)
            return
        if not self._try(batch):
            return
        for one in batch:
            left: Spooled | None = one
            while left and (error := self._try([left])):
                left = self._sort_out(left, error)

    def _move_on(self, stream: "Stream", batch: Sequence[Spooled]) -> None:
        """Move a batch out of the stream, into the spool what the store does not take as it is."""
        taken = self._offer([x for x in batch if x.store_id in {"", self._store_id}])
        left = batch
        if not isinstance(taken, Exception):
            left = [x for x in batch if taken.get(x.id, Taken.UNKNOWN) == Taken.UNKNOWN]
        if left:
            self._spool.put((x.record, x.rows, x.is_part, x.store_id or "") for x in left)
        stream.remove(batch)

    def _try(self, batch: Sequence[Spooled]) -> Exception | None:
        """Move a batch whole; gives the error if something in it is to blame."""
        taken = self._offer(batch)
        if isinstance(taken, Exception):
            return taken
        for one in batch:
            if taken[one.id] == Taken.UNKNOWN:
                reason = "no such chunk is planned in this store; was its scan removed?"
                self._set_aside(one, [_refused(one, one.record, one.rows, (UNKNOWN, reason))])
        self._spool.remove([x for x in batch if taken[x.id] != Taken.UNKNOWN])
        return None

    def _offer(self, batch: Sequence[Spooled]) -> dict[Any, Taken] | Exception:
        """Have the store record a batch; gives by id what it did, or the error of a record."""
        try:
            records = [(json.decode(x.record, type=ChunkRecord), x.is_part) for x in batch]
            taken = self._store.record_kept(records)
        except msgspec.MsgspecError as error:
            return error
        except StoreUnavailable as error:
            largest = max((len(one.record) for one in batch), default=0)
            if error.fault is not Fault.AWAY or largest <= self._large:
                raise  # else it may have hung up for a row
            return error
        except Exception as error:
            if self._refusal(error) is None:
                raise
            return error
        for one, its in zip(batch, taken, strict=True):
            self._moved.rows += one.rows if its == Taken.TAKEN else 0
            self._moved.fenced += one.rows if its == Taken.FENCED else 0
        return {one.id: its for one, its in zip(batch, taken, strict=True)}

    def _sort_out(self, one: Spooled, error: Exception) -> Spooled | None:
        """Put what is refused of a record into quarantine; gives what is left of it."""
        try:
            fields = json.decode(one.record)
            rows = [(row, _read(row)) for row in fields["observations"]]
            record = msgspec.convert(fields | {"observations": []}, ChunkRecord)
        except (msgspec.MsgspecError, TypeError, LookupError) as e:
            return self._set_aside(one, [_refused(one, one.record, one.rows, (UNREADABLE, str(e)))])
        bad = {n: (UNREADABLE, seen) for n, (_, seen) in enumerate(rows) if isinstance(seen, str)}
        bad = bad or self._refused(record, [seen for _, seen in rows])
        if not bad:
            if isinstance(error, StoreUnavailable):
                raise error
            whole = self._refusal(error) or UNREADABLE, str(error.args[-1])
            return self._set_aside(one, [_refused(one, one.record, one.rows, whole)])

        def encode(some: list[Any]) -> bytes:
            return json.encode(fields | {"observations": some})

        # What is left is stored first, so the rest can only come after it.
        part = one._replace(is_part=True)
        refused = [_refused(part, encode([rows[n][0]]), 1, why) for n, why in bad.items()]
        rest = encode([row for n, (row, _) in enumerate(rows) if n not in bad])
        return self._set_aside(one, refused, rest)

    def _refused(self, record: ChunkRecord, rows: list[Any]) -> dict[int, Refusal]:
        """Find by number the rows that the store refuses."""
        large = {n for n, seen in enumerate(rows) if len(json.encode(seen)) > self._large}
        bad = {n: why for n in large if (why := self._alone(record, rows[n]))}
        others = structs.replace(
            record, observations=[seen for n, seen in enumerate(rows) if n not in large]
        )
        numbers = {id(seen): n for n, seen in enumerate(rows)}
        return bad | {numbers[id(seen)]: why for seen, why in self._store.refused(others)}

    def _alone(self, record: ChunkRecord, seen: Observation) -> Refusal | None:
        try:
            found = self._store.refused(structs.replace(record, observations=[seen]))
        except StoreUnavailable as error:
            if error.fault is not Fault.AWAY:
                raise
            self._store.longest_statement()  # it answers, so it has hung up for the row
            return TOO_LARGE, str(error)
        return found[0][1] if found else None

    def _set_aside(
        self, one: Spooled, refused: list[Refused], rest: bytes | None = None
    ) -> Spooled | None:
        self._spool.set_aside(one, refused, rest)
        self._moved.quarantined += len(refused)
        rows = one.rows - sum(entry.rows for entry in refused)
        return one._replace(record=rest, rows=rows) if rest is not None else None


def _read(row: Any) -> Observation | str:
    """Read a row; gives what is wrong with it if it is none."""
    try:
        return msgspec.convert(row, Observation)
    except msgspec.ValidationError as error:
        return str(error)


def _refused(one: Spooled, record: bytes, rows: int, why: Refusal) -> Refused:
    return Refused(record=record, rows=rows, is_part=one.is_part, code=why[0], reason=why[1])
