"""Cancel a scan: the plan is marked first, then its jobs are taken away and those that run stopped.

Once the plan says cancelled, the store refuses what late attempts bring, and nothing enqueues the
chunks again; if Redis is away, the comparison with the plan takes their jobs away later.
"""

from collections.abc import Iterator
from contextlib import suppress
from itertools import chain

import redis
from msgspec import Struct

from rqscan.broker import chunks as jobs
from rqscan.broker.connect import outage
from rqscan.errors import RedisUnavailable
from rqscan.settings import Settings
from rqscan.states import ChunkState, ScanState
from rqscan.store.chunks import Chunks
from rqscan.store.migrate import open_current
from rqscan.store.repository import Repository

__all__ = ["Cancelled", "cancel"]


class Cancelled(Struct, frozen=True, kw_only=True):
    """What was cancelled: nothing, if the scan had ended."""

    scan_id: str
    state: ScanState
    queued: int  # chunks that did not run
    running: int
    is_redis_told: bool


def cancel(settings: Settings, client: redis.Redis | None, scan_id: str) -> Cancelled:
    """Cancel what has not ended of a scan; without a client only in the plan.

    Raises:
        UsageError: there is no such scan.
        StoreUnavailable: it is away, and nothing was cancelled.
    """
    with open_current(settings) as database:
        repository, chunks = Repository(database), Chunks(database)
        scan = repository.scan(scan_id)
        retried: list[int] = []
        with suppress(RedisUnavailable):
            retried = list(_retried(chunks, client, scan_id)) if client else []
        marked = chunks.cancel(scan_id, retried)
        waiting = running = 0
        is_told = False
        with suppress(RedisUnavailable), outage():
            if client:
                cancelled = chain.from_iterable(chunks.cancelled(scan_id))
                waiting, running = jobs.cancel(client, scan, cancelled)
                if waiting:
                    jobs.purge(client, scan)
                is_told = True
        return Cancelled(
            scan_id=scan_id,
            state=repository.progress(scan_id).state,
            queued=max(waiting, marked - running),
            running=running,
            is_redis_told=is_told,
        )


def _retried(chunks: Chunks, client: redis.Redis, scan_id: str) -> Iterator[int]:
    """Give the chunks whose last attempt has failed, and whose job is to be tried again."""
    for page in chunks.pages(scan_id):
        failed = [chunk for chunk in page if chunk.state == ChunkState.FAILED]
        with outage():
            known = jobs.job_states(client, scan_id, failed)
        yield from (c.number for c, job in zip(failed, known, strict=True) if job.is_live)
