"""A plain RQ job in a work-horse: loads RQ's own classes, which `run_chunk` never needs."""

import sys
import time

from rq.results import Result

from rqscan import clock
from rqscan.broker.connect import connect, outage
from rqscan.broker.jobs import ScanJob
from rqscan.config import Settings
from rqscan.errors import RedisUnavailable
from rqscan.fleet.outcomes import failure
from rqscan.fleet.wire import Assignment, Outcome

__all__ = ["run"]


def run(assignment: Assignment, settings: Settings, began: float) -> Outcome:
    """Run an allowed function with RQ's Job, its callbacks included.

    Raises:
        RefusedPayloadError: the function or a callback is not allowed; nothing was imported.
    """
    ScanJob.allow_functions = frozenset(settings.worker.allow_functions)
    try:
        with outage():
            job = ScanJob.fetch(assignment.job_id, connection=connect(settings))
    except RedisUnavailable:  # nothing of it has run: it waits in its queue until Redis is back
        return Outcome(disposition="giveback")
    on_success, on_failure = job.success_callback, job.failure_callback  # refused before it runs
    try:
        value = job.perform()
        if on_success:
            on_success(job, job.connection, value)
    except Exception as e:  # noqa: BLE001 - a job may raise anything
        if on_failure:
            on_failure(job, job.connection, *sys.exc_info())
        return failure(assignment, e, time.monotonic() - began)
    worked_s = time.monotonic() - began
    ended_at = clock.now()
    result = Result(
        job.id,
        Result.Type.SUCCESSFUL,
        job.connection,
        return_value=value,
        worker_name=assignment.worker,
        serializer=job.serializer,
        execution_id=assignment.token,
        execution_started_at=job.started_at,
        execution_ended_at=ended_at,
    )
    return Outcome(
        disposition="finished",
        worked_s=worked_s,
        result_ttl_s=assignment.result_ttl_s,
        result=result.serialize(),
    )
