"""ScanScheduler: of any number one leads, and starts each due run once, whoever is killed when.

One turn: lead · runs that are due · rq-scheduler's own due jobs · wait. A run's scan id follows
from entry and due time, and submitting it again changes nothing; its entry moves to the next due
time only afterwards, in a transaction that holds only while the lease is ours.
"""

import os
import select
import signal
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from datetime import UTC, datetime, timedelta
from typing import Any

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry
from rq.exceptions import NoSuchJobError
from rq.job import Job
from rq_scheduler import Scheduler

from rqscan import clock, config
from rqscan.broker import keys
from rqscan.broker.connect import revive
from rqscan.broker.jobs import ScanJob
from rqscan.broker.queues import ScanQueue
from rqscan.config import Settings
from rqscan.errors import RedisUnavailable, RefusedError, ServiceUnavailable, UsageError
from rqscan.fleet.presence import Clockwork
from rqscan.logs import Event, log
from rqscan.scan.kinds import load_kinds
from rqscan.scan.plan import make_plan
from rqscan.scan.submit import submit
from rqscan.schedule import table
from rqscan.schedule.calendar import jitter, latest_due, next_due, run_id
from rqscan.schedule.entries import Entry, read_entries
from rqscan.schedule.lease import RENEW_S, Lease

__all__ = ["ScanScheduler"]

FOLLOW_S = 0.5
"""How often one that does not lead looks whether it may."""

ANSWER_S = 2
"""Longest wait for Redis: a stop waits no longer, and a lease outlives two of them."""

PAUSE_S = 0.05, 2.0
"""First and longest pause while Redis is away; each is twice the one before."""

WAITING_S = 1.0, 30.0
"""The same for a run that waits for the store."""


