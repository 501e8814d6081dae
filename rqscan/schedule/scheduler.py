"""ScanScheduler: of any number one leads, and starts each due run once, whoever is killed when.

One turn: lead · runs that are due · rq-scheduler's own due jobs · wait. A run's scan id follows
from entry and due time, and submitting it again changes nothing; its entry moves to the next due
time only afterwards, in a transaction that holds only while the lease is ours.
"""

import os
import select
import socket
import time
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any

import redis
from msgspec.structs import asdict
from rq.exceptions import NoSuchJobError
from rq.job import Job
from rq_scheduler import Scheduler

from rqscan import clock, config
from rqscan.broker import keys
from rqscan.broker.connect import impatient, revive
from rqscan.broker.jobs import ScanJob
from rqscan.broker.queues import ScanQueue
from rqscan.errors import (
    RedisUnavailable,
    RefusedError,
    ServiceUnavailable,
    StoreUnavailable,
    UsageError,
)
from rqscan.fleet.handshake import Handshake
from rqscan.fleet.outage import Outage
from rqscan.fleet.presence import Clockwork
from rqscan.fleet.signals import stop_signals
from rqscan.logs import Event, log
from rqscan.scan.plan import make_plan
from rqscan.scan.submit import submit
from rqscan.schedule import table
from rqscan.schedule.calendar import latest_due, next_due, run_id
from rqscan.schedule.entries import Entry, read_entries
from rqscan.schedule.lease import Lease
from rqscan.settings import Settings
from rqscan.store.migrate import open_current
from rqscan.store.repository import Repository

__all__ = ["ScanScheduler"]

FOLLOW_S = 0.5
"""How often one that does not lead looks whether it may."""

LEAD_S = 1.5
"""Longest pause of the leader: three fit into its lease."""

RETRY_S = 2.0
"""Longest pause while Redis is away, and the pause of all runs when one has to wait."""


