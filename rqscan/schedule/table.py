"""Schedule entries in Redis: when to fire each in a sorted set, state and last run in a hash each.

Only the leader moves entries; who makes runs notes what came of them; the monitor reads.
"""

import math
from collections.abc import Collection, Iterable, Mapping
from datetime import datetime, timedelta
from typing import Any

from msgspec import Struct, json
from redis.client import Pipeline

from rqscan.broker import keys, scripts
from rqscan.clock import from_iso, iso
from rqscan.digest import blake2b
from rqscan.schedule.calendar import fire_at, next_due
from rqscan.schedule.entries import Entry
from rqscan.schedule.misfire import Run

__all__ = ["Known", "digest", "fire", "move_all", "read", "state_of"]

RESOLUTION = timedelta(microseconds=1)
STANDS_STILL = {"paused", "disabled", "invalid", "ended"}


class Known(Struct, frozen=True):
    """What Redis knows of an entry."""

    due: datetime | None
    digest: str
    state: str


def digest(entries: Iterable[Entry]) -> str:
    """Give what tells entries from others: 16 hexadecimal digits."""
    return blake2b(json.encode(list(entries)), digest_size=8).hexdigest()


def read(client: Any, names: Collection[str] | None = None) -> dict[str, Known] | None:
    """Give what Redis knows of some entries, or of all; None if it has forgotten the schedule."""
    with client.pipeline(transaction=False) as pipe:
        pipe.zrange(keys.SCHEDULE, 0, -1)
        pipe.exists(keys.SCHEDULE_KNOWN)
        raw, is_known = pipe.execute()
        there = [name.decode() for name in raw if names is None or name.decode() in names]
        for name in there:
            pipe.hmget(keys.schedule_entry(name), "due", "digest", "state")
        found = pipe.execute()
    texts = ([(value or b"").decode() for value in values] for values in found)
    known = {
        name: Known(_time(due), its_digest, state)
        for name, (due, its_digest, state) in zip(there, texts, strict=True)
    }
    return known if is_known else None


def move_all(
    pipeline: Pipeline,
    entries: Mapping[str, Entry],
    known: Mapping[str, Known] | None,
    *,
    last_due: Mapping[str, datetime],
    now: datetime,
) -> dict[str, datetime]:
    """Bring Redis in line with the entries; a run that is overdue stays due.

    Args:
        pipeline: of a transaction that holds while we lead.
        entries: by name.
        known: what `read` gave; of these, what is not among the entries is forgotten.
        last_due: of runs that something is known to have come of: from these on, where Redis has
            forgotten the schedule.
        now: by Redis' clock.

    Returns:
        When each entry is due next, if ever.
    """
    pipeline.set(keys.SCHEDULE_KNOWN, 1)
    if gone := set(known or ()) - entries.keys():
        pipeline.zrem(keys.SCHEDULE, *gone)
        pipeline.delete(*map(keys.schedule_entry, gone))
    dues = {}
    for name, entry in entries.items():
        before = (known or {}).get(name)
        its_digest = digest([entry])
        if before and before.digest == its_digest:
            due = before.due
        elif before and before.due and before.state not in STANDS_STILL:
            due = next_due(entry, min(before.due, now) - RESOLUTION)
        elif known is None and name in last_due:
            due = next_due(entry, last_due[name])
        else:
            due = next_due(entry, now - RESOLUTION)
        if due:
            dues[name] = due
        if not before or before.digest != its_digest:
            fields = {"digest": its_digest, "paused": str(int(entry.is_paused))}
            if entry.invalid or (before and before.state == "invalid"):
                fields["reason"] = entry.invalid or ""
            _move(pipeline, entry, due, fields)
    return dues


def fire(
    client: Any, claim: bytes, fired: Iterable[tuple[Entry, datetime, list[Run], datetime | None]]
) -> bool:
    """Put runs on the list of runs and move their entries on, each entry in one atomic step.

    Args:
        client: of Redis.
        claim: that we lead.
        fired: entry, the due time that it stands at, its runs, and its next due time.

    Returns:
        Whether all were; False where the lease is not ours, or another has moved an entry.

    Raises:
        redis.exceptions.NoScriptError: the script is to be loaded.
    """
    with client.pipeline(transaction=False) as pipe:
        for entry, due, runs, following in fired:
            key = keys.schedule_entry(entry.name)
            asked = [keys.LEADER, keys.SCHEDULE, key, keys.RUNS, keys.RUNS_BELL, claim, entry.name]
            asked += [iso(due), iso(following) if following else "", _score(entry, following)]
            asked += [state_of(entry, following), *(json.encode(run) for run in runs)]
            pipe.evalsha(scripts.FIRE.sha, 5, *asked)
        return all(pipe.execute())


def _move(pipeline: Pipeline, entry: Entry, due: datetime | None, fields: dict[str, str]) -> None:
    mapping: dict[Any, Any] = fields | {
        "state": state_of(entry, due), "due": iso(due) if due else ""
    }  # fmt: skip
    pipeline.zadd(keys.SCHEDULE, {entry.name: float(_score(entry, due))})
    pipeline.hset(keys.schedule_entry(entry.name), mapping=mapping)


def _score(entry: Entry, due: datetime | None) -> str:
    return f"{fire_at(entry, due).timestamp():.6f}" if due else str(math.inf)


def state_of(entry: Entry, due: datetime | None) -> str:
    """Tell the state of an entry that is due next at `due`, if ever."""
    if entry.invalid:
        return "invalid"
    if not entry.enabled:
        return "disabled"
    if entry.is_paused:
        return "paused"
    if not (entry.cron or entry.every_s or entry.at):
        return "standing"  # a drain that is in force at all times
    return "scheduled" if due else "ended"


def _time(text: str) -> datetime | None:
    return from_iso(text) if text else None
