"""The plan chunk by chunk: what is enqueued, lost, cancelled or to be done again.

A chunk that is planned and not marked as enqueued is to be put into its queue, by whoever sees it,
under its generation; that is the whole agreement between those who do so at the same time.
"""

from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from functools import partial
from typing import Any, NamedTuple

from msgspec import json

from rqscan import clock
from rqscan.batches import batches
from rqscan.states import ChunkState
from rqscan.store.database import Database

__all__ = ["BATCH", "Chunks", "PlannedChunk", "text"]

BATCH = 1_000  # of a page: memory stays flat, and the gain of more is small


class PlannedChunk(NamedTuple):
    """A chunk as the plan has it."""

    number: int
    generation: int
    state: str  # a ChunkState
    is_enqueued: bool
    observations: int
    probes: int
    attempt: int  # of the latest record


class Chunks:
    """The chunks of the store's plans; every method is one transaction, or one a page or batch.

    All of them raise StoreUnavailable when the database is away or refuses us.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._queries = database.queries

    def pages(self, scan_id: str) -> Iterator[list[PlannedChunk]]:
        """Give a scan's chunks in order, a page at a time."""
        for page in self._pages(self._queries.plan_page, scan_id):
            yield [PlannedChunk(*row) for row in page]

    def unenqueued(self, scan_id: str) -> Iterator[list[tuple[int, int]]]:
        """Give the planned chunks that are not marked as enqueued: number and generation."""
        return self._pages(self._queries.unenqueued, scan_id)

    def mark_enqueued(self, scan_id: str, chunks: Iterable[int], generation: int = 1) -> None:
        """Note that the jobs of these chunks in a generation were put; not of a newer one's."""
        of_put = {"generation": generation, "enqueued_at": text(clock.now())}
        self._change(self._queries.mark_enqueued, scan_id, chunks, **of_put)

    def unfinished_scans(self) -> list[str]:
        """Give the ids of the scans that have planned chunks."""
        with self._database.transaction(read_only=True) as connection:
            return [scan_id for (scan_id,) in self._queries.unfinished_scans(connection)]

    def unenqueued_scans(self, before: datetime) -> list[str]:
        """Give the scans asked for before a time whose chunks are not all marked as enqueued.

        One asked for in the future, by a host whose clock is fast, is among them: nobody is at it.
        """
        between = {"before": text(before), "now": text(clock.now())}
        with self._database.transaction(read_only=True) as connection:
            found = self._queries.unenqueued_scans(connection, **between)
            return [scan_id for (scan_id,) in found]

    def raise_generation(self, scan_id: str, lost: Sequence[PlannedChunk]) -> None:
        """Plan lost chunks to be enqueued again, where nobody else has since they were read."""
        for generation in sorted({chunk.generation for chunk in lost}):
            numbers = [chunk.number for chunk in lost if chunk.generation == generation]
            query = self._queries.raise_generation
            self._change(query, scan_id, numbers, generation=generation)

    def plan_again(self, scan_id: str, chunks: Iterable[int]) -> int:
        """Plan chunks that have failed or were cancelled once more; tells how many were."""
        return self._change(self._queries.plan_again, scan_id, chunks)

    def cancel(self, scan_id: str, retried: Iterable[int]) -> int:
        """Cancel what has not ended, and of what has failed those that were to be tried again.

        Returns:
            How many chunks it cancelled.
        """
        only = {"scan_id": scan_id, "finished_at": text(clock.now())}
        numbers = [self._database.dialect.numbers(batch) for batch in batches(retried, BATCH)]

        def cancel(connection: Any) -> int:
            count: int = self._queries.cancel_planned(connection, **only)
            for some in numbers:
                count += self._queries.cancel_failed(connection, **only, chunks=some)
            return count

        return self._database.write(cancel)

    def cancel_some(self, scan_id: str, chunks: Iterable[int]) -> None:
        """Cancel these chunks, unless they have finished."""
        self._change(self._queries.cancel_some, scan_id, chunks, finished_at=text(clock.now()))

    def reopen(self, scan_id: str, chunks: Iterable[int]) -> None:
        """Plan failed chunks whose jobs run again; the fence stays where it is."""
        self._change(self._queries.reopen, scan_id, chunks)

    def cancelled(self, scan_id: str) -> Iterator[list[PlannedChunk]]:
        """Give the cancelled chunks, a page at a time."""
        for page in self.pages(scan_id):
            if found := [chunk for chunk in page if chunk.state == ChunkState.CANCELLED]:
                yield found

    def _pages(self, query: Any, scan_id: str) -> Iterator[list[Any]]:
        after = -1
        while True:
            with self._database.transaction(read_only=True) as connection:
                page = list(query(connection, scan_id=scan_id, after=after, page=BATCH))
            if page:
                yield page
            if len(page) < BATCH:
                return
            after = page[-1][0]

    def _change(self, query: Any, scan_id: str, chunks: Iterable[int], **values: Any) -> int:
        count = 0
        for batch in batches(chunks, BATCH):
            numbers = self._database.dialect.numbers(batch)
            change = partial(query, scan_id=scan_id, chunks=numbers, **values)
            count += self._database.write(change)
        return count


def text(at: datetime) -> str:
    """Write a time as both databases keep it."""
    written = json.encode(at.astimezone(UTC)).decode()  # sooner than by isoformat
    day, time = written[1:11], written[12:-2]
    return f"{day} {time}" if at.microsecond else f"{day} {time}.000000"
