"""ScanWorker: one loop, no threads, that claims jobs, gives them to work-horses and tells Redis.

One turn of the loop: links that are due · beat · hard limits · claim if a horse is free · write ·
one spare horse · wait until something happens. The loop does no database, DNS or disk work, and
an answer is never waited for: each command's answer comes to a method named ``_on_…``.

What a job goes through here: `_claim` → `_on_claim` → `Stable.run` → `_on_end` → `_finish` →
`_on_finish`. An end is kept until Redis has said that it has it, however long Redis is away.
"""

import os
import secrets
import selectors
import signal
import socket
import time
from typing import Any

import msgspec
import redis
from rq.worker import Worker

from rqscan import config
from rqscan.broker import keys, scripts
from rqscan.broker.connect import url_of
from rqscan.broker.jobs import ScanJob
from rqscan.broker.link import LOST, Link
from rqscan.broker.payload import JsonSerializer
from rqscan.broker.queues import ScanQueue
from rqscan.config import QueueSettings, Settings
from rqscan.errors import FailedError
from rqscan.fleet import outcomes
from rqscan.fleet.horses import Horse, Stable
from rqscan.fleet.presence import Clockwork, JobReport, Presence, flat, memory_bytes, versions
from rqscan.fleet.wire import Assignment, Outcome
from rqscan.logs import Event, log
from rqscan.states import WorkerState

__all__ = ["ScanWorker"]

REGISTRY_LEASE_S = 90
"""How far ahead RQ's own registries are scored: any reader's clean-up never acts before us."""

BELL_S = 1
"""Longest block on the bells: work put in by stock RQ, which rings none, waits no longer."""

GIVEBACK, TIMEOUT = "given back", "timed out"


