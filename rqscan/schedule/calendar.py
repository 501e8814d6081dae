"""When an entry is due: a pure function of the entry and a time, the same on every host.

Cron in a skipped hour is due once, at the first valid moment; in a repeated hour once, at the
first occurrence. Expressions whose hour starts with ``*`` run in real time instead. cronsim only
ever sees the clock's face, a time without a zone; it is placed in time here.
"""

import hashlib
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo

from cronsim import CronSim

from rqscan.schedule.entries import ALIASES, Entry, to_utc

__all__ = ["jitter", "latest_due", "next_due", "run_id"]

_RESOLUTION = timedelta(microseconds=1)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def next_due(entry: Entry, after: datetime) -> datetime | None:
    """Give the first due time later than `after`, in UTC and without jitter; None if none comes."""
    if entry.start:
        after = max(after, entry.start - _RESOLUTION)
    if entry.at:
        due = entry.at if entry.at > after else None
    elif entry.every_s:
        anchor, step = entry.start or _EPOCH, timedelta(seconds=entry.every_s)
        due = anchor + ((after - anchor) // step + 1) * step
    else:
        due = _next_cron(entry.cron or "", ZoneInfo(entry.zone), after)
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


def jitter(entry: Entry, due: datetime) -> timedelta:
    """Give what a run waits after its due time: below `jitter_s`, the same for every scheduler."""
    digest = hashlib.sha256(run_id(entry.name, due).encode()).digest()
    return timedelta(seconds=int.from_bytes(digest[:8]) / 2**64 * entry.jitter_s)


def run_id(name: str, due: datetime) -> str:
    """Give a run's scan id: NAME-20261201T020000Z, with the microseconds if there are any."""
    fraction = f"-{due.microsecond:06d}" if due.microsecond else ""
    return f"{name}-{due.astimezone(UTC):%Y%m%dT%H%M%S}{fraction}Z"


def _next_cron(text: str, zone: ZoneInfo, after: datetime) -> datetime | None:
    expression = ALIASES.get(text.strip().lower(), text)
    if expression.split()[-4].startswith("*"):
        return _next_in_real_time(expression, zone, after)
    # In a repeated hour the face's next time can lie in the past, hence the loop.
    for face in CronSim(expression, after.astimezone(zone).replace(tzinfo=None)):
        if (due := to_utc(face, zone)) > after:
            return due
    return None


def _next_in_real_time(expression: str, zone: ZoneInfo, after: datetime) -> datetime | None:
    """Count with one offset up to its change: cronsim's own way misses changes by half an hour."""
    first = after + _RESOLUTION  # that may be due
    while True:
        offset = _offset(first, zone)
        before = (first + offset - _RESOLUTION).replace(tzinfo=None)
        face = next(CronSim(expression, before), None)
        if face is None:
            return None
        due = face.replace(tzinfo=UTC) - offset
        if _offset(due, zone) == offset:
            return due
        same, other = first, due
        while other - same > _RESOLUTION:
            middle = same + (other - same) // 2
            same, other = (same, middle) if _offset(middle, zone) != offset else (middle, other)
        first = other


def _offset(at: datetime, zone: ZoneInfo) -> timedelta:
    return at.astimezone(zone).utcoffset() or timedelta(0)
