"""When an entry is due: a pure function of the entry and a time, the same on every host.

Cron in a skipped hour is due once, at the first valid moment; in a repeated hour once, at the
first occurrence. Expressions whose hour starts with ``*`` run in real time instead. cronsim only
ever sees the clock's face, a time without a zone; it is placed in time here.
"""

from collections import deque
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, timezone
from zoneinfo import ZoneInfo

from cronsim import CronSim

from rqscan.digest import blake2b
from rqscan.schedule.entries import NICKNAMES, Entry, to_utc

__all__ = ["fire_at", "latest_due", "newest_due", "next_due", "run_id"]

_RESOLUTION = timedelta(microseconds=1)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def next_due(entry: Entry, after: datetime) -> datetime | None:
    """Give the first due time later than `after`, in UTC; None if none comes."""
    if entry.invalid or not entry.enabled or entry.is_paused:
        return None
    if entry.start:
        after = max(after, entry.start - _RESOLUTION)
    if not (entry.at or entry.every_s or entry.cron):  # a drain that is not asked for at a time
        due = None
    elif entry.at:
        due = entry.at if entry.at > after else None
    elif entry.every_s:
        anchor, step = entry.start or _EPOCH, timedelta(seconds=entry.every_s)
        due = anchor + ((after - anchor) // step + 1) * step
    else:
        due = _next_cron(
            NICKNAMES.get(entry.cron or "", entry.cron or ""), ZoneInfo(entry.zone), after
        )
    return None if due is None or (entry.end and due > entry.end) else due


def latest_due(entry: Entry, after: datetime, now: datetime) -> datetime | None:
    """Give the newest due time in (after, now], or None; bisects, so that years cost no more."""
    newest, bound = next_due(entry, after), now
    if newest is None or newest > now:
        return None
    while newest < bound:  # nothing is due in (bound, now]
        middle = newest + (bound - newest) // 2
        due = next_due(entry, middle)
        if due is not None and due <= now:
            newest = due
        else:
            bound = middle
    return newest


def newest_due(entry: Entry, first: datetime, now: datetime, most: int) -> list[datetime]:
    """Give the newest due times in [first, now], at most so many, the oldest of them first.

    It looks back ever further, so that it costs as much as it gives and not as long ago as `first`.
    """
    back = timedelta(seconds=most)
    while True:
        begin = max(first, now - back)
        found: deque[datetime] = deque(maxlen=most)
        due = next_due(entry, begin - _RESOLUTION)
        while due is not None and due <= now:
            found.append(due)
            due = next_due(entry, due)
        if len(found) == most or begin == first:
            return list(found)
        back *= 8


def fire_at(entry: Entry, due: datetime) -> datetime:
    """Give when to fire a run: its due time, put off by a part of the jitter drawn by its name."""
    if not entry.jitter_s:
        return due
    drawn = blake2b(run_id(entry.name, due).encode(), digest_size=8).digest()
    return due + timedelta(seconds=entry.jitter_s * int.from_bytes(drawn) / 2**64)


def run_id(name: str, due: datetime) -> str:
    """Give a run's scan id: NAME-20261201T020000Z; due times of an entry are a second apart."""
    return f"{name}-{due.astimezone(UTC):%Y%m%dT%H%M%SZ}"


def _next_cron(text: str, zone: ZoneInfo, after: datetime) -> datetime | None:
    if text.split()[-4].startswith("*"):
        return _next_in_real_time(text, zone, after)
    faces = CronSim(text, after.astimezone(zone).replace(tzinfo=None))
    # In a repeated hour the face's next time can lie in the past.
    return next((due for face in faces if (due := to_utc(face, zone)) > after), None)


def _next_in_real_time(text: str, zone: ZoneInfo, after: datetime) -> datetime | None:
    """Count with one offset, and with the next if the clocks change before anything is due.

    cronsim's own way misses changes by half an hour.
    """
    offset = _offset(after, zone)
    due = next(_with_offset(text, offset, after), None)
    if due is None or _offset(due, zone) == offset:
        return due
    later = _offset(due, zone)
    return next((it for it in _with_offset(text, later, after) if _offset(it, zone) == later), None)


def _with_offset(text: str, offset: timezone, after: datetime) -> Iterator[datetime]:
    faces = CronSim(text, after.astimezone(offset).replace(tzinfo=None))
    return (face.replace(tzinfo=offset).astimezone(UTC) for face in faces)


def _offset(at: datetime, zone: ZoneInfo) -> timezone:
    return timezone(at.astimezone(zone).utcoffset() or timedelta(0))
