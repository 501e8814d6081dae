"""Rescue: one of the workers looks each second for those that are gone, and frees their jobs.

A worker whose beat is overdue is a suspect: if its connection is gone too it is dead, and its jobs
are freed at once; else they are when its lease has lapsed. After an outage of Redis everybody's
beat is overdue, so nobody is rescued from until all had time to beat again.
"""

import time
from collections.abc import Callable
from typing import Any

from rqscan.broker import keys, scripts
from rqscan.broker.link import LOST, Link, NoAnswer
from rqscan.broker.payload import chunk_of
from rqscan.fleet.outage import Outage
from rqscan.logs import Event, log
from rqscan.settings import WorkerSettings

__all__ = ["OUTAGE_S", "REGISTRY_LEASE_S", "SWEEPER_MS", "Rescue"]

SWEEP_S = 1.0

SWEEPER_MS = 1_500
"""Lease of the sweeper: a dead one delays a rescue by so much and the next try of its deputy."""

REGISTRY_LEASE_S = 3_000_000_000
"""How far ahead RQ's own registries are scored, 95 years: a reader that cleans them up (`rq info`)
goes by its own clock, which may be wrong, and must not end what runs."""

OUTAGE_S = 1.2
"""Nobody's beat for so long after one was due is an outage of Redis, not many deaths."""

OVERDUE_S = 0.6
"""A worker is a suspect once its beat is overdue by so much."""


class Rescue:
    """A worker's part in the rescue of others: nothing, unless it is the sweeper.

    Args:
        name: of the worker.
        outage: told what Redis does not take.
        settings: how long a worker may be silent, and how often a job may lose its worker.
        on_given_up: called for each chunk that lost its worker too often, with what the store is to
            be told: scan id, chunk, generation, attempt, worker, error, seconds worked.
    """

    def __init__(
        self,
        name: str,
        outage: Outage,
        settings: WorkerSettings,
        on_given_up: Callable[..., None],
    ) -> None:
        self._name, self._outage = name, outage
        self._settings, self._on_given_up = settings, on_given_up
        self._next_sweep = 0.0
        self._is_sweeping = False
        self._gone: list[str] = []
        self.is_sweeper = False  # or its deputy, which tries as often

    @property
    def deadline(self) -> float:
        """Monotonic time of the next sweep."""
        is_due = self.is_sweeper and not self._is_sweeping
        return self._next_sweep if is_due else float("inf")

    def link_is_down(self) -> None:
        """Forget what was asked; the next beat tells who sweeps."""
        self.is_sweeper = self._is_sweeping = False

    def sweep(self, link: Link) -> None:
        """Send a sweep if we are the sweeper and one is due."""
        if time.monotonic() < self.deadline:
            return
        self._is_sweeping = True
        self._next_sweep = time.monotonic() + SWEEP_S
        gone, self._gone = self._gone, []
        own = [keys.SWEEPER, keys.HOLDERS, keys.GRACE, keys.WORKERS]
        own += [keys.SERVED, keys.PAUSED, keys.SUSPENDED, keys.LAST_BEAT]
        suspect_s = self._settings.heartbeat_s + OVERDUE_S
        link.send(
            "EVALSHA", scripts.SWEEP.sha, len(own), *own, self._name, SWEEPER_MS, suspect_s,
            self._settings.lease_s, self._settings.max_host_losses, REGISTRY_LEASE_S,
            self._settings.heartbeat_s + OUTAGE_S, *gone,
            then=lambda answer: self._on_swept(link, answer),
        )  # fmt: skip

    def _on_swept(self, link: Link, answer: Any) -> None:
        self._is_sweeping = False
        if isinstance(answer, NoAnswer):
            if answer is not LOST:
                self._outage.refused("sweep", answer)
            return
        if answer[0] == b"deposed":  # the next beat tells whether to go on trying
            return
        if answer[1]:
            log(Event.WORKERS_LOST, worker=self._name, count=answer[1])
        self.give_up(answer[2])
        if suspects := dict(zip(answer[3::2], answer[4::2], strict=True)):
            clients = [client.decode() for client in suspects.values()]
            link.send(
                "CLIENT", "LIST", "ID", *clients, then=lambda a: self._on_clients(suspects, a)
            )

    def give_up(self, found: list[bytes]) -> None:
        """Take id, attempt and error of each job that a script has given up."""
        texts = [part.decode(errors="replace") for part in found]
        for job_id, attempt, error in zip(*[iter(texts)] * 3, strict=True):
            log(Event.JOB_FAILED, job=job_id, error=error)
            if (chunk := chunk_of(job_id)) and attempt.isdecimal():
                self._on_given_up(*chunk, int(attempt), self._name, error, 0.0)

    def _on_clients(self, suspects: dict[bytes, bytes], answer: Any) -> None:
        if isinstance(answer, NoAnswer):
            return  # told by their lease, then
        connected = {line.split(b" ", 1)[0] for line in answer.splitlines()}
        self._gone = [
            name.decode() for name, client in suspects.items() if b"id=" + client not in connected
        ]
        if self._gone:
            self._next_sweep = 0.0
