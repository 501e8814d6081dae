"""The observer: times how each orphan comes back, through one connection of its own.

An orphan is a job that a victim held at its death. It is back once its record no longer says that
it is started by that attempt; from then on it should start at once if a horse is free. What falls
into an outage of Redis is timed apart, from the end of it, and has more time: nobody is rescued
from until all had time to beat again.
"""

import time
from collections import defaultdict
from dataclasses import dataclass, field

import redis

from bench.chaos.fleet import Fleet
from rqscan.broker import keys

__all__ = ["LATE_S", "Observer", "Orphan"]

LATE_S = 8.0
"""An orphan must be back in its queue within this, while another worker lives."""

SLOW_S = 1.0
"""A start that takes longer though a horse is free is worth a look."""

AFTER_OUTAGE_S = 10.0
"""A lease, a beat and a sweep: so long after an outage of Redis rescue may wait for beats."""

Signature = tuple[bytes | None, bytes | None]  # worker and start of an attempt


@dataclass
class Orphan:
    """A job whose holder is gone."""

    job: str
    attempt: Signature
    cause: str
    died_at: float
    back_at: float = 0.0
    a_horse_is_free: bool = False


@dataclass
class Observer:
    """Watches orphans; `recovery` and `start` hold the seconds measured, by cause."""

    client: redis.Redis
    fleet: Fleet
    queues: list[str]
    capacity: int  # jobs at once of a worker
    open: list[Orphan] = field(default_factory=list)
    recovery: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    start: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    late: list[Orphan] = field(default_factory=list)
    slow: list[str] = field(default_factory=list)  # starts that took long though a horse was free
    outage: tuple[float, float] = (-1e9, -1e9)  # the last time that Redis was away: from, until

    @property
    def redis_is_away(self) -> bool:
        return self.outage[1] == float("inf")

    def expect_outage(self) -> None:
        """Redis is about to go away."""
        if not self.redis_is_away:
            self.outage = (time.monotonic(), float("inf"))

    def held_by(self, names: list[str]) -> list[str]:
        """Give the ids of the jobs that these workers have started."""
        with self.client.pipeline(transaction=False) as pipe:
            for queue in self.queues:
                pipe.zrange(keys.registry("wip", queue), 0, -1)
            jobs = [pair.decode().rpartition(":")[0] for pairs in pipe.execute() for pair in pairs]
            for job in jobs:
                pipe.hget(keys.job(job), "worker_name")
            owners = pipe.execute()
        return [job for job, owner in zip(jobs, owners, strict=True) if _text(owner) in names]

    def watch(self, jobs: list[str], cause: str, died_at: float) -> None:
        """Time these jobs' recovery from now on, if they are started."""
        for job, (status, *attempt) in zip(jobs, self._read(jobs), strict=True):
            known = {orphan.job for orphan in self.open}
            if status == b"started" and job not in known:
                self.open.append(Orphan(job, (attempt[0], attempt[1]), cause, died_at))

    def _read(self, jobs: list[str]) -> list[list[bytes | None]]:
        with self.client.pipeline(transaction=False) as pipe:
            for job in jobs:
                pipe.hmget(keys.job(job), "status", "worker_name", "started_at")
            return pipe.execute()

    def tick(self) -> None:
        """Look at every open orphan once."""
        now = time.monotonic()
        try:
            if not self.open:
                self.client.ping()
            states = self._read([orphan.job for orphan in self.open])
            self._see(now, states)
        except redis.RedisError:
            self.expect_outage()
            return
        if self.redis_is_away:
            self.outage = (self.outage[0], time.monotonic())

    def _see(self, now: float, states: list[list[bytes | None]]) -> None:
        stay = []
        for orphan, (status, *attempt) in zip(self.open, states, strict=True):
            is_same = tuple(attempt) == orphan.attempt
            ended = status not in {b"started", b"queued", b"scheduled"}
            if not orphan.back_at and ended and is_same:
                continue  # it ended by itself just before
            if not orphan.back_at and not (status == b"started" and is_same):
                self._is_back(orphan, now)
            if orphan.back_at and not is_same:
                free = "a horse was free" if orphan.a_horse_is_free else "all horses were busy"
                self.start[free].append(now - orphan.back_at)
                if orphan.a_horse_is_free and now - orphan.back_at > SLOW_S:
                    waited = f"{now - orphan.back_at:.2f} s"
                    self.slow.append(f"{orphan.job} after {orphan.cause} waited {waited}")
                continue
            if not orphan.back_at and orphan not in self.late and self._is_overdue(orphan, now):
                self.late.append(orphan)
            stay.append(orphan)
        self.open = stay

    def _is_back(self, orphan: Orphan, now: float) -> None:
        orphan.back_at = now
        cause = "after an outage, from its end" if self._is_disturbed(orphan, now) else orphan.cause
        self.recovery[cause].append(now - self._since(orphan, now))
        orphan.a_horse_is_free = self._is_free()

    def _is_free(self) -> bool:
        """Tell whether a worker has a free horse, and no other job waits for one."""
        ready = [host for host in self.fleet.workers if host.is_ready]
        with self.client.pipeline(transaction=False) as pipe:
            for queue in self.queues:
                pipe.lrange(keys.queue(queue), 0, -1)
            for host in ready:
                pipe.scard(keys.executions_of(host.name))
            answers = pipe.execute()
        orphans = {orphan.job for orphan in self.open}
        waiting = {job.decode() for jobs in answers[: len(self.queues)] for job in jobs}
        running = answers[len(self.queues) :]
        return waiting <= orphans and any(number < self.capacity for number in running)

    def _is_disturbed(self, orphan: Orphan, now: float) -> bool:
        began, ended = self.outage
        return ended + AFTER_OUTAGE_S > orphan.died_at and began < now

    def _since(self, orphan: Orphan, now: float) -> float:
        """Tell from when on a living worker could have rescued the orphan."""
        ended = self.outage[1]
        return max(orphan.died_at, ended) if ended < now else orphan.died_at

    def _is_overdue(self, orphan: Orphan, now: float) -> bool:
        if self.redis_is_away:
            return False
        limit_s = LATE_S + (AFTER_OUTAGE_S if self._is_disturbed(orphan, now) else 0)
        return now - self._since(orphan, now) > limit_s


def _text(value: bytes | None) -> str:
    return (value or b"").decode(errors="replace")
