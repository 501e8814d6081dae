"""Follow-up: what the end of a job entails by RQ's rules, done by RQ's own code.

finish script (records the end, and that it is to be followed up) → a horse of the full template →
`perform` → off the list. Whatever dies in between, the entry stands, and the sweeper has it done
again: the steps before it is taken off change nothing the second time, those after it run at most
once, as in RQ.
"""

import contextlib
from typing import Any
from urllib.parse import urlsplit
from urllib.request import HTTPRedirectHandler, build_opener, install_opener

import redis
from rq.callbacks import execute_stopped_callback
from rq.exceptions import NoSuchGroupError, NoSuchJobError
from rq.job import Job, JobStatus
from rq.rate_limit import RateLimitRegistry
from rq.timeouts import UnixSignalDeathPenalty
from rq.webhook import Webhook

from rqscan.broker import keys
from rqscan.broker.jobs import ScanJob
from rqscan.broker.queues import ScanQueue, ring
from rqscan.errors import RefusedPayloadError
from rqscan.scan.scope import Scope

__all__ = ["perform"]


def perform(client: redis.Redis, scope: Scope, end: str, job_id: str) -> None:
    """Enqueue dependents, free the place under a rate limit, delete, call back, send webhooks.

    Args:
        client: of a server that has recorded the end.
        scope: where a webhook may go: whoever writes to Redis must not send us elsewhere.
        end: how the job ended: finished, failed, stopped, canceled (while it ran); or retry, which
            is no end of it.
        job_id: of the job, which may be queued again by now, or gone.

    Raises:
        OutOfScopeError: a webhook leads outside of the scope; it was not sent.
        RefusedPayloadError: it is no http; it was not sent.
        UsageError: its host has no address.
    """
    member = f"{end}:{job_id}"
    try:
        job = ScanJob.fetch(job_id, connection=client)
    except NoSuchJobError:
        client.zrem(keys.FOLLOW_UPS, member)
        return
    if end != "retry":
        job._status = JobStatus(end)  # noqa: SLF001 - of the end, whatever the job is by now
        queue = ScanQueue(job.origin, connection=client)
        queue.enqueue_dependents(job, refresh_job_status=False)
    if job.has_rate_limit:
        limit = RateLimitRegistry.from_job(job)
        promoted = limit.release_stale_and_enqueue(job.id)
        promoted += limit.acquire_and_enqueue(limit.concurrency)  # for one that was scheduled
        for other in promoted:
            ring(client, ScanJob.fetch(other, connection=client).origin)
    error = job.latest_result() if end == "failed" else None
    _tidy(client, job)
    if not client.zrem(keys.FOLLOW_UPS, member):
        return
    if end == "stopped":
        execute_stopped_callback(job, UnixSignalDeathPenalty)
    for webhook in job.webhooks:
        if webhook.job_status == end:
            url = urlsplit(webhook.url)
            if url.scheme not in {"http", "https"}:
                raise RefusedPayloadError(f"webhook {webhook.url!r} is neither http nor https")
            scope.check([url.hostname or ""])
            _send(webhook, job, (error.exc_string or "") if error else None)


class _NoRedirects(HTTPRedirectHandler):
    """An address that was checked must not lead to one that was not."""

    def redirect_request(self, *_: Any) -> None:
        """Follow none; RQ logs the answer as a failure."""


def _send(webhook: Webhook, job: Job, exc_string: str | None) -> None:
    install_opener(build_opener(_NoRedirects))
    try:
        webhook.send(job, exc_string=exc_string)
    finally:
        install_opener(None)  # the default, made anew when needed


def _tidy(client: redis.Redis, job: Job) -> None:
    if client.hexists(job.key, "rqscan_delete"):  # its time to live was 0
        with contextlib.suppress(NoSuchGroupError):
            job.delete(remove_from_queue=False)
    elif (ttl := client.ttl(job.key)) > 0:
        for rest in (job.dependents_key, job.dependencies_key):
            client.expire(rest, ttl)