class ScanScheduler(Scheduler):  # type: ignore[misc] # rq-scheduler has no types
    """A scheduler for scans; the constructor takes what rq-scheduler's takes.

    Args:
        settings: those in force; read from file and environment by default.
    """

    job_class = ScanJob
    queue_class = ScanQueue

    def __init__(self, *args: Any, settings: Settings | None = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.name = kwargs.get("name") or f"{socket.gethostname()}.{os.getpid()}"
        self.connection: Any  # redis-py's answers have no one type
        self.settings = settings or config.load()
        self._entries = {entry.name: entry for entry in read_entries(self.settings)}
        self._handshake = Handshake(self.name, self.settings)
        self._lease = Lease(self.connection, self.name)
        self._clockwork = Clockwork()
        self._outage = Outage(scheduler=self.name)
        self._is_leader = self._is_stopping = False
        self._retry_at = 0.0  # monotonic: no run is tried again before
        self._told: set[str] = set()  # entries that wait and jobs that are refused: logged once

    def run(self, burst: bool = False) -> None:  # noqa: FBT001, FBT002 - as in rq-scheduler
        """Run until SIGTERM or SIGINT, or with `burst` until what is due was started once."""
        with stop_signals(self._on_signal) as woken:
            log(Event.SCHEDULER_STARTED, scheduler=self.name, entries=len(self._entries))
            for entry in self._entries.values():
                if entry.invalid:
                    log(Event.ENTRY_INVALID, entry=entry.name, reason=entry.invalid)
            impatient(self.connection)
            while not self._is_stopping:
                wait_s = self._turn()
                if burst and self._is_leader:
                    break
                select.select([woken], [], [], max(0.0, wait_s))
            with suppress(redis.RedisError):
                self._lease.release()
        log(Event.SCHEDULER_STOPPED, scheduler=self.name)

    def _on_signal(self, name: str) -> None:
        self._is_stopping = True
        log(Event.STOP_REQUESTED, scheduler=self.name, signal=name)

    def _turn(self) -> float:
        """Do what is to be done; give the seconds until the next turn."""
        try:
            wait_s = self._run_due() if self._lead() else FOLLOW_S
        except (redis.RedisError, RedisUnavailable) as e:
            self._is_leader = False  # Redis may come back empty: all is written again
            revive(self.settings)
            self._outage.begin(str(e))
            return min(RETRY_S, 0.1 + self._outage.away_s)
        self._outage.end()
        return wait_s

    def _now(self) -> datetime:
        """Ask Redis for the time: no host's clock decides anything."""
        self._clockwork.ask()
        seconds, microseconds = self.connection.time()
        self._clockwork.answer(seconds + microseconds / 1e6)
        return datetime.fromtimestamp(seconds, UTC) + timedelta(microseconds=microseconds)

    def _lead(self) -> bool:
        """Keep the lease or take it if it is free; a new leader first brings Redis in line."""
        led, self._is_leader = self._is_leader, False
        if not self._is_of_fleet():
            self._lease.release()
            return False
        is_ours = self._lease.renew()
        if led and not is_ours:
            log(Event.LEADER_LOST, scheduler=self.name)
        if not is_ours and not self._lease.take():
            return False
        if not (led and is_ours):
            log(Event.LEADER_TAKEN, scheduler=self.name)
            known, now = table.read(self.connection), self._now()
            self._lease.write(lambda p: table.rewrite(p, self._entries, known, now))
        self._is_leader = True
        return True

    def _is_of_fleet(self) -> bool:
        if self._handshake.is_due():
            answer = None
            with suppress(StoreUnavailable), open_current(self.settings) as database:
                answer = {"store_id": Repository(database).store_id()}
            self._handshake.learn(answer)
        found = self.connection.hmget(keys.STORE, "store_id", "protocol")
        self._handshake.judge(*((value or b"").decode() for value in found))
        return self._handshake.is_ours

    def _run_due(self) -> float:
        """Start what is due; give the seconds until more may be."""
        now = self._now()
        is_waiting = time.monotonic() < self._retry_at
        wait_s = LEAD_S
        for name, at in table.read(self.connection).items():
            if at > now.timestamp():
                wait_s = min(wait_s, at - self._now().timestamp())
                break
            if is_waiting or name not in self._entries:
                continue
            if self._is_stopping or not self._lead():
                return FOLLOW_S
            self._run(self._entries[name], datetime.fromtimestamp(at, UTC))
            wait_s = 0.0  # its next due time may be near
        self.enqueue_jobs()
        return wait_s

    def _run(self, entry: Entry, due: datetime) -> None:
        """Start an entry's run; after an outage one for the latest due time stands for all."""
        now = self._now()
        due = latest_due(entry, due, now) or due
        scan_id = run_id(entry.name, due)
        outcome, reason = self._start(entry, due, scan_id)
        fields = {
            "outcome": outcome,
            "reason": reason,
            "last_at": clock.iso(due),
            "fired_at": clock.iso(now),
            "lateness_s": f"{(now - due).total_seconds():.6f}",
        }
        if outcome == "fired":
            fields["scan_id"] = scan_id
        following = due if outcome == "waiting" else next_due(entry, due)
        # If the lease went meanwhile, who leads now will find this run submitted.
        self._lease.write(lambda p: table.move(p, entry, following, fields))
        if outcome != "waiting" or entry.name not in self._told:
            log(Event(f"run_{outcome}"), entry=entry.name, scan=scan_id, reason=reason)
        if outcome == "waiting":
            self._told.add(entry.name)
        else:
            self._told.discard(entry.name)

    def _start(self, entry: Entry, due: datetime, scan_id: str) -> tuple[str, str]:
        """Start one run; give the outcome and its reason."""
        try:
            other = table.unended(self.connection, entry) if entry.overlap == "skip" else None
            if other and other != scan_id:
                return "skipped", f"the run before, scan {other}, has not ended"
            self.fire(entry, due, scan_id)
        except (redis.RedisError, RedisUnavailable):
            raise
        except ServiceUnavailable as e:
            self._retry_at = time.monotonic() + RETRY_S
            return "waiting", str(e)
        except (UsageError, RefusedError) as e:
            return "refused", str(e)
        except Exception as e:  # noqa: BLE001 - one entry's fault must not stop the others
            return "failed", f"{type(e).__name__}: {e}"
        return "fired", ""

    def fire(self, entry: Entry, due: datetime, scan_id: str) -> None:
        """Plan and submit the entry's scan; a second call for the same id changes nothing."""
        assert entry.scan
        plan = make_plan(
            settings=self.settings,
            queue=entry.queue,
            name=entry.name,
            scan_id=scan_id,
            schedule=entry.name,
            due_at=due,
            **asdict(entry.scan),
        )
        submit(plan, settings=self.settings, client=self.connection)

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
                if job_id not in self._told:
                    self._told.add(job_id)
                    log(Event.JOB_REFUSED, job=job_id, reason=f"{type(e).__name__}: {e}")
        return jobs
