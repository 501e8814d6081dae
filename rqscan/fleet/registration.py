"""Registration: keeps a worker known to the fleet, whatever Redis goes through.

Each beat writes everything that is known of the worker and renews the leases that it holds, so
that a server that was restarted, flushed or away needs no special care. Until the first beat of a
connection has been answered the worker is not registered: it claims nothing and ends nothing.
"""

import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import msgspec

from rqscan import clock
from rqscan.broker import keys, scripts
from rqscan.broker.link import LOST, Link, NoAnswer
from rqscan.broker.payload import PROTOCOL
from rqscan.fleet.handshake import Handshake
from rqscan.fleet.outage import Outage
from rqscan.fleet.presence import Clockwork, Presence, flat
from rqscan.fleet.rescue import OUTAGE_S, REGISTRY_LEASE_S, SWEEPER_MS
from rqscan.fleet.stable.wire import Assignment
from rqscan.logs import Event, log

__all__ = ["Beat", "Registration"]

UNMARKED_S = 60
"""A scan asked for so long ago and not enqueued has no submitter at work any more; after an outage
no submitter is waited for."""

CLOCK_S = 1.0
"""A host's clock that is further off is warned of, once."""


class Beat(NamedTuple):
    """What a beat's answer asks of the worker."""

    role: str  # sweeper, deputy, quiet (a sweeper with nothing to rescue), follower
    plan: str  # compare, look, or nothing
    asked_s: float | None  # to look at scans that were asked for so long ago
    queues: list[str]  # for the sweeper to listen on
    given_up: list[bytes]  # jobs that this worker's earlier lives have lost too often
    taken: list[str]  # tokens of attempts whose jobs are others' now


