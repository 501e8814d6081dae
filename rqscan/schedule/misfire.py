"""Misfires: which runs of an entry are made when it is fired, and which are noted as missed.

A pure function of the entry, the due time that it stands at, and the time by Redis' clock.
"""

from datetime import datetime, timedelta

from msgspec import Struct

from rqscan.schedule.calendar import fire_at, latest_due, newest_due, next_due
from rqscan.schedule.entries import Entry

__all__ = ["Run", "runs_of"]

GRACE_S = 15.0
"""A run of `misfire = "skip"` is not missed for so long: another scheduler takes over in less."""

RESOLUTION = timedelta(microseconds=1)


class Run(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A run of an entry, as it waits in Redis to be made: all that this needs is in it."""

    entry: Entry
    due: datetime
    at: datetime  # when it was to be fired: later than due by the jitter
    missed: str = ""  # why it is only noted
    is_asked: bool = False  # by an operator, now


def runs_of(entry: Entry, due: datetime, now: datetime) -> tuple[list[Run], datetime | None]:
    """Give the runs that fell due by now, the oldest first, and the due time after them.

    Args:
        entry: whose runs.
        due: the due time that it stands at; fell due with its jitter by now.
        now: the time by Redis' clock.
    """
    first = due
    last = latest_due(entry, first - RESOLUTION, now) or first
    while last > first and fire_at(entry, last) > now:  # its jitter still puts it off
        last = latest_due(entry, first - RESOLUTION, last - RESOLUTION) or first
    most = 1 if entry.misfire == "once" else entry.misfire_limit
    made = newest_due(entry, first, last, most) or [first]
    missed: list[datetime] = []
    if made[0] > first:
        older = latest_due(entry, first - RESOLUTION, made[0] - RESOLUTION)
        missed += [first, older or first]
    deadline_s = entry.misfire_deadline_s
    if deadline_s is None and entry.misfire == "skip":
        deadline_s = GRACE_S
    if deadline_s is not None:
        late = now - timedelta(seconds=deadline_s)
        missed += [one for one in made if fire_at(entry, one) < late]
        made = [one for one in made if fire_at(entry, one) >= late]
    runs = [Run(entry=entry, due=one, at=fire_at(entry, one)) for one in made]
    if missed:
        runs.insert(0, _missed(entry, missed[0], missed[-1]))
    return runs, next_due(entry, last)


def _missed(entry: Entry, first: datetime, last: datetime) -> Run:
    policy = f"misfire = {entry.misfire!r}"
    if entry.misfire_deadline_s is not None:
        policy += f", misfire_deadline_s = {entry.misfire_deadline_s:g}"
    since = "" if first == last else f", with those since {first:%Y-%m-%dT%H:%M:%SZ}"
    reason = f"it was not fired in time{since} ({policy})"
    return Run(entry=entry, due=last, at=fire_at(entry, last), missed=reason)
