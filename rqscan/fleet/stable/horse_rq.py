"""A plain RQ job in a work-horse: RQ's own classes, which `run_chunk` never needs.

Loaded once, by the full template; the horses forked from it open a connection only if the job, one
of its callbacks or a follow-up uses it.
"""

import json
import os
import sys
import time
from contextlib import AbstractContextManager
from typing import Any

from redis.backoff import ExponentialWithJitterBackoff
from redis.retry import Retry as Again
from rq.callbacks import execute_failure_callback, execute_success_callback
from rq.job import JobStatus, Retry
from rq.repeat import Repeat
from rq.results import Result
from rq.timeouts import JobTimeoutException, UnixSignalDeathPenalty

from rqscan import clock
from rqscan.broker.connect import later
from rqscan.broker.jobs import ScanJob
from rqscan.fleet.stable import follow_up, outcomes
from rqscan.fleet.stable.soft_limit import soft_limit
from rqscan.fleet.stable.wire import Assignment, Outcome
from rqscan.scan.scope import Scope
from rqscan.settings import Settings

__all__ = ["PlainRunner"]

WARM_UP = ("math.sqrt", 4), ("math.sqrt", -1)
"""A call that succeeds and one that fails: what they load, no horse loads again."""


class PlainRunner:
    """Runs plain functions with RQ's Job, its callbacks included."""

    def __init__(self, settings: Settings) -> None:
        assert settings.redis.url  # of the worker's own connection, whatever is configured
        self._redis = later(settings.redis.url, settings.redis.connect_timeout_s)
        self._redis.set_retry(Again(ExponentialWithJitterBackoff(base=0.1, cap=1), 3))
        # a job may wait for another's result, or block on a list, for as long as it may run
        self._redis.connection_pool.connection_kwargs["socket_timeout"] = None
        self._scope = Scope(settings.scope.allow, settings.scope.deny)
        self._warm_up()
        ScanJob.allow_functions = frozenset(settings.worker.allow_functions)

    def _warm_up(self) -> None:
        ScanJob.allow_functions = frozenset(name for name, _ in WARM_UP)
        for name, argument in WARM_UP:
            job = ScanJob.create(name, (argument,), id="warm-up", connection=self._redis, timeout=1)
            fields = {
                key.encode(): value if isinstance(value, bytes) else str(value).encode()
                for key, value in (job.to_dict() | {"status": "started"}).items()
            }
            assignment = Assignment(
                queue="", job_id=job.id, token="", attempt=1, data=fields[b"data"], worker="",
                clock_offset_s=0, timeout_s=1, result_ttl_s=0, failure_ttl_s=0, job=fields,
            )  # fmt: skip
            self.run(assignment, time.monotonic())

    def run(self, assignment: Assignment, began: float) -> Outcome:
        """Run an allowed function.

        Raises:
            RefusedPayloadError: the function or a callback is not allowed; nothing was imported.
        """
        job = ScanJob(assignment.job_id, connection=self._redis)
        job.restore(assignment.job)
        job.check_callbacks()
        os.environ["RQ_WORKER_ID"], os.environ["RQ_JOB_ID"] = assignment.worker, job.id
        os.environ["RQ_EXECUTION_ID"] = assignment.token
        try:
            with _limit(assignment):
                value = job.perform()
            job.ended_at = clock.now()
            worked_s = time.monotonic() - began
            if isinstance(value, Retry):
                return self._asked_again(assignment, job, value, worked_s)
            job._status = JobStatus.FINISHED  # noqa: SLF001 - as RQ tells its callbacks
            execute_success_callback(job, UnixSignalDeathPenalty, value)
            return self._finished(assignment, job, value, worked_s)
        except BaseException:  # noqa: BLE001 - a job may raise anything
            return self._failed(assignment, job, began)

    def follow_up(self, assignment: Assignment) -> Outcome:
        """Do what the end of a job entails."""
        follow_up.perform(self._redis, self._scope, assignment.after, assignment.job_id)
        return Outcome(disposition="finished")

    @staticmethod
    def _finished(assignment: Assignment, job: ScanJob, value: Any, worked_s: float) -> Outcome:
        delay_s = 0
        fields: dict[str, Any] = {}
        if job.repeats_left and job.repeats_left > 0:
            intervals = job.repeat_intervals or [0]
            delay_s = Repeat.get_interval(0, intervals)
            fields["repeats_left"] = job.repeats_left - 1
            fields["repeat_intervals"] = json.dumps(intervals[1:] or intervals)
        return Outcome(
            disposition="finished",
            worked_s=worked_s,
            result_ttl_s=assignment.result_ttl_s,
            retry_delay_s=delay_s,
            is_repeated=bool(fields),
            fields=fields,
            result=_entry(assignment, job, Result.Type.SUCCESSFUL, value),
        )

    @staticmethod
    def _failed(assignment: Assignment, job: ScanJob, began: float) -> Outcome:
        """Tell the failure callback; a failure of that is then what counts, as in RQ."""
        job._status = JobStatus.FAILED  # noqa: SLF001 - as RQ tells its callbacks
        job.ended_at = clock.now()
        worked_s = time.monotonic() - began
        info: Any = sys.exc_info()
        try:
            execute_failure_callback(job, UnixSignalDeathPenalty, *info)
        except BaseException:  # noqa: BLE001 - as above
            info = sys.exc_info()
        failed = outcomes.failure(assignment, info[1], worked_s)
        if not job.retries_left or job.retries_left < 1:
            return failed
        return Outcome(
            disposition="retry",
            worked_s=worked_s,
            error=failed.error,
            retry_delay_s=job.get_retry_interval(),
            is_front=bool(job.enqueue_at_front_on_retry),
            fields={"retries_left": job.retries_left - 1},
        )

    @staticmethod
    def _asked_again(
        assignment: Assignment, job: ScanJob, retry: Retry, worked_s: float
    ) -> Outcome:
        """Take the `Retry` that a function returned instead of a result."""
        count = job.number_of_retries or 0
        if count >= retry.max:
            return Outcome(
                disposition="failed",
                worked_s=worked_s,
                failure_ttl_s=assignment.failure_ttl_s,
                error=f"asked for another retry after {count}",
                result=_entry(assignment, job, Result.Type.MAX_RETRIES_EXCEEDED, retry),
            )
        is_front = bool(job.enqueue_at_front_on_retry or retry.enqueue_at_front)
        return Outcome(
            disposition="retry",
            worked_s=worked_s,
            failure_ttl_s=assignment.failure_ttl_s,
            retry_delay_s=Retry.get_interval(count, retry.intervals),
            is_front=is_front,
            fields={"number_of_retries": count + 1, "enqueue_at_front_on_retry": int(is_front)},
            result=_entry(assignment, job, Result.Type.RETRIED, retry),
        )


def _limit(assignment: Assignment) -> AbstractContextManager[None]:
    """Give the limit that comes first: the soft one, or RQ's time-out in our words."""
    soft_s, hard_s = assignment.soft_timeout_s, max(0, assignment.timeout_s)
    if soft_s and (not hard_s or soft_s < hard_s):
        return soft_limit(soft_s)
    return soft_limit(hard_s, JobTimeoutException(f"stopped at its hard limit of {hard_s} s"))


def _entry(assignment: Assignment, job: ScanJob, kind: Result.Type, value: Any) -> dict[str, Any]:
    """Give the entry of the result stream; RQ notes there that a value is not JSON."""
    result = Result(
        job.id, kind, job.connection, return_value=value, worker_name=assignment.worker,
        serializer=job.serializer, execution_id=assignment.token,
        execution_started_at=job.started_at, execution_ended_at=job.ended_at,
    )  # fmt: skip
    entry: dict[str, Any] = result.serialize()
    return entry
