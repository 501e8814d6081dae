"""Retention: scans that ended long ago leave the store, in transactions of a moment each.

A scan goes in two steps. Its row goes first, if no chunk of it is planned: from then on nobody
finds the scan. Its chunks belong to none then, and go batch by batch, after what they have seen;
what a prune that was killed has left of them is found by that, and the next one begins with it.
"""

import time
from collections.abc import Collection
from datetime import datetime, timedelta
from functools import partial
from typing import Any

from msgspec import Struct

from rqscan import clock
from rqscan.store.chunks import BATCH, text
from rqscan.store.database import Database
from rqscan.store.journal import Journal
from rqscan.store.repository import Repository

__all__ = ["Pruned", "Pruner"]


class Pruned(Struct, kw_only=True):
    """What has gone, or would; and how many scans that are old enough by their start stay."""

    scans: int = 0
    chunks: int = 0
    observations: int = 0
    runs: int = 0  # of the schedule's history
    not_ended: int = 0
    spooled: int = 0


class Pruner:
    """Prunes a store, and counts in `pruned`.

    All methods raise StoreUnavailable when the database is away or refuses us; to prune again goes
    on from there.
    """

    def __init__(self, database: Database, age: timedelta, spooled: Collection[str]) -> None:
        """Take what to go by.

        Args:
            database: with the store.
            age: how long ago a scan has ended at least; by the database's clock, no host's.
            spooled: ids of scans that stay, because a spool holds something of them.
        """
        self.pruned = Pruned()
        self._database, self._queries, self._spooled = database, database.queries, spooled
        with database.transaction(read_only=True) as connection:
            now = clock.from_iso(self._queries.now(connection))
        self.before: datetime = now - age

    def prune(self) -> None:
        """Delete what is old."""
        for scan_id in self._left_over():
            self._sweep(scan_id)
        for scan_id in self._old():
            delete = partial(self._queries.delete_ended_scan, scan_id=scan_id)
            is_gone = self._database.write(delete)
            if is_gone:  # else it is planned again, or another prune has it
                self.pruned.scans += 1
                self._sweep(scan_id)
        self.pruned.runs += Journal(self._database).forget_runs(self.before)

    def count(self) -> None:
        """Count what `prune` would delete."""
        old = self._old()
        self.pruned.scans += len(old)
        for scan_id in self._left_over() + old:
            with self._database.transaction(read_only=True) as connection:
                chunks, rows = self._queries.weight(connection, scan_id=scan_id)
            self.pruned.chunks += chunks
            self.pruned.observations += rows

    def _left_over(self) -> list[str]:
        with self._database.transaction(read_only=True) as connection:
            return [scan_id for (scan_id,) in self._queries.left_over(connection)]

    def _old(self) -> list[str]:
        with self._database.transaction(read_only=True) as connection:
            before = text(self.before)
            asked = [found[0] for found in self._queries.scans_before(connection, before=before)]
        return [scan_id for scan_id in asked if self._is_old(scan_id)]

    def _is_old(self, scan_id: str) -> bool:
        progress = Repository(self._database).progress(scan_id)
        if not progress.is_ended:
            self.pruned.not_ended += 1
            return False
        if progress.finished_at and progress.finished_at >= self.before:
            return False
        self.pruned.spooled += scan_id in self._spooled
        return scan_id not in self._spooled

    def _sweep(self, scan_id: str) -> None:
        """Delete the chunks of a scan that is gone; half of the time is left to others."""
        began = time.monotonic()
        delete = partial(self._delete_some, scan_id=scan_id)
        while some := self._database.write(delete):
            self.pruned.chunks += some.chunks
            self.pruned.observations += some.observations
            time.sleep(time.monotonic() - began)
            began = time.monotonic()

    def _delete_some(self, connection: Any, scan_id: str) -> Pruned | None:
        """Delete a batch of rows, and the chunks if they have none left; None when all are gone."""
        # Locked first, as a record does: a late one cannot leave rows of a chunk that is gone.
        chunks = self._queries.lock_some_chunks(connection, scan_id=scan_id, page=BATCH)
        if not chunks:
            return None
        some = {"scan_id": scan_id, "last": chunks[-1][0]}
        rows = self._queries.delete_some_rows(connection, **some, page=BATCH)
        gone = self._queries.delete_chunks(connection, **some) if rows < BATCH else 0
        return Pruned(chunks=gone, observations=rows)
