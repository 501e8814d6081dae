"""rq-scheduler's own jobs: its interface and keys stay, and each due job moves in one atomic step.

As it stands it enqueues, takes the job off its list and puts it there again in three steps, by the
host's clock and zone; here all of it takes place while the lease is ours, by Redis' clock.
"""

from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any

import redis
from redis.client import Pipeline
from rq.exceptions import NoSuchJobError
from rq.job import Job
from rq_scheduler import Scheduler
from rq_scheduler.utils import get_next_scheduled_time

from rqscan.broker.jobs import ScanJob
from rqscan.broker.queues import ScanQueue
from rqscan.logs import Event, log
from rqscan.schedule.calendar import next_due
from rqscan.schedule.entries import Entry, check_cron

__all__ = ["RqJobs"]


class RqJobs(Scheduler):  # type: ignore[misc] # rq-scheduler has no types
    """An rq-scheduler for jobs as JSON; the constructor takes what rq-scheduler's takes."""

    job_class = ScanJob
    queue_class = ScanQueue
    connection: Any  # redis-py's answers have no one type

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._refused: set[str] = set()  # jobs that cannot be read: logged once

    def _now(self) -> datetime:
        """Ask Redis for the time: no host's clock decides anything."""
        seconds, microseconds = self.connection.time()
        return datetime.fromtimestamp(seconds, UTC) + timedelta(microseconds=microseconds)

    def _write(self, commands: Callable[[Pipeline], object]) -> bool:
        """Run the commands in one transaction; False, and nothing is done, unless we may."""
        raise NotImplementedError

    def enqueue_in(self, time_delta: timedelta, func: Any, *args: Any, **kwargs: Any) -> Any:
        """Enqueue a job after a time span, counted by Redis' clock."""
        return self.enqueue_at(self._now() + time_delta, func, *args, **kwargs)

    def cron(self, *args: Any, **kwargs: Any) -> Job:
        """Enqueue a job at times in UTC, or with `use_local_timezone` in this host's zone."""
        job: Job = super().cron(*args, **kwargs)
        if following := self._next(job, self._now()):
            self.connection.zadd(self.scheduled_jobs_key, {job.id: following.timestamp()})
        return job

    def enqueue_job(self, job: Job) -> bool:
        """Move a due job to its queue, and on to its next time if any; tells whether we may."""
        following = self._next(job, self._now())
        if repeat := job.meta.get("repeat"):
            job.meta["repeat"] = left = int(repeat) - 1
            following = following if left else None
        queue = self.get_queue_for_job(job)
        job.redis_server_version = queue.get_redis_server_version()  # or RQ asks the pipeline

        def move(pipeline: Pipeline) -> None:
            queue.enqueue_job(job, pipeline=pipeline, at_front=bool(job.enqueue_at_front))
            if following:
                pipeline.zadd(self.scheduled_jobs_key, {job.id: following.timestamp()})
            else:
                pipeline.zrem(self.scheduled_jobs_key, job.id)

        return self._write(move)

    def enqueue_jobs(self) -> list[Job]:
        """Move the due jobs to their queues; a job that cannot be read stays."""
        jobs = []
        until = self._now().timestamp()
        for raw in self.connection.zrangebyscore(self.scheduled_jobs_key, 0, until):
            job_id = raw.decode()
            try:
                job = self.job_class.fetch(job_id, connection=self.connection)
                job.func_name  # noqa: B018 - raises what is wrong with it, before it is moved
                if not self.enqueue_job(job):
                    break  # another leads
                jobs.append(job)
            except NoSuchJobError:
                self.cancel(job_id)
            except redis.RedisError:
                raise
            except Exception as e:  # noqa: BLE001 - one job's fault must not stop the others
                if job_id not in self._refused:
                    self._refused.add(job_id)
                    log(Event.JOB_REFUSED, job=job_id, reason=f"{type(e).__name__}: {e}")
        return jobs

    def _next(self, job: Job, now: datetime) -> datetime | None:
        """Give when a repeated job is due after `now`: an interval counts on from its due time."""
        if interval_s := job.meta.get("interval"):
            due_s = self.connection.zscore(self.scheduled_jobs_key, job.id) or now.timestamp()
            missed = max(0, (now.timestamp() - due_s) // int(interval_s))
            return datetime.fromtimestamp(due_s + (missed + 1) * int(interval_s), now.tzinfo)
        if not (text := job.meta.get("cron_string")):
            return None
        is_local = bool(job.meta.get("use_local_timezone"))
        with suppress(ValueError):
            check_cron(text)
            if not is_local:
                return next_due(Entry(name="rq", cron=text), now)
        # This host's zone, or a form that only rq-scheduler's own library reads.
        found: datetime = get_next_scheduled_time(text, use_local_timezone=is_local)
        return found
