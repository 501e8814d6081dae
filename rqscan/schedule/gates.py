"""Gates: why a run is not made now: the run before it has not ended, or the fleet is not idle."""

from datetime import timedelta
from typing import Any

from rqscan import clock
from rqscan.broker import keys
from rqscan.idle import Traffic, waiting
from rqscan.interfaces import find_link
from rqscan.scan.cancel import cancel
from rqscan.scan.progress import read_progress
from rqscan.schedule.misfire import Run
from rqscan.settings import Settings
from rqscan.store.database import Database
from rqscan.store.journal import Journal
from rqscan.store.repository import Repository

__all__ = ["Gates", "Skips", "Waits"]


class Waits(str):
    """Why a run waits."""

    __slots__ = ()


class Skips(str):
    """Why a run is never made."""

    __slots__ = ()


class Gates:
    """Looks at the runs of one round after the other."""

    def __init__(self, settings: Settings, client: Any) -> None:
        self._settings, self._client = settings, client
        self._waiting: set[str] = set()  # entries of which a run waits, in this round
        self._traffic: Traffic | None = None
        self._measures = False  # something waits for idleness in this round

    def begin(self) -> None:
        """Begin a round."""
        if not self._measures:
            self._traffic = None
        self._waiting.clear()
        self._measures = False

    def look(self, run: Run, scan_id: str, database: Database) -> Waits | Skips | None:
        """Tell why a run is not to be made now; None if it is.

        Raises:
            redis.RedisError, ServiceUnavailable: a server is away.
        """
        entry = run.entry
        if entry.name in self._waiting and entry.overlap != "run":
            return Skips("a run before it still waits")
        shut = self._idleness(run) or self._overlap(run, scan_id, database)
        if isinstance(shut, Waits):
            self._waiting.add(entry.name)
        return shut

    def _overlap(self, run: Run, scan_id: str, database: Database) -> Waits | Skips | None:
        if run.entry.overlap == "run":
            return None
        other = self._unended(run.entry.name, database)
        if other is None or other == scan_id:
            return None
        if run.entry.overlap == "cancel":
            cancel(self._settings, self._client, other)
            return None
        kind = Waits if run.entry.overlap == "queue" else Skips
        return kind(f"the run before, scan {other}, has not ended")

    def _unended(self, name: str, database: Database) -> str | None:
        """Give the id of the scan that an entry started last, unless it has ended."""
        raw = self._client.hget(keys.schedule_entry(name), "scan_id")
        last = raw.decode() if raw else Journal(database).last_scan(name)
        if not last:
            return None
        progress = read_progress(self._client, last) or Repository(database).progress(last)
        return None if progress.is_ended or not progress.chunks.total else last

    def _idleness(self, run: Run) -> Waits | None:
        if run.entry.when != "idle" or run.is_asked:
            return None
        self._measures = True
        if self._traffic is None:
            link, for_s = find_link(self._settings), self._settings.idle.for_s
            self._traffic = Traffic(link, for_s, where="in the fleet")
        most_s = run.entry.max_delay_s
        if most_s is None:
            most_s = self._settings.spool.max_delay_s
        is_idle = self._traffic.look(is_working=self._is_working())
        if is_idle or clock.now() >= run.at + timedelta(seconds=most_s):
            return None
        return Waits(f"waiting for idle: {waiting(self._traffic, run.at, most_s).reason}")

    def _is_working(self) -> bool:
        names = [key.decode() for key in self._client.smembers(keys.QUEUES)]
        with self._client.pipeline(transaction=False) as pipe:
            for name in names:
                pipe.exists(name, keys.registry("wip", name.removeprefix(keys.queue(""))))
            return any(pipe.execute())
