"""Failed and waiting jobs as an operator moves them: back to their queue, or away for good."""

from collections import defaultdict
from collections.abc import Iterable
from contextlib import suppress
from typing import Any

import redis
from redis import Redis
from rq.exceptions import InvalidJobOperation, NoSuchJobError
from rq.registry import FailedJobRegistry

from rqscan.broker import keys, scripts
from rqscan.broker.chunks import Place
from rqscan.broker.jobs import ScanJob
from rqscan.broker.payload import JsonSerializer, chunk_of

__all__ = ["PAGE", "chunks_of", "delete", "discard", "failed_ids", "requeue", "waiting_ids"]

PAGE = 500
"""Jobs a round trip or script: a few milliseconds of the server."""


def failed_ids(client: Redis, queue: str) -> list[str]:
    """Name the failed jobs of a queue, the newest first."""
    return _texts(client.zrange(keys.registry("failed", queue), 0, -1, desc=True))


def waiting_ids(client: Redis, queue: str) -> list[str]:
    """Name the jobs that wait in a queue, the next first."""
    return _texts(client.lrange(keys.queue(queue), 0, -1))


def chunks_of(client: Redis, ids: Iterable[str]) -> dict[str, list[Place]]:
    """Give by scan the places of those of the jobs that are chunks."""
    ids = list(ids)
    with client.pipeline(transaction=False) as pipeline:
        for job_id in ids:
            pipeline.hget(keys.job(job_id), "rqscan_scan")
        found = _execute(pipeline)
    scans = defaultdict(list)
    for job_id, raw in zip(ids, found, strict=True):
        scan_id, *place = chunk_of(job_id) or ("",)
        if scan_id == (raw or b"").decode(errors="replace") and place:
            scans[scan_id].append(Place(*place))
    return scans


def requeue(client: Redis, queue: str, ids: Iterable[str]) -> int:
    """Put failed jobs back at the end of their queue; tells how many were.

    One that waits for a rate limit again goes RQ's own way.
    """
    count, registry = 0, FailedJobRegistry(queue, client, ScanJob, serializer=JsonSerializer)
    ids = list(ids)
    with client.pipeline(transaction=False) as pipeline:
        for job_id in ids:
            pipeline.hget(keys.job(job_id), "rate_limit_key")
        limited = _execute(pipeline)
    with client.pipeline(transaction=False) as pipeline:
        pipeline.script_load(scripts.REQUEUE.text)
        for job_id, limit in zip(ids, limited, strict=True):
            if limit:
                with suppress(InvalidJobOperation, NoSuchJobError):
                    registry.requeue(job_id)
                    count += 1
                continue
            own = [keys.job(job_id), keys.queue(queue), registry.key, keys.bell(queue), keys.QUEUES]
            pipeline.evalsha(scripts.REQUEUE.sha, len(own), *own, job_id, queue)
        return count + _execute(pipeline).count(b"put")


def delete(client: Redis, queue: str, job_id: str) -> bool:
    """Delete a failed job with all that RQ keeps of it; tells whether it was there."""
    if not client.zrem(keys.registry("failed", queue), job_id):
        return False
    try:
        ScanJob.fetch(job_id, client).delete()
    except (NoSuchJobError, ValueError, TypeError, redis.ResponseError):  # only its name is right
        client.delete(keys.job(job_id), keys.results(job_id))
    return True


def discard(client: Redis, queue: str, ids: Iterable[str]) -> int:
    """Delete jobs that still wait in a queue; tells how many did."""
    with client.pipeline(transaction=False) as pipeline:
        pipeline.script_load(scripts.DISCARD.text)
        pipeline.evalsha(scripts.DISCARD.sha, 1, keys.queue(queue), *ids)
        return int(pipeline.execute()[1])


def _execute(pipeline: Any) -> list[Any]:
    """Give the answers; None where a key holds something else than a job."""
    answers = pipeline.execute(raise_on_error=False)
    broken = [one for one in answers if isinstance(one, redis.RedisError)]
    if broken and not isinstance(broken[0], redis.ResponseError):
        raise broken[0]
    return [None if isinstance(one, redis.RedisError) else one for one in answers]


def _texts(raw: Any) -> list[str]:
    return [item.decode(errors="replace") for item in raw]