class Registration:
    """A worker's standing in Redis.

    Args:
        name: of the worker.
        queues: names of its queues.
        boot: random text of this process.
        heartbeat_s: time between beats.
        max_losses: deaths of a job's worker or host from which it is given up.
        outage: told when Redis is away, or takes nothing.
        handshake: tells whether the worker belongs to the fleet.
        describe: gives the presence to publish and the worker's hash as RQ writes it.
        held: gives the jobs whose leases to renew.
        on_beat: called after each beat that Redis has taken.
    """

    def __init__(
        self,
        name: str,
        queues: Sequence[str],
        boot: str,
        heartbeat_s: float,
        max_losses: int,
        *,
        outage: Outage,
        handshake: Handshake,
        describe: Callable[[], tuple[Presence, dict[str, Any]]],
        held: Callable[[], list[Assignment]],
        on_beat: Callable[[Beat], None],
    ) -> None:
        self._name, self._queues, self._boot = name, queues, boot
        self._heartbeat_s, self._max_losses = heartbeat_s, max_losses
        self._handshake = handshake
        self._describe, self._held, self._after_beat = describe, held, on_beat
        self._is_beating = False
        self._next_beat = 0.0
        self._run_id = ""
        self.outage = outage
        self.clockwork = Clockwork()
        self.epoch, self._epochs = "", 0
        self.is_current = self._is_first = False
        self.is_displaced = False  # another worker has begun under this name
        self.is_suspended = False  # by RQ's own switch
        self._is_clock_told = False

    def presence(self) -> Presence:
        """Give what would be published now."""
        return self._describe()[0]

    def link_is_up(self, run_id: str) -> None:
        """Begin a new epoch: what an earlier connection still has on its way changes nothing."""
        self._epochs += 1
        self.epoch = f"{self._boot}{self._epochs:08x}"
        self._run_id = run_id
        self._is_first, self._next_beat = True, 0.0

    def link_is_down(self, reason: str) -> None:
        """Note that Redis is away; said once however long it takes."""
        self.is_current = self._is_beating = False
        self.outage.begin(reason)

    def renew(self) -> None:
        """Register anew at once: the server does not know this epoch, or something has changed."""
        self._next_beat = 0.0

    def end(self, link: Link) -> None:
        """Say goodbye: nobody is to look for this worker."""
        me = keys.worker(self._name)
        for members in (keys.WORKERS, *map(keys.workers_of, self._queues)):
            link.send("SREM", members, me)
        for members in (keys.PRESENCE, keys.HOLDERS):
            link.send("ZREM", members, self._name)
        link.send("DEL", keys.record(self._name))
        link.send("HSET", me, "death", clock.iso(clock.now()), "state", "idle")
        link.send("EXPIRE", me, 60)  # RQ's readers may still look at its counts

    @property
    def fleet(self) -> tuple[str, int]:
        """The store and the protocol that a fleet must have for us to claim from it."""
        return "?" if self._handshake.mismatch else self._handshake.store_id, PROTOCOL

    @property
    def may_claim(self) -> bool:
        """Tell whether we are registered, and of this fleet."""
        return self.is_current and self._handshake.is_ours

    @property
    def away_s(self) -> float:
        """How long Redis has been away; 0 while it is there."""
        return self.outage.away_s

    @property
    def deadline(self) -> float:
        """Monotonic time of the next beat."""
        return float("inf") if self._is_beating else self._next_beat

    def beat(self, link: Link) -> None:
        """Send a beat if one is due."""
        if time.monotonic() < self.deadline:
            return
        self._is_beating = True
        self._next_beat = time.monotonic() + self._heartbeat_s
        presence, fields = self._describe()
        held = [part for a in self._held() for part in (a.queue, a.job_id, a.token)]
        own = [keys.worker(self._name), keys.WORKERS, keys.executions_of(self._name)]
        own += [keys.PRESENCE, keys.record(self._name), keys.HOLDERS, keys.SWEEPER]
        own += [keys.LAST_BEAT, keys.GRACE, keys.SERVED, keys.PAUSED, keys.SUSPENDED, keys.STORE]
        own += [keys.MARKER, keys.look(self._handshake.store_id), keys.DEPUTY]
        own += map(keys.workers_of, self._queues)
        self.clockwork.ask()
        link.send(
            "EVALSHA", scripts.BEAT.sha, len(own), *own, self._name, self.epoch, REGISTRY_LEASE_S,
            msgspec.json.encode(presence), self._heartbeat_s + OUTAGE_S,
            round(1000 * presence.lease_s), SWEEPER_MS, int(self._is_first), *self.fleet,
            self._run_id, ",".join(self._queues), 2 * len(fields), self._max_losses,
            *flat(fields), *held,
            then=self._on_beat,
        )  # fmt: skip

    def _on_beat(self, answer: Any) -> None:
        self._is_beating = False
        if isinstance(answer, NoAnswer):
            if answer is not LOST:  # no memory, a full disk: as good as away
                self.outage.begin(f"it takes nothing: {answer}")
            return
        if answer[0] == b"displaced":
            self.is_displaced = True
            return
        at, role, suspended, plan, store_id, protocol, queues, given_up, *taken = answer
        is_first, self._is_first = self._is_first, False
        self.clockwork.answer(float(at))
        self._warn_of_clock()
        self.is_current = True
        self.outage.end()
        is_changed = self._handshake.judge(
            store_id.decode(errors="replace"), protocol.decode(errors="replace")
        )
        if is_changed or self.is_suspended != bool(suspended):
            self.is_suspended = bool(suspended)
            self.renew()  # for all to see
        asked_s = (0 if is_first else UNMARKED_S) if plan == b"look" else None
        names = [name.decode(errors="replace") for name in queues]
        self._after_beat(
            Beat(
                role.decode(),
                plan.decode(),
                asked_s,
                names,
                given_up,
                [token.decode() for token in taken],
            )
        )

    def _warn_of_clock(self) -> None:
        offset_s = self.clockwork.offset_s or 0.0
        is_off = abs(offset_s) > CLOCK_S
        if is_off and not self._is_clock_told:
            log(Event.CLOCK_OFF, worker=self._name, off_s=round(-offset_s, 1),
                advice="let this host's clock follow a time server, e.g. by chrony")  # fmt: skip
        self._is_clock_told = is_off
