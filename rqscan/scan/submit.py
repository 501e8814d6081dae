"""Submit: the plan goes to the store first, then its chunks to their queue, each once.

Killed anywhere in between, submitting the same scan again does what is missing and no more: the
store knows which chunks were enqueued, and Redis leaves a job id alone that it has.
"""

from itertools import islice

import redis

from rqscan.broker import keys
from rqscan.broker.connect import outage
from rqscan.broker.queues import ScanQueue
from rqscan.config import Settings
from rqscan.scan.plan import Plan, plan_of, queue_settings
from rqscan.store.migrate import open_current
from rqscan.store.repository import Repository

__all__ = ["submit"]


def submit(plan: Plan, *, settings: Settings, client: redis.Redis) -> bool:
    """Store a plan and enqueue its chunks; False if the scan was there already.

    A scan that is there keeps its stored plan, and what it has not enqueued is enqueued.

    Raises:
        StoreUnavailable: nothing was enqueued.
        RedisUnavailable: the plan is stored; submitting it again goes on.
    """
    with open_current(settings) as database:
        repository = Repository(database)
        is_new = repository.add_plan(plan.scan, plan.chunk_kinds())
        if not is_new:
            plan = plan_of(repository.scan(plan.scan.scan_id))
        scan = plan.scan
        queue = ScanQueue(scan.queue, connection=client)
        progress = keys.progress(scan.scan_id)
        with outage(), client.pipeline() as pipeline:
            if is_new or not client.hexists(progress, "finished_at"):
                pipeline.hsetnx(progress, "total", scan.chunks)
                pipeline.zadd(keys.SCANS, {scan.scan_id: scan.requested_at.timestamp()}, nx=True)
                pipeline.execute()
        if is_new:
            chunks = plan.chunks()
        else:
            chunks = (plan.chunk(n) for n in list(repository.unenqueued(scan.scan_id)))
        with outage():
            put = queue.enqueue_chunks(chunks, queue_settings(scan, settings))
            while batch := list(islice(put, 1000)):
                repository.mark_enqueued(scan.scan_id, batch)
    return is_new
