"""Claims: takes jobs from the queues when a work-horse is free, and waits on their bells.

A worker claims only as many jobs as can start at once. While it waits, one command blocks on the
bells of all its queues; each claim hands the bell on, so that one worker wakes for each job.
"""

import os
from collections.abc import Callable, Sequence
from typing import Any

from rqscan.broker import keys, scripts
from rqscan.broker.link import LOST, Link, NoAnswer
from rqscan.fleet.registration import Registration
from rqscan.fleet.rescue import REGISTRY_LEASE_S
from rqscan.fleet.stable.wire import Assignment
from rqscan.settings import QueueSettings

__all__ = ["BELL_S", "CALLBACK_TIMEOUT_S", "Claims"]

BELL_S = 120
"""Longest block on the bells; that a connection is gone is told by the one that beats."""

YEARS_S = 1_000_000_000
"""Longest time that a job's hash may ask for: more overflows somewhere."""

CALLBACK_TIMEOUT_S = 60
"""RQ's own, for a callback that names none."""

GRACE_S = 5
"""A plain function is stopped by RQ's exception at its limit; one that survives it is killed."""


class Claims:
    """What a worker takes from its queues.

    Args:
        name: of the worker.
        queues: its queues' settings by name, in order of priority.
        boot: random text of this process; tokens begin with it.
        registration: gives the epoch; nothing is claimed while it is not current.
        start: called with each job that was claimed.
        is_held: tells whether nothing is to be claimed for a while.
    """

    def __init__(
        self,
        name: str,
        queues: dict[str, QueueSettings],
        boot: str,
        registration: Registration,
        start: Callable[[Assignment], None],
        *,
        is_held: Callable[[], bool],
    ) -> None:
        self._name, self._queues, self._boot = name, queues, boot
        self._names: Sequence[str] = list(queues)
        self._keys = [
            keys.worker(name), keys.executions_of(name), keys.SUSPENDED, keys.PAUSED, keys.STORE,
            *map(keys.queue, queues), *map(keys.bell, queues),
        ]  # fmt: skip
        self._caps = [queue.concurrency for queue in queues.values()]
        self._registration, self._start, self._is_held = registration, start, is_held
        self._has_bell = False
        self.is_open = False  # a claim is on its way
        self.is_wanted = False
        self.is_draining = False  # nothing more is claimed, by command

    @property
    def is_idle(self) -> bool:
        """Tell whether the queues gave nothing when last asked."""
        return not (self.is_open or self.is_wanted)

    @property
    def may_get_more(self) -> bool:
        """Tell whether the queues may hold jobs for us, as far as we may ask."""
        return self._registration.may_claim and not self.is_draining and not self.is_idle

    def link_is_down(self) -> None:
        """Forget the claim whose answer is lost: the next beat gives back what it took."""
        self.is_open = False

    def claim(self, link: Link, bell: Link, free: int) -> None:
        """Claim up to `free` jobs if that is wanted; with none free only hand a bell on."""
        free = 0 if self.is_draining or self._is_held() else free
        if not self.is_wanted or self.is_open or not self._registration.may_claim:
            return
        if not free and not self._has_bell:
            return
        tokens = [f"{self._boot}{os.urandom(12).hex()}" for _ in range(free)]
        self.is_wanted, self._has_bell, self.is_open = not free, False, True
        link.send(
            "EVALSHA", scripts.CLAIM.sha, len(self._keys), *self._keys, self._name,
            self._registration.epoch, free, REGISTRY_LEASE_S, *self._registration.fleet,
            len(self._names), *self._caps, *self._names, *tokens,
            then=lambda answer: self._on_claim(bell, free, answer),
        )  # fmt: skip

    def _wait(self, bell: Link) -> None:
        """Block on the bells, with one command at a time."""
        if bell.is_up and not bell.is_waiting:
            bell.send("BLPOP", *map(keys.bell, self._names), BELL_S, then=self._on_bell)

    def _on_bell(self, answer: Any) -> None:
        if not isinstance(answer, NoAnswer):  # refused: the next beat asks again
            self.is_wanted = True
            self._has_bell = answer is not None

    def _on_claim(self, bell: Link, free: int, answer: Any) -> None:
        self.is_open = False
        if isinstance(answer, NoAnswer):
            if answer is not LOST:
                self._registration.outage.refused("claim", answer)
            return
        if answer[0] == b"epoch":
            self._registration.renew()
            return
        for number, job_id, token, attempt, pairs in answer[1:]:
            fields = dict(zip(pairs[::2], pairs[1::2], strict=True))
            self._start(self._assignment(number, job_id, token, attempt, fields))
        if len(answer) - 1 == free:  # there may be more, for the next horse
            self.is_wanted = True
        else:
            self._wait(bell)

    def _assignment(
        self, number: int, job_id: bytes, token: bytes, attempt: int, job: dict[bytes, bytes]
    ) -> Assignment:
        name = self._names[number - 1]
        settings = self._queues[name]
        kind = job.get(b"rqscan_kind", b"").decode(errors="replace")
        return Assignment(
            queue=name,
            kind=kind,
            job={} if kind else job,
            grace_s=0 if kind else GRACE_S + _callbacks_s(job),
            job_id=job_id.decode(errors="replace"),
            token=token.decode(),
            attempt=attempt,
            data=job.get(b"data", b""),
            worker=self._name,
            clock_offset_s=self._registration.clockwork.offset_s or 0.0,
            timeout_s=_seconds(job.get(b"timeout"), settings.timeout_s),
            soft_timeout_s=settings.soft_timeout_s,
            result_ttl_s=_seconds(job.get(b"result_ttl"), settings.result_ttl_s),
            failure_ttl_s=_seconds(job.get(b"failure_ttl"), settings.failure_ttl_s),
            failures=max(0, _seconds(job.get(b"rqscan_failures"), 0)),
            retries=settings.retries,
            retry_backoff_s=settings.retry_backoff_s,
            retry_backoff_max_s=settings.retry_backoff_max_s,
        )


def _callbacks_s(job: dict[bytes, bytes]) -> int:
    """Give the longest time that a job's callbacks may take after it."""
    names = (name for name in (b"success", b"failure") if job.get(name + b"_callback_name"))
    return sum(_seconds(job.get(name + b"_callback_timeout"), CALLBACK_TIMEOUT_S) for name in names)


def _seconds(field: bytes | None, default: int) -> int:
    """Read a field of a job's hash, in which anybody may have written anything."""
    try:
        return max(-1, min(int(field or default), YEARS_S))
    except ValueError:
        return default