class ScanScheduler(Scheduler):  # type: ignore[misc] # rq-scheduler has no types
    """A scheduler for scans; the constructor takes what rq-scheduler's takes.

    Args:
        settings: those in force; read from file and environment by default.
        fire: starts the run of an entry for a due time under an id, so that a second call for the
            same id changes nothing; plans and submits a scan by default.
    """

    job_class = ScanJob
    queue_class = ScanQueue

    def __init__(
        self,
        *args: Any,
        settings: Settings | None = None,
        fire: Callable[[Entry, datetime, str], object] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        self.connection: Any  # redis-py's answers have no one type
        self.settings = settings or config.load()
        self._fire = fire or self._fire_scan
        self._entries = {entry.name: entry for entry in read_entries(self.settings)}
        self._lease = Lease(self.name)
        self._clockwork = Clockwork()
        self._is_leader = self._is_stopping = False
        self._down_since: float | None = None
        self._pause_s = PAUSE_S[0]
        self._retries: dict[str, tuple[float, float]] = {}  # entry: when (monotonic), pause
        self._bad_jobs: set[str] = set()  # told once

    def run(self, burst: bool = False) -> None:  # noqa: FBT001, FBT002 - as in rq-scheduler
        """Run until SIGTERM or SIGINT, or with `burst` until what is due was started once."""
        log(Event.SCHEDULER_STARTED, scheduler=self.name, entries=len(self._entries))
        for entry in self._entries.values():
            if entry.invalid:
                log(Event.ENTRY_INVALID, entry=entry.name, reason=entry.invalid)
        self.connection = _impatient(self.connection)
        with closing(self.connection), self._signals() as woken:
            while not self._is_stopping:
                wait_s = self._turn()
                if burst and self._is_leader:
                    break
                if select.select([woken], [], [], max(0.0, wait_s))[0]:
                    woken.recv(4096)
            if self._down_since is None:
                with suppress(redis.RedisError):
                    self._lease.write(self.connection, lambda p: p.delete(keys.LEADER))
                    self.register_death()
        log(Event.SCHEDULER_STOPPED, scheduler=self.name)

    @contextmanager
    def _signals(self) -> Iterator[socket.socket]:
        """Let signals stop us; the socket is readable once one has come."""
        woken, wake = socket.socketpair()
        os.set_blocking(wake.fileno(), False)
        numbers = (signal.SIGTERM, signal.SIGINT)
        old_wakeup = signal.set_wakeup_fd(wake.fileno(), warn_on_full_buffer=False)
        old = [signal.signal(number, self._on_signal) for number in numbers]
        try:
            yield woken
        finally:
            for number, handler in zip(numbers, old, strict=True):
                signal.signal(number, handler)
            signal.set_wakeup_fd(old_wakeup)
            woken.close()
            wake.close()

    def _on_signal(self, signum: int, _frame: object) -> None:
        self._is_stopping = True
        log(Event.STOP_REQUESTED, scheduler=self.name, signal=signal.Signals(signum).name)

    def _turn(self) -> float:
        """Do what is to be done; give the seconds until the next turn."""
        try:
            wait_s = self._run_due() if self._lead() else FOLLOW_S
            self.heartbeat()
        except (redis.RedisError, RedisUnavailable) as e:
            self._is_leader = False  # Redis may come back empty: all is written again
            self._lease.drop()
            revive(self.settings)
            if self._down_since is None:
                self._down_since = time.monotonic()
                log(Event.REDIS_LOST, scheduler=self.name, reason=str(e))
            self._pause_s = min(PAUSE_S[1], 2 * self._pause_s)
            return self._pause_s
        if self._down_since is not None:
            away_s = round(time.monotonic() - self._down_since, 1)
            log(Event.REDIS_BACK, scheduler=self.name, away_s=away_s)
            self._down_since, self._pause_s = None, PAUSE_S[0]
        return wait_s

    def _now(self) -> datetime:
        """Ask Redis for the time: no host's clock decides anything."""
        self._clockwork.ask()
        seconds, microseconds = self.connection.time()
        self._clockwork.answer(seconds + microseconds / 1e6)
        return datetime.fromtimestamp(seconds, UTC) + timedelta(microseconds=microseconds)

    def _lead(self) -> bool:
        """Keep the lease or take it if it is free; a new leader first brings Redis in line."""
        if self._is_leader and not self._lease.is_due:
            return True
        led, self._is_leader = self._is_leader, False
        is_ours = self._lease.renew(self.connection)
        if led and not is_ours:
            log(Event.LEADER_LOST, scheduler=self.name)
        if not is_ours and not self._lease.take(self.connection):
            return False
        if not (led and is_ours):
            log(Event.LEADER_TAKEN, scheduler=self.name)
            table.write_entries(self.connection, self._lease, self._entries, self._now())
        self._is_leader = True
        return True

    # -- runs -----------------------------------------------------------------------------------

    def _run_due(self) -> float:
        """Start what is due; give the seconds until more may be."""
        wait_s = RENEW_S
        now = self._now()
        for name, due in table.read_due(self.connection, now):
            entry = self._entries.get(name)
            if entry is None or self._is_stopping or not self._lead():
                continue
            retry_at, _ = self._retries.get(name, (0.0, 0.0))
            jitter_s = (due + jitter(entry, due) - now).total_seconds()
            if (pause_s := max(jitter_s, retry_at - time.monotonic())) > 0:
                wait_s = min(wait_s, pause_s)
            else:
                self._run(entry, due)
        self.enqueue_jobs()
        spent_s = (self._now() - now).total_seconds()
        return min(wait_s, table.seconds_to_next(self.connection, now)) - spent_s

    def _run(self, entry: Entry, due: datetime) -> None:
        """Start an entry's run; after an outage one for the latest due time stands for all."""
        now = self._now()
        certain = now - timedelta(seconds=entry.jitter_s)  # due before it: no jitter is left
        due = latest_due(entry, due, certain) or due
        scan_id = run_id(entry.name, due)
        outcome, reason = self._start(entry, due, scan_id)
        fields = {"outcome": outcome, "reason": reason}
        is_told = entry.name in self._retries
        _, pause_s = self._retries.pop(entry.name, (0.0, WAITING_S[0] / 2))
        following: datetime | None = due
        if outcome == "waiting":
            pause_s = min(WAITING_S[1], 2 * pause_s)
            self._retries[entry.name] = (time.monotonic() + pause_s, pause_s)
        else:
            late_s = (now - due - jitter(entry, due)).total_seconds()
            fields |= {
                "last_at": clock.iso(due),
                "fired_at": clock.iso(now),
                "lateness_s": f"{late_s:.6f}",
            }
            fields |= {"scan_id": scan_id} if outcome == "fired" else {}
            following = next_due(entry, due)
        if outcome != "waiting" or not is_told:
            log(Event(f"run_{outcome}"), entry=entry.name, scan=scan_id, reason=reason)
        if not self._lease.write(
            self.connection, lambda p: table.move(p, entry, following, fields)
        ):
            self._lease.drop()  # who leads now will find this run submitted

    def _start(self, entry: Entry, due: datetime, scan_id: str) -> tuple[str, str]:
        """Start one run; give the outcome and its reason."""
        try:
            other = table.unended(self.connection, entry) if entry.overlap == "skip" else None
            if other and other != scan_id:
                return "skipped", f"the run before, scan {other}, has not ended"
            self._fire(entry, due, scan_id)
        except (redis.RedisError, RedisUnavailable):
            raise
        except ServiceUnavailable as e:
            return "waiting", str(e)
        except (UsageError, RefusedError) as e:
            return "refused", str(e)
        except Exception as e:  # noqa: BLE001 - one entry's fault must not stop the others
            return "failed", f"{type(e).__name__}: {e}"
        return "fired", ""

    def _fire_scan(self, entry: Entry, due: datetime, scan_id: str) -> None:
        """Plan and submit the entry's scan."""
        assert entry.scan
        load_kinds(self.settings.jobs.path)
        plan = make_plan(
            settings=self.settings,
            targets=entry.scan.targets,
            kinds=entry.scan.kinds,
            queue=entry.queue,
            name=entry.name,
            scan_id=scan_id,
            exclude=entry.scan.exclude,
            ports=entry.scan.ports,
            schedule=entry.name,
            due_at=due,
        )
        submit(plan, settings=self.settings, client=self.connection)

    # -- rq-scheduler's own ---------------------------------------------------------------------

    def heartbeat(self) -> None:
        """Keep rq-scheduler's record of this instance; unlike there, a lost one comes back."""
        with self.connection.pipeline() as pipeline:
            pipeline.hsetnx(self.key, "birth", clock.now().timestamp())
            pipeline.expire(self.key, 15)
            pipeline.execute()

    def enqueue_in(self, time_delta: timedelta, func: Any, *args: Any, **kwargs: Any) -> Any:
        """Enqueue a job after a time span, counted by Redis' clock."""
        return self.enqueue_at(self._now() + time_delta, func, *args, **kwargs)

    def enqueue_jobs(self) -> list[Job]:
        """Move rq-scheduler's due jobs to their queues; a job that cannot be read stays."""
        jobs = []
        until = self._now().timestamp()
        for raw in self.connection.zrangebyscore(self.scheduled_jobs_key, 0, until):
            job_id = raw.decode()
            try:
                job = self.job_class.fetch(job_id, connection=self.connection)
                self.enqueue_job(job)
                jobs.append(job)
            except NoSuchJobError:
                self.cancel(job_id)
            except redis.RedisError:
                raise
            except Exception as e:  # noqa: BLE001 - one job's fault must not stop the others
                if job_id not in self._bad_jobs:
                    self._bad_jobs.add(job_id)
                    log(Event.JOB_REFUSED, job=job_id, reason=f"{type(e).__name__}: {e}")
        return jobs


def _impatient(client: redis.Redis) -> redis.Redis:
    """Give a client for the same server that neither retries nor waits: the loop does that."""
    pool = client.connection_pool
    options = pool.connection_kwargs | {
        "socket_timeout": ANSWER_S,
        "socket_connect_timeout": ANSWER_S,
        "retry": Retry(NoBackoff(), 0),
    }
    fresh = redis.ConnectionPool(connection_class=pool.connection_class, **options)
    return redis.Redis.from_pool(fresh)
