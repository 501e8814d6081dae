"""What an operator takes away or has done again: the plan is told first, then Redis.

A chunk that is taken away stands as cancelled in the plan before its job goes, so that nothing
brings it back; one that is to be done again is planned before its job is put, so that a Redis that
loses the job does not lose the chunk.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import redis

from rqscan.batches import batches
from rqscan.broker import chunks as jobs
from rqscan.broker import failed, keys
from rqscan.broker.connect import outage
from rqscan.broker.payload import job_id
from rqscan.errors import ConfigError, UsageError
from rqscan.model import Scan
from rqscan.settings import Settings
from rqscan.store.chunks import Chunks
from rqscan.store.database import Database
from rqscan.store.migrate import open_current
from rqscan.store.repository import Repository

__all__ = ["Emptied", "Removal"]


class Emptied(NamedTuple):
    """What became of the jobs of a queue."""

    removed: int
    stopping: int  # chunks that had been claimed when they were to be removed


class Removal:
    """Moves jobs for an operator; the database is opened only if one of them is a chunk.

    All methods raise StoreUnavailable or RedisUnavailable where one of the two is away; what was
    done so far stands, and doing it again goes on.
    """

    def __init__(self, settings: Settings, client: redis.Redis) -> None:
        self._settings, self._client = settings, client
        self._database: Database | None = None

    def close(self) -> None:
        """Close the database."""
        if self._database:
            self._database.close()

    def empty(self, queue: str) -> Emptied:
        """Take away every job that waits in a queue now."""
        removed = stopping = 0
        with outage():
            for page in batches(failed.waiting_ids(self._client, queue), failed.PAGE):
                stopping += self._cancel(failed.chunks_of(self._client, page))
                removed += failed.discard(self._client, queue, page)
        return Emptied(removed, stopping)

    def delete(self, by_queue: Mapping[str, Iterable[str]]) -> int:
        """Delete failed jobs, given by queue; tells how many were."""

        def delete(queue: str, ids: Iterable[str]) -> int:
            scans = failed.chunks_of(self._client, ids)
            self._cancel(scans)
            chunks = {job_id(scan_id, *place) for scan_id in scans for place in scans[scan_id]}
            gone = [failed.delete(self._client, queue, name) for name in ids]
            return sum(was or name in chunks for was, name in zip(gone, ids, strict=True))

        return self._each(by_queue, delete)

    def requeue(self, by_queue: Mapping[str, Iterable[str]]) -> int:
        """Put failed jobs back at the end of their queues; tells how many were."""

        def requeue(queue: str, ids: Iterable[str]) -> int:
            for scan_id, places in failed.chunks_of(self._client, ids).items():
                if self._scan(scan_id):
                    self._chunks.reopen(scan_id, [place.number for place in places])
            return failed.requeue(self._client, queue, ids)

        return self._each(by_queue, requeue)

    def _each(
        self,
        by_queue: Mapping[str, Iterable[str]],
        act: Callable[[str, Iterable[str]], int],
    ) -> int:
        with outage():
            return sum(
                act(queue, page)
                for queue, ids in by_queue.items()
                for page in batches(ids, failed.PAGE)
            )

    def _cancel(self, scans: Mapping[str, Sequence[jobs.Place]]) -> int:
        """Cancel chunks in the plan, then in Redis; tells how many of them run."""
        running = 0
        for scan_id, places in scans.items():
            if scan := self._scan(scan_id):
                self._chunks.cancel_some(scan_id, [place.number for place in places])
                running += jobs.cancel(self._client, scan, places)[1]
        return running

    def _scan(self, scan_id: str) -> Scan | None:
        """Give a scan of our store; None for one that no store can bring back any more."""
        database = self._open()
        try:
            return Repository(database).scan(scan_id)
        except UsageError:
            return None

    @property
    def _chunks(self) -> Chunks:
        return Chunks(self._open())

    def _open(self) -> Database:
        if self._database is None:
            database = open_current(self._settings)
            ours = Repository(database).store_id()
            known: Any = self._client.hget(keys.STORE, "store_id")
            theirs = (known or b"").decode()
            if theirs not in {"", ours}:
                database.close()
                raise ConfigError(
                    f"the fleet's store is {theirs}, and this host's database has {ours}: its plan "
                    f"is not told what was asked",
                    advice="check database.url (RQSCAN_DATABASE_URL), or run this on another host",
                )
            self._database = database
        return self._database
