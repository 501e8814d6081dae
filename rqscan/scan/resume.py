"""Resume a scan: plan again what failed or was cancelled, and enqueue all that is missing."""

import redis

from rqscan.broker import chunks as jobs
from rqscan.broker.connect import outage
from rqscan.model import Scan
from rqscan.scan.compare import Compared, Comparison
from rqscan.settings import Settings
from rqscan.states import ChunkState
from rqscan.store.chunks import Chunks
from rqscan.store.migrate import open_current
from rqscan.store.repository import Repository

__all__ = ["resume"]


def resume(settings: Settings, client: redis.Redis, scan_id: str) -> Compared:
    """Run again only what is missing of a scan: nothing that has finished.

    Raises:
        UsageError: there is no such scan.
        StoreUnavailable, RedisUnavailable: away; resuming again goes on.
    """
    with open_current(settings) as database, outage():
        comparison = Comparison(settings, client, database)
        comparison.look_at(scan_id)  # first of all what only Redis knows is recorded
        again = _plan_again(comparison.chunks, client, Repository(database).scan(scan_id))
        comparison.look_at(scan_id, anew=bool(again))
        return comparison.result._replace(scans=min(1, comparison.result.scans))


def _plan_again(chunks: Chunks, client: redis.Redis, scan: Scan) -> int:
    count = 0
    for page in chunks.pages(scan.scan_id):
        ended = [c for c in page if c.state in {ChunkState.FAILED, ChunkState.CANCELLED}]
        known = jobs.job_states(client, scan.scan_id, ended)
        missing = [
            chunk
            for chunk, job in zip(ended, known, strict=True)
            if not (job.is_live and chunk.state == ChunkState.FAILED)  # it is to be tried again
        ]
        count += chunks.plan_again(scan.scan_id, [chunk.number for chunk in missing])
        jobs.forget(client, scan, missing)
    return count
