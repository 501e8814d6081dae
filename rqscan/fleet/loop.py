"""The loop of a worker: one turn after the other, without threads, never waiting for an answer.

What a job goes through: `Claims.claim` → `Attempts.start` → `Stable.run` → (a work-horse) →
`Attempts._on_end` → `Ledger.send`. No database, DNS or disk work is done here: horses and errands,
which are other processes, do it.

One turn: what is due (links, beat, sweep, limits) · ends, and a claim if a horse is free · write ·
ask for one spare horse · wait until something happens.
"""

import secrets
import selectors
import time
from pathlib import Path
from typing import Any

from msgspec.structs import replace

from rqscan.broker.embedded import revive_own
from rqscan.broker.link import Link
from rqscan.broker.scripts import SCRIPTS
from rqscan.errors import FailedError
from rqscan.fleet import presence
from rqscan.fleet.attempts import Attempts
from rqscan.fleet.claims import BELL_S, Claims
from rqscan.fleet.commands import Commands
from rqscan.fleet.errands import Errands
from rqscan.fleet.handshake import Handshake
from rqscan.fleet.ledger import Ledger
from rqscan.fleet.left_over import LeftOver
from rqscan.fleet.outage import Outage
from rqscan.fleet.peek import Peek
from rqscan.fleet.plan import Plan
from rqscan.fleet.registration import Beat, Registration
from rqscan.fleet.rescue import Rescue
from rqscan.fleet.signals import stop_signals
from rqscan.fleet.spooling import Spooling
from rqscan.fleet.unrecorded import Unrecorded
from rqscan.logs import Event, log
from rqscan.settings import QueueSettings
from rqscan.states import WorkerState

__all__ = ["Loop"]

HOUSE_S = 0.02
"""Least pause between two looks at all deadlines, however much there is to do meanwhile."""

LAST_WORD_S = 3.0
"""For Redis to take what was given back, once jobs are stopped; the rest is kept on disk."""


