"""Intake: chunk records as the store takes them, one whole transaction at a time, fenced.

Whatever is written here bears being written again: rows have deterministic keys, and the record's
(generation, attempt) decides whether it is still wanted.
"""

from collections.abc import Iterable, Iterator, Sequence
from enum import StrEnum
from functools import lru_cache
from ipaddress import ip_address
from typing import Any

from msgspec import json, structs

from rqscan.digest import blake2b
from rqscan.model import COVERAGE, ChunkRecord, Observation
from rqscan.store.chunks import text
from rqscan.store.database import Database

__all__ = ["NO_PORT", "Intake", "Refusal", "Taken", "host_key"]

NO_PORT = -1

KEPT_BUSY_S = 60.0
"""How long to go on with records that were kept while others are in the way: no job waits."""

Refusal = tuple[str, str]
"""Why the store refuses a row: its code and its words."""


class Taken(StrEnum):
    """What became of a record."""

    TAKEN = "taken"
    FENCED = "fenced"  # the chunk is cancelled, or has a newer attempt, or one that has finished
    UNKNOWN = "unknown"  # no such chunk is planned here


class Intake:
    """Writes chunk records.

    All methods raise StoreUnavailable when the database is away or refuses us, and the driver's
    own error where the rows are to blame (`dialect.refusal`): nothing of the call is kept then.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._queries = database.queries

    def record(self, record: ChunkRecord) -> bool:
        """Write how an attempt ended together with its rows, in place of an earlier attempt's.

        Written twice, it changes nothing.

        Returns:
            Whether it was taken; False when the chunk is cancelled or not planned, or a newer
            attempt was recorded, or one that has finished where this one failed.
        """
        return self._database.write(lambda it: self._record(it, record)) is Taken.TAKEN

    def record_kept(self, records: Sequence[tuple[ChunkRecord, bool]]) -> list[Taken]:
        """Write records that were kept on a disk meanwhile, in one transaction.

        With True beside it a record's rows come after the others of its attempt, which stay. One
        that has finished is wanted also where its chunk was planned anew since and nothing has come
        of that: while the store was away Redis may have forgotten that it had ended.
        """

        def write(connection: Any) -> list[Taken]:
            return [
                self._add_rows(connection, record)
                if is_part
                else self._record(connection, record, was_kept=True)
                for record, is_part in records
            ]

        return self._database.write(write, KEPT_BUSY_S)

    def finished(self, record: ChunkRecord) -> tuple[int, int] | None:
        """Give observations and probes of a record's chunk if another attempt has finished it.

        That is one of the same generation or of a newer one.
        """
        place = {name: getattr(record, name) for name in ("scan_id", "chunk", "generation")}
        with self._database.transaction(read_only=True) as connection:
            found = self._queries.finished_chunk(connection, **place)
        return None if found is None else (found[0], found[1])

    def refused(self, record: ChunkRecord) -> list[tuple[Observation, Refusal]]:
        """Find the rows of a record that the store does not take; nothing is written."""
        found: list[tuple[Observation, Refusal]] = []

        def look(connection: Any, some: Sequence[Observation]) -> None:
            try:
                self._put(connection, record, _keyed(record, some))
            except Exception as error:
                code = self._database.dialect.refusal(error)
                if code is None:
                    raise
                if len(some) == 1:
                    found.append((some[0], (code, str(error.args[-1]))))
                    return
                middle = len(some) // 2
                look(connection, some[:middle])
                look(connection, some[middle:])

        with self._database.transaction() as connection:
            look(connection, record.observations)
            connection.rollback()
        return found

    def longest_statement(self) -> int:
        """Give the most bytes that the store takes in one statement."""
        with self._database.transaction(read_only=True) as connection:
            return int(self._queries.longest_statement(connection))

    def _record(self, connection: Any, record: ChunkRecord, *, was_kept: bool = False) -> Taken:
        keyed = _keyed(record, record.observations)
        values = structs.asdict(record) | {
            "started_at": text(record.started_at),
            "finished_at": text(record.finished_at),
            "observations": sum(seen.state != COVERAGE for seen in keyed.values()),
            "error": record.error and record.error.encode("utf-8", "replace").decode(),
        }
        if not self._queries.record_chunk(connection, **values, was_kept=was_kept):
            return self._fenced(connection, record)
        self._queries.delete_rows(connection, scan_id=record.scan_id, chunk=record.chunk)
        self._put(connection, record, keyed)
        return Taken.TAKEN

    def _add_rows(self, connection: Any, record: ChunkRecord) -> Taken:
        place = {name: getattr(record, name) for name in ("scan_id", "chunk")}
        fence = place | {"generation": record.generation, "attempt": record.attempt}
        if not self._queries.lock_chunk(connection, **fence):
            return self._fenced(connection, record)
        self._put(connection, record, _keyed(record, record.observations))
        self._queries.count_rows(connection, **place)
        return Taken.TAKEN

    def _put(self, connection: Any, record: ChunkRecord, keyed: dict[bytes, Observation]) -> None:
        self._queries.put_rows(connection, _rows(record, keyed))

    def _fenced(self, connection: Any, record: ChunkRecord) -> Taken:
        place = {"scan_id": record.scan_id, "chunk": record.chunk}
        is_known = self._queries.has_chunk(connection, **place)
        return Taken.FENCED if is_known else Taken.UNKNOWN


@lru_cache(1_000)
def host_key(host: str) -> bytes:
    """Make bytes that sort as the address does: IPv4, then IPv6, then names."""
    try:
        address = ip_address(host)
    except ValueError:
        return b"\x7f" + host.encode()
    return bytes([address.version]) + address.packed + host.partition("%")[2].encode()


def _keyed(record: ChunkRecord, some: Iterable[Observation]) -> dict[bytes, Observation]:
    """Give observations by their keys: of two about the same the last.

    In the order of keys, so two chunks that share rows wait for each other in line.
    """
    before, of_chunk = f"{record.scan_id}\0{record.kind}\0", f"\0{record.chunk}"
    found = {}
    for seen in some:
        port = NO_PORT if seen.port is None else seen.port
        about = f"{before}{host_key(seen.host).hex()}\0{port}\0{seen.proto}"
        if seen.state == COVERAGE:
            about += of_chunk
        found[blake2b(about.encode(), digest_size=16).digest()] = seen
    return {key: found[key] for key in sorted(found)}


def _rows(record: ChunkRecord, keyed: dict[bytes, Observation]) -> Iterator[tuple[Any, ...]]:
    """Make rows as `put_rows` takes them."""
    scan_id, chunk, kind = record.scan_id, record.chunk, record.kind
    for key, seen in keyed.items():
        host = seen.host
        yield (
            key,
            scan_id,
            chunk,
            kind,
            host,
            host_key(host),
            NO_PORT if seen.port is None else seen.port,
            seen.proto,
            seen.state,
            json.encode(seen.data).decode(),
            text(seen.observed_at),
        )
