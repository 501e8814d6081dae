"""Which runs are made and which are missed, for any entry and any delay."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rqscan.schedule.calendar import fire_at, newest_due, next_due
from rqscan.schedule.entries import Entry
from rqscan.schedule.misfire import GRACE_S, runs_of

AT = datetime(2026, 11, 29, 12, tzinfo=UTC)
TIMINGS = [
    {"every_s": 1}, {"every_s": 7.5, "start": AT}, {"every_s": 86_400}, {"cron": "*/5 * * * * *"},
    {"cron": "0 2 * * *", "zone": "Europe/Berlin"}, {"cron": "@hourly", "end": AT + timedelta(1)},
]  # fmt: skip


def seconds(count: float) -> timedelta:
    return timedelta(seconds=count)


def all_due(entry: Entry, first: datetime, now: datetime) -> list[datetime]:
    """The same without any shortcut."""
    found, due = [], first
    while due is not None and due <= now:
        found.append(due)
        due = next_due(entry, due)
    return found


@given(
    timing=st.sampled_from(TIMINGS),
    policy=st.fixed_dictionaries(
        {
            "misfire": st.sampled_from(["skip", "once", "all"]),
            "misfire_limit": st.integers(1, 9),
            "misfire_deadline_s": st.none() | st.floats(0, 100),
            "jitter_s": st.sampled_from([0.0, 0.4, 30.0]),
        }
    ),
    late_s=st.floats(0, 400),
)
def test_each_due_time_is_made_or_missed_and_the_next_is_the_first_after_them(
    timing, policy, late_s
):
    entry = Entry(name="a", **policy, **timing)
    first = next_due(entry, AT)
    now = fire_at(entry, first) + seconds(late_s)
    runs, following = runs_of(entry, first, now)
    due = all_due(entry, first, now)
    while len(due) > 1 and fire_at(entry, due[-1]) > now:
        due.pop()
    assert following == next_due(entry, due[-1])
    made = [run.due for run in runs if not run.missed]
    missed = [run.due for run in runs if run.missed]
    most_late_s = entry.misfire_deadline_s
    if most_late_s is None and entry.misfire == "skip":
        most_late_s = GRACE_S
    expected = due[-(1 if entry.misfire == "once" else entry.misfire_limit) :]
    if most_late_s is not None:
        expected = [one for one in expected if fire_at(entry, one) >= now - seconds(most_late_s)]
    assert made == expected
    left = [one for one in due if one not in made]
    assert missed == left[-1:]
    if len(left) > 1:
        assert f"with those since {left[0]:%Y-%m-%dT%H:%M:%SZ}" in runs[0].missed


@pytest.mark.parametrize("timing", [{"every_s": 1}, {"cron": "* * * * * *"}, {"cron": "0 2 * * *"}])
def test_years_without_a_scheduler_cost_no_more_than_what_is_made_up_for(timing, monkeypatch):
    entry = Entry(name="a", misfire="all", misfire_limit=100, **timing)
    first = next_due(entry, AT)
    calls = []
    monkeypatch.setattr(
        "rqscan.schedule.calendar.next_due", lambda *args: calls.append(args) or next_due(*args)
    )
    runs, following = runs_of(entry, first, AT + timedelta(days=3_650))
    assert (len(runs), bool(runs[0].missed), following is not None) == (101, True, True)
    assert len(calls) < 3_000


def test_the_newest_due_times_are_those_that_a_walk_finds():
    entry = Entry(name="a", cron="0 2 * * *", zone="Europe/Berlin")
    first = next_due(entry, AT)
    now = AT + timedelta(days=400)
    assert newest_due(entry, first, now, 30) == all_due(entry, first, now)[-30:]
    assert newest_due(entry, first, now, 1_000) == all_due(entry, first, now)


def test_jitter_is_the_same_for_everybody_and_below_its_bound():
    entry = Entry(name="a", every_s=60, jitter_s=30)
    due = [AT + timedelta(minutes=n) for n in range(200)]
    put_off = [(fire_at(entry, one) - one).total_seconds() for one in due]
    assert put_off == [(fire_at(entry, one) - one).total_seconds() for one in due]
    assert 0 <= min(put_off) < 3
    assert 27 < max(put_off) < 30
    assert len(set(put_off)) == 200
