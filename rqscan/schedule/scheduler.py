"""ScanScheduler: of any number one leads, and fires each due run once, whoever is killed when.

One turn: lead · fire what is due · rq-scheduler's own due jobs · wait. To fire is one script in
Redis: it puts the runs of an entry on the list of runs, and moves the entry on. A child process
makes scans of them (`rqscan.schedule.maker`), so that no database and no large plan holds up the
clock.
"""

import os
import selectors
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import datetime
from typing import Any

import redis
from msgspec import json
from redis.client import Pipeline

from rqscan import clock, config
from rqscan.broker import keys, scripts
from rqscan.broker.connect import endpoint_of, impatient
from rqscan.broker.embedded import revive_own
from rqscan.broker.link import Link
from rqscan.errors import RedisUnavailable, StoreUnavailable
from rqscan.fleet.handshake import Handshake
from rqscan.fleet.outage import Outage
from rqscan.fleet.presence import Clockwork
from rqscan.fleet.schedulers import living
from rqscan.fleet.signals import stop_signals
from rqscan.logs import Event, log
from rqscan.schedule import table
from rqscan.schedule.entries import Entry, read_entries, with_kept
from rqscan.schedule.lease import Lease
from rqscan.schedule.maker import Maker
from rqscan.schedule.making import Making
from rqscan.schedule.misfire import runs_of
from rqscan.schedule.rq_jobs import RqJobs
from rqscan.settings import Settings
from rqscan.store.dialect import Limits
from rqscan.store.journal import Journal, KeptEntry
from rqscan.store.migrate import open_current
from rqscan.store.repository import Repository

__all__ = ["ScanScheduler"]

FOLLOW_S = 0.5
"""How often one that does not lead looks whether it may."""

LEAD_S = 1.5
"""The leader renews its lease that often, and no pause is longer: three fit into it."""

RETRY_S = 2.0
"""Longest pause while Redis is away."""

READ_S = 30.0
"""How often the journal is read though nothing was heard of a change."""

LIMITS = Limits(connect=1, answer=3)
"""Of the database: shorter than the lease, and runs are to be fired meanwhile."""

PAGE = 100
"""Entries that are fired in one round trip."""


