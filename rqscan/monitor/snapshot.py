"""Snapshot: Redis → plain data, in two round trips, without a write, a payload or a key scan.

The jobs at the ends of a queue are named in the first trip for the queues that are declared or
were seen before, so that a queue of others shows them one look later. Every age is told by Redis'
own clock. What an access rule refuses is a missing figure, not a missing screen.
"""

import time
from collections import Counter
from datetime import UTC, datetime
from typing import Any

import redis
from msgspec import structs

from rqscan.broker import keys
from rqscan.broker.connect import outage
from rqscan.errors import RedisUnavailable
from rqscan.fleet.roster import FORGET_S
from rqscan.fleet.schedulers import living
from rqscan.monitor import figures
from rqscan.monitor.asking import Answers, Asker, pairs
from rqscan.monitor.failures import MOST_NEW, FailedJobs
from rqscan.monitor.figures import read
from rqscan.monitor.history import History
from rqscan.monitor.questions import RUN, named, names
from rqscan.monitor.records import Entries, Queue, Snapshot, Worker
from rqscan.monitor.roll import Roll
from rqscan.monitor.trouble import away, find
from rqscan.settings import Settings

__all__ = ["Lookout"]

COUNTERS = ("rescued", "lost", "refused", "fenced")


class Lookout:
    """Looks at the fleet again and again, and keeps what need not be read twice.

    Args:
        client: of Redis; it is the lookout's from then on, which waits once and briefly: the next
            look is the retry.
        settings: those in force here.
        is_whole: read each entry of the schedule and each failed job that is new, however many
            there are, and at the first look the ends of queues that are not declared.
    """

    def __init__(self, client: redis.Redis, settings: Settings, *, is_whole: bool = False) -> None:
        self._asker, self._settings, self._is_whole = Asker(client), settings, is_whole
        self._before: Snapshot | None = None
        self._names = sorted(settings.queues)
        self._failed = FailedJobs(None if is_whole else MOST_NEW)
        self._history = History()
        self._roll = Roll(settings.worker)

    def look(self) -> Snapshot:
        """Read the fleet once.

        Raises:
            RedisUnavailable: Redis is away or tells us nothing at all, and has been so since the
                first look: later the last snapshot is given, with that as its first trouble.
        """
        try:
            with outage():
                known = self._names
                self._before = self._read()
                if self._is_whole and set(self._names) - set(known):
                    self._before = self._read()
        except RedisUnavailable as e:
            if self._before is None:
                raise
            self._before = away(self._before, str(e))
        return self._before

    def _read(self) -> Snapshot:
        asked = names(self._names, is_whole=self._is_whole)
        began = time.monotonic()
        a = self._asker.ask(asked | {"failed": self._failed.lists(self._names)})
        rtt_ms = round((time.monotonic() - began) * 1000, 2)
        if a["time"] is None:
            raise RedisUnavailable("Redis does not tell us its time; allow this user TIME")
        at = int(a["time"][0]) + int(a["time"][1]) / 1e6
        used = {key.removeprefix(keys.queue("")) for key in a["queues"] or ()}
        self._names = sorted(used | self._settings.queues.keys())
        ages = {
            name: age_s
            for name, beat_at in sorted(pairs(a["beats"]).items())
            if (age_s := max(0.0, round(at - float(beat_at), 3))) < FORGET_S
        }
        due = pairs(a["first"]) | pairs(a["still"])
        b = self._asker.ask(
            named(a, at, self._settings, queues=self._names, entries=due, workers=ages)
            | {
                "history": self._history.questions(at),
                "failed": self._failed.questions(a["failed"]),
            }
        )
        self._history.take(b["history"])
        counts = {name: fields["failed"] for name, fields in b["queues"].items()}
        self._failed.take(b["failed"], counts)
        now = datetime.fromtimestamp(at, UTC)
        workers = self._roll.call(
            ages,
            b["workers"].get("records") or [None] * len(ages),
            None if a["channels"] is None else set(a["channels"]),
            is_recovering=bool(a["grace"]),
        )
        begun = figures.begun(workers)
        shot = Snapshot(
            at=now,
            redis=figures.server(a["info"], rtt_ms),
            queues=self._queues(a, b, workers, at),
            workers=workers,
            failed=self._failed.groups(),
            schedules=[
                figures.schedule(name, float(due[name]), dict(zip(RUN, said or (), strict=False)))
                for name, said in b["schedules"].items()
            ],
            scans=[
                figures.scan(name, at, pairs(said), begun.get(name, 0.0))
                for name, said in b["scans"].items()
            ],
            leader=read(dict[str, Any], a["leader"], {}, is_json=True).get("name"),
            counters=dict.fromkeys(COUNTERS, 0) | read(dict[str, int], pairs(a["counters"]), {}),
            entries=Entries(**a["entries"], overdue=b["overdue"]),
            schedulers=living(pairs(a["schedulers"]), now),
            suspended=bool(a["suspended"]),
        )
        trouble = find(shot, self._settings.spool.max_bytes)
        return structs.replace(shot, trouble=list(trouble))

    def _queues(self, a: Answers, b: Answers, workers: list[Worker], at: float) -> list[Queue]:
        paused = set(self._names if a["suspended"] else a["paused"] or ())
        served = Counter(name for one in workers if one.state != "lost" for name in one.queues)
        past, found = self._history, []
        for name, fields in b["queues"].items():
            in_per_s, out_per_s = past.per_s(name, "in"), past.per_s(name, "out")
            one = Queue(
                **fields,
                name=name,
                oldest_s=figures.age_s(b["oldest"].get(name), at),
                in_per_s=in_per_s,
                out_per_s=out_per_s,
                paused=name in paused,
                workers=served[name],
                drain_s=figures.drain_s(fields["depth"], in_per_s, out_per_s),
                depths=past.depths(name, fields["depth"]),
                failures=past.failures(name),
            )
            found.append(one)
        return found
