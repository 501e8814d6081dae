"""Submit: the plan goes to the store first, then its chunks to their queue, each once.

Killed anywhere in between, submitting the same scan again does what is missing and no more: it is
compared with Redis (`rqscan.scan.compare`), as the fleet does by itself a minute later.
"""

from typing import NamedTuple

import redis

from rqscan.batches import batches
from rqscan.broker import chunks as jobs
from rqscan.broker.connect import outage
from rqscan.broker.queues import ScanQueue
from rqscan.scan.compare import Comparison
from rqscan.scan.plan import Plan, queue_settings
from rqscan.settings import Settings
from rqscan.store.chunks import BATCH, Chunks
from rqscan.store.database import Database
from rqscan.store.migrate import open_current
from rqscan.store.repository import Repository

__all__ = ["Submitted", "submit", "submit_to", "write_plan"]


class Submitted(NamedTuple):
    """What submitting a plan came to."""

    is_new: bool  # False: the scan was there already, and keeps its stored plan
    former_store: str | None = None  # id of another store that Redis knew as the fleet's


def write_plan(plan: Plan, *, settings: Settings) -> bool:
    """Store a plan and enqueue nothing: the fleet does, once it sees Redis; False if it was there.

    Raises:
        StoreUnavailable: nothing was planned.
    """
    with open_current(settings) as database:
        return Repository(database).add_plan(plan.scan, plan.chunk_kinds())


def submit(plan: Plan, *, settings: Settings, client: redis.Redis) -> Submitted:
    """Store a plan and enqueue its chunks; of a scan that is there, what is missing.

    Raises:
        StoreUnavailable: nothing was enqueued.
        RedisUnavailable: the plan is stored; submitting it again goes on.
    """
    with open_current(settings) as database:
        return submit_to(database, plan, settings=settings, client=client)


def submit_to(
    database: Database, plan: Plan, *, settings: Settings, client: redis.Redis
) -> Submitted:
    """Do the same with a database that is open and up to date."""
    of_jobs = queue_settings(plan.scan, settings)
    repository, scan = Repository(database), plan.scan
    is_new = repository.add_plan(scan, plan.chunk_kinds())
    with outage():
        if not is_new:
            comparison = Comparison(settings, client, database)
            comparison.look_at(scan.scan_id)
            return Submitted(is_new, comparison.result.former_store)
        former = jobs.take_fleet(client, repository.store_id(), by_force=True)
        jobs.begin(client, scan)
        queue = ScanQueue(scan.queue, connection=client)
        put = queue.enqueue_chunks(plan.chunks(), of_jobs)
        for batch in batches((number for number, _ in put), BATCH):
            Chunks(database).mark_enqueued(scan.scan_id, batch)
    return Submitted(is_new, former)