class ScanScheduler(RqJobs):
    """A scheduler for scans; the constructor takes what rq-scheduler's takes.

    Args:
        settings: those in force; read from file and environment by default.
    """

    def __init__(self, *args: Any, settings: Settings | None = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.name = kwargs.get("name") or f"{socket.gethostname()}.{os.getpid()}"
        self.settings = settings or config.load()
        self._of_file = self._entries = read_entries(self.settings)
        self._kept: dict[str, KeptEntry] = {}
        self._digest = table.digest(self._of_file.values())
        self._due: dict[str, datetime] = {}  # of the entries, while we lead
        self._handshake = Handshake(self.name, self.settings)
        self._lease = Lease(self.connection, self.name)
        self._clockwork = Clockwork()
        self._outage = Outage(scheduler=self.name)
        self._selector = selectors.DefaultSelector()
        self._making = Making(self.settings, self._selector)
        self._ears = Link(
            endpoint_of(self.connection), self._selector, self._on_up, lambda _: None,
            name="rqscan", on_push=lambda _, __: self._on_change(),
        )  # fmt: skip
        self._is_leader = self._is_stopping = False
        self._lead_at = self._read_at = 0.0  # monotonic: when to renew, and to read the journal

    def run(self, burst: bool = False) -> None:  # noqa: FBT001, FBT002 - as in rq-scheduler
        """Run until SIGTERM or SIGINT, or with `burst` until what is due was made once."""
        with stop_signals(self._on_signal) as woken:
            self._selector.register(woken, selectors.EVENT_READ, lambda _: None)
            log(Event.SCHEDULER_STARTED, scheduler=self.name, entries=len(self._entries))
            for entry in self._entries.values():
                if entry.invalid:
                    log(Event.ENTRY_INVALID, entry=entry.name, reason=entry.invalid)
            impatient(self.connection)
            while not self._is_stopping:
                wait_s = self._turn(burst=burst)
                if burst and self._is_leader:
                    break
                self._wait(wait_s)
            self._making.stop()
            self._ears.close()
            with suppress(redis.RedisError):
                self._lease.release()
                self.connection.hdel(keys.SCHEDULERS, self.name)
            self._selector.unregister(woken)
        log(Event.SCHEDULER_STOPPED, scheduler=self.name)

    def _on_signal(self, name: str) -> None:
        self._is_stopping = True
        log(Event.STOP_REQUESTED, scheduler=self.name, signal=name)

    def _wait(self, wait_s: float) -> None:
        until = time.monotonic() + wait_s
        while (left_s := until - time.monotonic()) > 0 and not self._is_stopping:
            ears_s = self._ears.deadline - time.monotonic()
            for key, events in self._selector.select(max(0.0, min(left_s, ears_s))):
                on_ready: Callable[[int], object] = key.data
                on_ready(events)
            self._ears.check()
            self._ears.flush()
            if self._is_leader and time.monotonic() >= self._read_at:
                return

    def _on_up(self) -> None:
        self._ears.send("SUBSCRIBE", keys.SCHEDULE_CHANGED)
        self._on_change()

    def _on_change(self) -> None:
        self._read_at = 0.0

    def _turn(self, *, burst: bool) -> float:
        """Do what is to be done; give the seconds until the next turn."""
        try:
            if not self._lead():
                self._making.stop()
                return FOLLOW_S
            wait_s = self._fire_due()
            self.enqueue_jobs()
            if burst:
                maker = Maker(self.settings, self.connection)
                maker.round()
                maker.close()
            else:
                self._making.start(self._lease.claim)
        except (redis.RedisError, RedisUnavailable) as e:
            self._is_leader = False  # Redis may come back empty: all is written again
            revive_own(self.settings)
            self._outage.begin(str(e))
            return min(RETRY_S, 0.1 + self._outage.away_s)
        self._outage.end()
        return wait_s

    def _now(self) -> datetime:
        self._clockwork.ask()
        now = super()._now()
        self._clockwork.answer(now.timestamp())
        return now

    def _write(self, commands: Callable[[Pipeline], object]) -> bool:
        return self._lease.write(commands)

    def _lead(self) -> bool:
        """Keep the lease or take it if it is free; a new leader first brings Redis in line."""
        at = time.monotonic()
        if self._is_leader and at < min(self._lead_at, self._read_at):
            return True
        self._lead_at = at + LEAD_S
        led, self._is_leader = self._is_leader, False
        if not self._is_of_fleet():
            self._lease.release()
            return False
        self._present()
        is_ours = self._lease.renew()
        if led and not is_ours:
            log(Event.LEADER_LOST, scheduler=self.name)
        if not is_ours and not self._lease.take():
            return False
        if not (led and is_ours):
            log(Event.LEADER_TAKEN, scheduler=self.name)
            self._read_at = 0.0
            self._forget_gone()
            self.connection.script_load(scripts.FIRE.text)
        if time.monotonic() >= self._read_at and not self._read(must=not (led and is_ours)):
            self._lease.release()
            return False
        self._is_leader = True
        return True

    def _is_of_fleet(self) -> bool:
        if self._handshake.is_due():
            answer = None
            with suppress(StoreUnavailable), open_current(self.settings, LIMITS) as database:
                answer = {"store_id": Repository(database).store_id()}
            self._handshake.learn(answer)
        found = self.connection.hmget(keys.STORE, "store_id", "protocol")
        self._handshake.judge(*((value or b"").decode() for value in found))
        return self._handshake.is_ours

    def _present(self) -> None:
        """Let others see that we are here, and which entries of the settings we have."""
        said: dict[str, Any] = {
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "entries": self._digest,
        }
        said |= {"at": self._now().timestamp()}
        self.connection.hset(keys.SCHEDULERS, self.name, json.encode(said))

    def _forget_gone(self) -> None:
        """Take out of the list who was killed: one that only seemed to be comes back by itself."""
        said = {n.decode(): raw for n, raw in self.connection.hgetall(keys.SCHEDULERS).items()}
        if gone := said.keys() - {one.name for one in living(said, self._now())}:
            self.connection.hdel(keys.SCHEDULERS, *gone)

    def _read(self, *, must: bool) -> bool:
        """Read the journal and bring Redis in line; False if it is away and we `must` know it."""
        self._read_at = time.monotonic() + READ_S
        last_due: dict[str, datetime] = {}
        known: dict[str, table.Known] | None = {}
        try:
            with open_current(self.settings, LIMITS) as database:
                journal = Journal(database)
                kept = journal.entries()
                if must and (known := table.read(self.connection)) is None:
                    last_due = journal.last_due()
        except StoreUnavailable:
            return not must
        if not must and kept == self._kept:
            return True
        entries = with_kept(self._of_file, kept, self.settings)
        changed = entries
        if not must:
            names = {n for n in entries | self._entries if entries.get(n) != self._entries.get(n)}
            known = table.read(self.connection, names)
            changed = {name: entries[name] for name in names & entries.keys()}
        now = self._now()
        dues: dict[str, datetime] = {}

        def write(pipeline: Pipeline) -> None:
            dues.update(table.move_all(pipeline, changed, known, last_due=last_due, now=now))

        if not self._lease.write(write):
            return False
        if not must:
            as_before = entries.keys() - changed
            dues |= {name: due for name, due in self._due.items() if name in as_before}
        self._due = dues
        self._entries, self._kept = entries, kept
        return True

    def _fire_due(self) -> float:
        """Fire what is due; give the seconds until more may be."""
        found: list[tuple[bytes, float]] = []
        while self._lead():
            now = self._now()
            found = self.connection.zrange(keys.SCHEDULE, 0, PAGE, withscores=True)
            due = [name.decode() for name, at_s in found if at_s <= now.timestamp()]
            fired = [self._runs(self._entries[n], now) for n in due if n in self._due]
            if not table.fire(self.connection, self._lease.claim, fired):
                self._is_leader = False  # another leads, or has changed an entry
                return 0.0
            for entry, _, _, following in fired:
                if following:
                    self._due[entry.name] = following
                else:
                    del self._due[entry.name]
            if not fired or self._is_stopping:
                break
        at = clock.now().timestamp()
        # Of an entry that none of ours is nothing can be fired, however long it has been due.
        left_s: list[float] = [at_s - at for name, at_s in found if name.decode() in self._due]
        return min([LEAD_S, *left_s])

    def _runs(self, entry: Entry, now: datetime) -> tuple[Entry, datetime, list[Any], Any]:
        due = self._due[entry.name]
        runs, following = runs_of(entry, due, now)
        return entry, due, runs, following