class Loop:
    """A worker at work."""

    def __init__(self, plan: Plan) -> None:
        settings, endpoint, name = plan.settings, plan.endpoint, plan.name
        worker = settings.worker
        self._plan, self._name, self._settings = plan, name, settings
        self._boot = secrets.token_hex(4)
        self._signals, self._stop_deadline = 0, float("inf")
        self._kept_at = self._house_at = 0.0  # monotonic: of the last look at deadlines, the next
        self._last_word = float("inf")  # monotonic: when Redis need not have taken everything
        self._selector = selectors.DefaultSelector()
        mine = {queue: settings.queues.get(queue) or QueueSettings() for queue in plan.queues}
        own = replace(settings, redis=replace(settings.redis, url=endpoint.url))
        self._kept = Path(settings.home) / "ends"
        self._errands = Errands(own, self._selector)
        self._unrecorded = Unrecorded(self._errands)
        self._spooling = Spooling(name, settings, self._errands, is_working=lambda: bool(
            self._attempts.running or self._claims.may_get_more
        ))  # fmt: skip
        self._outage = Outage(worker=name)
        limits = {"lost": worker.max_lost, "displaced": worker.max_host_losses}
        self._ledger = Ledger(name, self._outage, limits, self._unrecorded.add)
        self._ledger.recall(self._kept)
        self._handshake = Handshake(name, settings)
        self._attempts = Attempts(own, plan.concurrency, self._selector, self._ledger, self._want)
        self._attempts.left = plan.max_jobs or self._attempts.left
        self._rescue = Rescue(name, self._outage, worker, self._unrecorded.add)
        self._left_over = LeftOver(self._outage, self._attempts.follow_up)
        self._registration = Registration(
            name, plan.queues, self._boot, worker.heartbeat_s, worker.max_host_losses,
            outage=self._outage,
            handshake=self._handshake, describe=self._describe,
            held=lambda: self._attempts.held, on_beat=self._on_beat,
        )  # fmt: skip
        self._claims = Claims(
            name, mine, self._boot, self._registration, self._attempts.start,
            is_held=lambda: bool(self._spooling.holds),
        )  # fmt: skip
        self._command = Link(
            endpoint, self._selector,
            lambda: self._registration.link_is_up(self._command.run_id), self._on_down,
            name=presence.client_name(self._boot), scripts=SCRIPTS,
        )  # fmt: skip
        self._bell = Link(endpoint, self._selector, self._want, lambda _: None, blocking_s=BELL_S)
        self._peek = Peek(endpoint, self._selector, self._command)
        self._commands = Commands(
            name, endpoint, self._selector, self._command, attempts=self._attempts,
            claims=self._claims, registration=self._registration, stop=self._on_signal,
            spooling=self._spooling, errands=self._errands,
        )  # fmt: skip

    def run(self, *, burst: bool) -> bool:
        """Turn until a signal, or with `burst` until nothing is left to claim; tell if a job ran.

        Raises:
            FailedError: another worker has begun under this name.
        """
        with self._selector, stop_signals(self._on_signal) as woken:
            self._selector.register(woken, selectors.EVENT_READ, lambda _: woken.recv(64))
            self._attempts.open()
            log(Event.WORKER_STARTED, worker=self._name, queues=self._plan.queues,
                concurrency=self._plan.concurrency)  # fmt: skip
            try:
                while not self._is_over(burst=burst):
                    self._turn()
                    if self._registration.is_displaced:  # which has put our jobs back
                        raise FailedError(f"another worker has begun under the name {self._name!r}")
            finally:
                self._say_goodbye()
        ledger = self._ledger
        log(Event.WORKER_STOPPED, worker=self._name, done=ledger.done, failed=ledger.failed)
        return bool(ledger.done + ledger.failed)

    def _turn(self) -> None:
        if time.monotonic() >= self._house_at:
            self._keep_house()
        if self._registration.is_current:
            if self._ledger.send(self._command):
                self._claims.is_wanted = True
            self._claims.claim(self._command, self._bell, self._attempts.free)
        self._command.flush()
        self._bell.flush()
        wants_more = self._attempts.ask()
        if self._command.is_waiting:  # an answer that stays out must be missed
            self._house_at = min(self._house_at, self._kept_at + HOUSE_S)
        timeout = 0.0 if wants_more else max(0.0, self._house_at - time.monotonic())
        for key, events in self._selector.select(timeout):
            key.data(events)
            # Whatever has come may have made something due.
            self._house_at = min(self._house_at, self._kept_at + HOUSE_S)

    def _keep_house(self) -> None:
        self._command.check()
        self._errands.check()
        self._unrecorded.check()
        if self._spooling.check():
            self._want()
            self._registration.renew()  # for all to see
        if self._handshake.is_due():
            self._errands.run("store", then=self._on_store)
        self._commands.check()
        if self._registration.is_current:
            self._bell.check()
            self._peek.check()
        if self._may_beat:
            self._registration.beat(self._command)
            self._rescue.sweep(self._command)
            self._left_over.look(self._command)
        self._attempts.enforce_limits()
        if self._is_giving_back:
            self._attempts.give_back()
            self._last_word = min(self._last_word, time.monotonic() + LAST_WORD_S)
        self._kept_at, self._house_at = time.monotonic(), self._deadline()

    def _deadline(self) -> float:
        longest_s = 0.1 if self._signals else self._settings.worker.heartbeat_s
        parts = (self._command, self._commands, self._attempts, self._errands, self._unrecorded,
                 self._spooling)  # fmt: skip
        deadlines = [time.monotonic() + longest_s, *(part.deadline for part in parts)]
        if self._may_beat:
            deadlines += [x.deadline for x in (self._registration, self._rescue, self._left_over)]
        if self._registration.is_current:
            deadlines += [self._bell.deadline, self._peek.deadline]
        return min(self._handshake.ask_at, *deadlines)

    @property
    def _may_beat(self) -> bool:
        # A beat gives back what we do not hold; what a claim has taken must have arrived first.
        return self._command.is_up and not self._claims.is_open

    @property
    def _is_giving_back(self) -> bool:
        return self._signals > 1 or time.monotonic() >= self._stop_deadline

    def _is_over(self, *, burst: bool) -> bool:
        if self._attempts.is_busy:
            return False
        if self._signals:
            is_settled = not self._claims.is_open and not len(self._ledger)
            is_away = self._registration.away_s > 1 or time.monotonic() > self._last_word
            return is_away or (is_settled and not self._unrecorded.is_pending)
        is_idle = self._registration.is_current and self._claims.is_idle
        is_told = not len(self._ledger) and not self._unrecorded.is_pending
        return is_told and ((burst and is_idle) or self._attempts.left <= 0)

    def _on_signal(self, name: str) -> None:
        self._signals += 1
        if self._signals == 1:
            self._attempts.is_refusing = True
            self._stop_deadline = time.monotonic() + self._plan.stop_timeout_s
        running = len(self._attempts.running)
        log(Event.STOP_REQUESTED, worker=self._name, signal=name, running=running)

    def _on_beat(self, beat: Beat) -> None:
        self._ledger.resend()
        self._rescue.is_sweeper = beat.role in {"sweeper", "deputy"}
        self._left_over.assign(is_sweeper=beat.role in {"sweeper", "quiet"})
        self._rescue.give_up(beat.given_up)
        self._peek.watch(beat.queues)
        for token in beat.taken:
            self._attempts.drop(token)
        if beat.plan:
            self._errands.run(beat.plan, beat.asked_s)
        if not self._bell.is_waiting:  # at first, or since something was refused
            self._claims.is_wanted = True

    def _on_down(self, reason: str) -> None:
        self._registration.link_is_down(reason)
        self._claims.link_is_down()
        self._rescue.link_is_down()
        self._left_over.assign(is_sweeper=False)
        self._bell.reset()  # the same way leads to it, and nothing is due on it for long
        self._peek.watch([])
        revive_own(self._settings)

    def _want(self) -> None:
        self._claims.is_wanted = True

    def _on_store(self, answer: dict[str, Any] | None) -> None:
        self._handshake.learn(answer)
        self._registration.renew()  # for all to see

    @property
    def _fleet_state(self) -> WorkerState:
        if self._signals:
            return WorkerState.STOPPING
        if self._handshake.mismatch:
            return WorkerState.MISMATCHED
        if self._handshake.is_waiting:
            return WorkerState.STARTING
        is_held = self._claims.is_draining or self._spooling.holds
        if self._registration.is_suspended or is_held:
            return WorkerState.SUSPENDED
        return WorkerState.BUSY if self._attempts.running else WorkerState.IDLE

    def _describe(self) -> tuple[presence.Presence, dict[str, Any]]:
        record = presence.Presence(
            name=self._name, boot=self._boot, lease_s=self._settings.worker.lease_s,
            state=self._fleet_state, queues=self._plan.queues, concurrency=self._plan.concurrency,
            clock_offset_s=self._registration.clockwork.offset_s, jobs=self._attempts.reports(),
            clock_error_s=self._registration.clockwork.error_s, failed=self._ledger.failed,
            holds=self._spooling.holds, spool=self._spooling.report(), done=self._ledger.done,
            mismatch=self._handshake.mismatch, client_id=self._command.client_id,
            store_id=self._handshake.store_id, rss_bytes=presence.memory_bytes(self._attempts.pids),
        )  # fmt: skip
        state = "busy" if record.jobs else "suspended" if record.state == "suspended" else "idle"
        mine = {"rqscan_client": self._command.client_id, "state": state}
        return record, self._plan.rq_fields | mine

    def _say_goodbye(self) -> None:
        self._attempts.close()
        self._errands.stop()
        self._peek.watch([])
        self._ledger.keep(self._kept)
        if not self._registration.is_displaced:  # then all that stands there is the other's
            self._registration.end(self._command)
        until = time.monotonic() + 1
        while self._command.is_waiting and time.monotonic() < until:
            self._command.flush()
            for key, events in self._selector.select(0.1):
                key.data(events)
        for link in (self._command, self._bell, self._commands):
            link.close()