class ScanWorker(Worker):
    """A worker for scan queues; the constructor takes what RQ's takes.

    Args:
        queues: names or queues, in order of priority.
        name: unique in the fleet; HOST.PID by default.
        settings: those in force; read from file and environment by default.
        concurrency: jobs at once; the CPU count by default.
    """

    job_class = ScanJob
    queue_class = ScanQueue

    def __init__(
        self,
        queues: Any,
        name: str | None = None,
        *args: Any,
        settings: Settings | None = None,
        concurrency: int | None = None,
        **kwargs: Any,
    ) -> None:
        kwargs["serializer"] = kwargs.get("serializer") or JsonSerializer
        super().__init__(queues, name or f"{socket.gethostname()}.{os.getpid()}", *args, **kwargs)
        self.connection.connection_pool.disconnect()  # RQ's set-up leaves one open
        if not kwargs.get("prepare_for_work", True):
            return  # RQ's readers make workers of hashes
        settings = settings or config.load()
        here = msgspec.structs.replace(settings.redis, url=url_of(self.connection))
        self.settings = msgspec.structs.replace(settings, redis=here)
        self.concurrency = concurrency or os.cpu_count() or 1
        self._boot = secrets.token_hex(4)
        self._epoch = ""
        self._is_registered = self._is_beating = self._is_claiming = False
        self._wants_claim = False
        self._next_beat = 0.0
        self._unrecorded: dict[str, tuple[Assignment, Outcome]] = {}
        self._kinds: dict[str, str] = {}  # by token
        self._down_since: float | None = None
        self._stops = 0
        self._stop_deadline = float("inf")
        self._done = self._failed = 0
        self._clockwork = Clockwork()

    # -- the loop -------------------------------------------------------------------------------

    def work(self, burst: bool = False, stop_timeout_s: float | None = None, **_: Any) -> bool:
        """Run jobs until a signal ends it, or with `burst` until the queues are empty.

        Args:
            burst: end once there is nothing left to claim.
            stop_timeout_s: how long running jobs may go on after the first signal.

        Returns:
            Whether any job was run, as RQ's does.

        Raises:
            FailedError: another worker that lives has this name.
        """
        self._refuse_living_namesake()
        self._burst = burst
        if stop_timeout_s is None:
            stop_timeout_s = self.settings.worker.stop_timeout_s
        self._stop_timeout_s = stop_timeout_s
        self._selector = selectors.DefaultSelector()
        self._command = Link(self.connection, self._selector, self._on_up, self._on_down)
        self._bell = Link(self.connection, self._selector, self._arm, lambda _: None, BELL_S)
        self._stable = Stable(self.settings, self.concurrency, self._selector, self._on_end)
        self._listen_to_signals()
        self._stable.start()
        log(Event.WORKER_STARTED, worker=self.name, queues=self.queue_names(),
            concurrency=self.concurrency)  # fmt: skip
        try:
            while not self._is_over():
                self._turn()
        finally:
            self._say_goodbye()
        log(Event.WORKER_STOPPED, worker=self.name, done=self._done, failed=self._failed)
        return bool(self._done + self._failed)

    def _turn(self) -> None:
        now = time.monotonic()
        self._command.check()
        if self._is_registered:
            self._bell.check()
        if self._command.is_up and not self._is_beating and now >= self._next_beat:
            self._beat()
        self._enforce_limits(now)
        if self._wants_claim and self._is_registered and not self._is_claiming:
            self._claim()
        self._command.flush()
        self._bell.flush()
        wants_more = not self._stops and self._stable.ask()
        timeout = 0 if wants_more else max(0.0, self._next_deadline() - time.monotonic())
        for key, events in self._selector.select(timeout):
            key.data(events)

    def _next_deadline(self) -> float:
        deadlines = [self._command.deadline, time.monotonic() + self.settings.worker.heartbeat_s]
        if self._command.is_up:
            deadlines.append(self._next_beat)
        if self._is_registered:
            deadlines.append(self._bell.deadline)
        deadlines.extend(horse.deadline for horse in self._stable.running.values())
        if self._stops:
            deadlines.append(time.monotonic() + 0.1)
        return min(deadlines)

    def _enforce_limits(self, now: float) -> None:
        for horse in list(self._stable.running.values()):
            if now >= horse.deadline:
                self._stable.kill(horse, TIMEOUT)
            elif self._stops > 1 or now >= self._stop_deadline:
                self._stable.kill(horse, GIVEBACK)

    def _is_over(self) -> bool:
        if self._stable.running:
            return False
        if self._stops:
            away = not self._command.is_up and time.monotonic() - (self._down_since or 0) > 1
            return not self._unrecorded or away
        is_idle = self._is_registered and not (self._is_claiming or self._wants_claim)
        return self._burst and is_idle and not self._unrecorded

    # -- signals --------------------------------------------------------------------------------

    def _listen_to_signals(self) -> None:
        self._woken, wake = socket.socketpair()
        for end in (self._woken, wake):
            end.setblocking(False)
        self._wake = wake
        self._old_wakeup = signal.set_wakeup_fd(wake.fileno(), warn_on_full_buffer=False)
        self._old_handlers = {
            signum: signal.signal(signum, self._on_signal)
            for signum in (signal.SIGTERM, signal.SIGINT)
        }
        self._selector.register(
            self._woken, selectors.EVENT_READ, lambda _: self._woken.recv(4096)
        )

    def _on_signal(self, signum: int, _frame: object) -> None:
        self._stops += 1
        if self._stops == 1:
            self._stop_deadline = time.monotonic() + self._stop_timeout_s
        log(Event.STOP_REQUESTED, worker=self.name, signal=signal.Signals(signum).name,
            running=len(self._stable.running))  # fmt: skip

    # -- presence -------------------------------------------------------------------------------

    def _refuse_living_namesake(self) -> None:
        raw = self.connection.get(keys.record(self.name))
        if raw is None:
            return
        other = msgspec.json.decode(raw, type=Presence)
        clients = self.connection.client_list(client_id=[other.client_id])
        if clients and other.client_id:
            raise FailedError(
                f"worker name {self.name!r} is held by a worker that lives: pid {other.pid} on "
                f"{other.host}; choose another --name or stop that one"
            )

    def _on_up(self) -> None:
        # A new epoch: whatever an earlier connection still has on its way changes nothing.
        self._epoch = f"{self._boot}{secrets.token_hex(4)}"
        self._next_beat = 0.0

    def _on_down(self, reason: str) -> None:
        self._is_registered = self._is_beating = self._is_claiming = False
        if self._down_since is None:
            self._down_since = time.monotonic()
            log(Event.REDIS_LOST, worker=self.name, reason=reason)

    def _beat(self) -> None:
        self._is_beating = True
        self._next_beat = time.monotonic() + self.settings.worker.heartbeat_s
        presence = self._presence()
        fields = {
            **self.rq_fields(presence.state),
            "queues": ",".join(self.queue_names()),
            "state": "busy" if presence.jobs else "idle",
        }
        held = [
            part
            for assignment in self._held()
            for part in (assignment.queue, assignment.job_id, assignment.token)
        ]
        worker_sets = [keys.workers_of(name) for name in self.queue_names()]
        own = [keys.worker(self.name), keys.WORKERS, keys.executions_of(self.name)]
        own += [keys.PRESENCE, keys.record(self.name), *worker_sets]
        self._clockwork.ask()
        self._command.send(
            "EVALSHA", scripts.BEAT.sha, len(own), *own, self.name, self._epoch,
            REGISTRY_LEASE_S, msgspec.json.encode(presence), 2 * len(fields), *flat(fields), *held,
            then=self._on_beat,
        )  # fmt: skip

    def rq_fields(self, _state: str) -> dict[str, Any]:
        """Give the worker's hash as RQ writes it."""
        self.birth_date = self.birth_date or self.last_heartbeat
        return {}

    def _held(self) -> list[Assignment]:
        running = (horse.assignment for horse in self._stable.running.values())
        ended = (assignment for assignment, _ in self._unrecorded.values())
        return [assignment for assignment in (*running, *ended) if assignment]

    def _presence(self) -> Presence:
        now = time.monotonic()
        jobs = [
            JobReport(
                id=horse.assignment.job_id,
                kind=self._kinds.get(token, ""),
                age_s=round(now - horse.began, 3),
                limit_s=horse.assignment.timeout_s,
                progress=horse.progress,
            )
            for token, horse in self._stable.running.items()
            if horse.assignment
        ]
        state = WorkerState.BUSY if jobs else WorkerState.IDLE
        return Presence(
            name=self.name, boot=self._boot, client_id=self._command.client_id,
            state=WorkerState.STOPPING if self._stops else state, queues=self.queue_names(),
            concurrency=self.concurrency, jobs=jobs, versions=versions(),
            clock_offset_s=self._clockwork.offset_s, rss_bytes=memory_bytes(),
            done=self._done, failed=self._failed,
        )  # fmt: skip

    def _on_beat(self, answer: Any) -> None:
        self._is_beating = False
        if isinstance(answer, redis.RedisError):
            self._complain("beat", answer)
            return
        self._clockwork.answer(float(answer[0]))
        if not self._is_registered:
            self._is_registered = True
            if self._down_since is not None:
                away_s = round(time.monotonic() - self._down_since, 1)
                log(Event.REDIS_BACK, worker=self.name, away_s=away_s)
                self._down_since = None
            for token in list(self._unrecorded):
                self._finish(token)
            self._wants_claim = True
        for token in answer[1:]:
            if horse := self._stable.running.get(token.decode()):
                self._stable.kill(horse, GIVEBACK)  # a later attempt has the job: say nothing

    def _complain(self, what: str, error: Exception) -> None:
        if error is not LOST:
            log(Event.REDIS_REFUSED, worker=self.name, what=what, reason=str(error))

    # -- claim ----------------------------------------------------------------------------------

    def _claim(self) -> None:
        free = 0 if self._stops else max(0, self._stable.free)
        if not free and not self._stops:
            return  # a horse that becomes free asks again
        names = self.queue_names()
        caps = [self._queue(name).concurrency for name in names]
        tokens = [f"{self._boot}{secrets.token_hex(12)}" for _ in range(free)]
        own = [keys.worker(self.name), keys.executions_of(self.name), keys.SUSPENDED]
        own += [*map(keys.queue, names), *map(keys.bell, names)]
        self._wants_claim, self._is_claiming = False, True
        self._command.send(
            "EVALSHA", scripts.CLAIM.sha, len(own), *own, self.name, self._epoch, free,
            REGISTRY_LEASE_S, len(names), *caps, *names, *tokens,
            then=lambda answer: self._on_claim(free, answer),
        )  # fmt: skip

    def _on_claim(self, wanted: int, answer: Any) -> None:
        self._is_claiming = False
        if isinstance(answer, redis.RedisError):
            self._complain("claim", answer)
            return
        if answer[0] == b"epoch":
            self._is_registered, self._next_beat = False, 0.0
            return
        for number, job_id, token, attempt, pairs in answer[1:]:
            job = dict(zip(pairs[::2], pairs[1::2], strict=True))
            self._start(self.queue_names()[number - 1], job_id, token, attempt, job)
        if wanted and len(answer) - 1 == wanted:
            self._wants_claim = True
        else:
            self._arm()

    def _start(
        self, queue: str, job_id: bytes, token: bytes, attempt: int, job: dict[bytes, bytes]
    ) -> None:
        settings = self._queue(queue)
        assignment = Assignment(
            queue=queue, job_id=job_id.decode(), token=token.decode(), attempt=attempt,
            data=job.get(b"data", b""), worker=self.name, clock_offset_s=self._offset_s(),
            timeout_s=int(job.get(b"timeout") or settings.timeout_s),
            soft_timeout_s=settings.soft_timeout_s,
            result_ttl_s=int(job.get(b"result_ttl") or settings.result_ttl_s),
            failure_ttl_s=int(job.get(b"failure_ttl") or settings.failure_ttl_s),
        )  # fmt: skip
        self._kinds[assignment.token] = job.get(b"rqscan_kind", b"").decode()
        self._stable.run(assignment)
        log(Event.JOB_STARTED, job=assignment.job_id, queue=queue, attempt=attempt)

    def _offset_s(self) -> float:
        return self._clockwork.offset_s or 0.0

    def _queue(self, name: str) -> QueueSettings:
        return self.settings.queues.get(name) or QueueSettings()

    def _arm(self) -> None:
        """Wait for a bell; one waiting command at a time."""
        if self._bell.is_up and not self._bell.is_waiting and not self._stops:
            bells = map(keys.bell, self.queue_names())
            self._bell.send("BLPOP", *bells, BELL_S, then=self._on_bell)

    def _on_bell(self, answer: Any) -> None:
        if answer is not LOST:
            self._wants_claim = True

    # -- end of a job ---------------------------------------------------------------------------

    def _on_end(self, horse: Horse, assignment: Assignment, outcome: Outcome | None) -> None:
        if outcome is None:
            outcome = self._outcome_of_death(horse, assignment)
        self._unrecorded[assignment.token] = (assignment, outcome)
        self._kinds.pop(assignment.token, None)
        self._finish(assignment.token)
        self._wants_claim = True

    def _outcome_of_death(self, horse: Horse, assignment: Assignment) -> Outcome:
        if horse.kill_reason == GIVEBACK:
            return Outcome(disposition="giveback")
        worked_s = time.monotonic() - horse.began
        if horse.kill_reason == TIMEOUT:
            error = FailedError(f"stopped at its hard limit of {assignment.timeout_s} s")
            return outcomes.failure(assignment, error, worked_s)
        how = self._stable.describe(horse)
        log(Event.HORSE_DIED, job=assignment.job_id, how=how)
        poison = FailedError(f"{how}; the job's own horse died {self.settings.worker.max_lost} times")
        failed = outcomes.failure(assignment, poison, worked_s)
        return msgspec.structs.replace(failed, disposition="lost")

    def _finish(self, token: str) -> None:
        if not self._is_registered:
            return  # sent after the next beat
        assignment, end = self._unrecorded[token]
        job, queue = assignment.job_id, assignment.queue
        states = [keys.registry(state, queue) for state in ("wip", "finished", "failed")]
        own = [keys.job(job), keys.queue(queue), *states, keys.worker(self.name)]
        own += [keys.executions_of(self.name), keys.results(job), keys.bell(queue), keys.COUNTERS]
        self._command.send(
            "EVALSHA", scripts.FINISH.sha, len(own), *own, job, token, end.disposition,
            end.result_ttl_s, end.failure_ttl_s, f"{end.worked_s:.6f}", queue,
            self.settings.worker.max_lost, end.observations, end.probes, int(end.is_refused),
            2 * len(end.fields), *flat(end.fields), *flat(end.result),
            then=lambda answer: self._on_finish(token, answer),
        )  # fmt: skip

    def _on_finish(self, token: str, answer: Any) -> None:
        if answer is LOST:
            return  # sent again after the next beat
        assignment, end = self._unrecorded.pop(token)
        if isinstance(answer, redis.RedisError):
            self._complain("finish", answer)
            return
        self._done += end.disposition == "finished"
        self._failed += end.disposition == "failed"
        event = {
            "finished": Event.JOB_FINISHED,
            "giveback": Event.JOB_GIVEN_BACK,
            "lost": Event.JOB_LOST,
        }.get(end.disposition, Event.JOB_REFUSED if end.is_refused else Event.JOB_FAILED)
        log(event, job=assignment.job_id, queue=assignment.queue, worked_s=round(end.worked_s, 3),
            **({"error": end.error} if end.error else {}),
            **({"answer": answer.decode()} if answer not in {b"ok", b"dup"} else {}))  # fmt: skip

    # -- end ------------------------------------------------------------------------------------

    def _say_goodbye(self) -> None:
        self._stable.stop()
        if self._command.is_up:
            me = keys.worker(self.name)
            for members in (keys.WORKERS, *map(keys.workers_of, self.queue_names())):
                self._command.send("SREM", members, me)
            self._command.send("ZREM", keys.PRESENCE, self.name)
            self._command.send("DEL", keys.record(self.name), me)
            until = time.monotonic() + 1
            while self._command.is_waiting and time.monotonic() < until:
                self._command.flush()
                for key, events in self._selector.select(0.1):
                    key.data(events)
        for link in (self._command, self._bell):
            link.close()
        for signum, handler in self._old_handlers.items():
            signal.signal(signum, handler)
        signal.set_wakeup_fd(self._old_wakeup)
        for end in (self._woken, self._wake):
            end.close()
        self._selector.close()
