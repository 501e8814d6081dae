"""Due times against an oracle that walks minute by minute and reads the clock on the wall."""

from datetime import UTC, datetime, timedelta
from functools import cache
from zoneinfo import ZoneInfo

import pytest

from rqscan.schedule.calendar import latest_due, next_due, run_id
from rqscan.schedule.entries import Entry

ZONES = ["Asia/Shanghai", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe"]
MINUTE = timedelta(minutes=1)
ANY = range(60)
PATTERNS = {  # expression: minutes, hours (None: a wildcard, in real time), weekdays
    "0 * * * *": ({0}, None, ANY),
    "45 * * * *": ({45}, None, ANY),
    "*/15 * * * *": ({0, 15, 30, 45}, None, ANY),
    "30 */2 * * *": ({30}, None, ANY),
    "30 2 * * *": ({30}, {2}, ANY),
    "15 2 * * *": ({15}, {2}, ANY),
    "0,45 1,2 * * *": ({0, 45}, {1, 2}, ANY),
    "*/20 1-3 * * *": ({0, 20, 40}, {1, 2, 3}, ANY),
    "30 1 * * SUN": ({30}, {1}, {6}),
    "0 3 * * *": ({0}, {3}, ANY),
    "0 0 * * *": ({0}, {0}, ANY),
    "59 23 * * MON-FRI": ({59}, {23}, {0, 1, 2, 3, 4}),
}


def utc(*parts: int) -> datetime:
    return datetime(*parts, tzinfo=UTC)


@cache
def wall(at: datetime, zone: str) -> datetime:
    return at.astimezone(ZoneInfo(zone)).replace(tzinfo=None)


@cache
def changes(zone: str) -> list[datetime]:
    """The days before which the offset is another than after, 2024 to 2026 (some day, if none)."""
    days = [utc(2024, 1, 1) + timedelta(days=n) for n in range(3 * 365)]
    offset = ZoneInfo(zone).utcoffset
    found = [d for d in days if offset(d.astimezone(ZoneInfo(zone))) != offset(
        (d + timedelta(days=1)).astimezone(ZoneInfo(zone)))]  # fmt: skip
    return found or [utc(2026, 3, 29)]


def oracle(expression: str, zone: str, start: datetime, end: datetime) -> list[datetime]:
    minutes, hours, weekdays = PATTERNS[expression]
    every = 2 if "*/2 " in expression else 1

    def matches(local: datetime) -> bool:
        hour = local.hour % every == 0 if hours is None else local.hour in hours
        return local.minute in minutes and hour and local.weekday() in weekdays

    runs, at, last = [], start, wall(start - MINUTE, zone)
    while at <= end:
        local = wall(at, zone)
        skipped = [last + n * MINUTE for n in range(1, (local - last) // MINUTE)]
        seen_before = at.astimezone(ZoneInfo(zone)).fold == 1
        if hours is None:
            is_due = matches(local)
        else:
            is_due = (matches(local) and not seen_before) or any(map(matches, skipped))
        if is_due:
            runs.append(at)
        at, last = at + MINUTE, local
    return runs


@pytest.mark.parametrize("zone", ZONES)
@pytest.mark.parametrize("expression", PATTERNS)
def test_cron_is_due_as_the_oracle_says_around_each_clock_change(zone: str, expression: str):
    entry = Entry(name="a", cron=expression, zone=zone)
    with_seconds = Entry(name="a", cron=f"0 {expression}", zone=zone)
    for day in changes(zone):
        start, end = day - timedelta(hours=6), day + timedelta(hours=42)
        expected = oracle(expression, zone, start, end)
        assert expected or "SUN" in expression or "MON" in expression
        found, at = [], start - MINUTE
        while (at := next_due(entry, at)) and at <= end:
            found.append(at)
        assert found == expected, day
        base = day  # from anywhere, inside a repeated hour as well
        while base < day + timedelta(hours=24):
            first = next((run for run in expected if run > base), None)
            due = next_due(entry, base)
            assert due > base
            assert due == first or (first is None and due > end)
            assert next_due(with_seconds, base) == due
            base += timedelta(minutes=19, seconds=7)


def test_seconds_come_first_in_six_fields():
    entry = Entry(name="a", cron="*/20 30 2 * * *", zone="Europe/Berlin")
    assert next_due(entry, utc(2026, 1, 1, 1, 30, 1)) == utc(2026, 1, 1, 1, 30, 20)
    skipped = utc(2026, 3, 29, 1)
    assert next_due(entry, utc(2026, 3, 28, 12)) == skipped
    assert next_due(entry, skipped) == utc(2026, 3, 30, 0, 30)


def test_cron_keeps_within_start_and_end():
    entry = Entry(name="a", cron="0 0 * * *", start=utc(2026, 3, 1), end=utc(2026, 3, 2))
    assert next_due(entry, utc(2025, 1, 1)) == utc(2026, 3, 1)
    assert next_due(entry, utc(2026, 3, 1)) == utc(2026, 3, 2)
    assert next_due(entry, utc(2026, 3, 2)) is None


@pytest.mark.parametrize(
    ("every_s", "start", "after", "expected"),
    [
        (300, None, utc(2026, 1, 1, 0, 0, 1), utc(2026, 1, 1, 0, 5)),
        (300, None, utc(2026, 1, 1, 0, 5), utc(2026, 1, 1, 0, 10)),
        (7, None, utc(1970, 1, 1), utc(1970, 1, 1, 0, 0, 7)),
        (86_400, utc(2026, 1, 1, 2), utc(2026, 5, 5), utc(2026, 5, 5, 2)),
        (3600, utc(2026, 1, 1, 2), utc(2025, 1, 1), utc(2026, 1, 1, 2)),
        (1.5, None, utc(2026, 1, 1, 0, 0, 0), utc(2026, 1, 1, 0, 0, 1, 500_000)),
    ],
)
def test_every_s_counts_from_its_anchor(every_s, start, after, expected):
    assert next_due(Entry(name="a", every_s=every_s, start=start), after) == expected


def test_at_is_due_once():
    entry = Entry(name="a", at=utc(2026, 1, 1))
    assert next_due(entry, utc(2025, 1, 1)) == utc(2026, 1, 1)
    assert next_due(entry, utc(2026, 1, 1)) is None
    assert latest_due(entry, utc(2025, 1, 1), utc(2027, 1, 1)) == utc(2026, 1, 1)


@pytest.mark.parametrize(
    "entry",
    [
        Entry(name="a", every_s=1),
        Entry(name="a", every_s=977, start=utc(2026, 10, 20)),
        Entry(name="a", cron="*/7 1-3 * * *", zone="Australia/Lord_Howe"),
        Entry(name="a", cron="30 2 * * *", zone="Europe/Berlin", end=utc(2026, 10, 25, 0, 30)),
        Entry(name="a", cron="0 0 1 * *"),
    ],
)
def test_latest_due_is_the_last_of_all(entry: Entry):
    after = utc(2026, 10, 24, 15)
    for now in (after + timedelta(seconds=3), utc(2026, 10, 25, 1, 17, 3), utc(2026, 10, 25, 2)):
        last, at = None, after
        while (at := next_due(entry, at)) and at <= now:
            last = at
        assert latest_due(entry, after, now) == last


def test_latest_due_spans_years_in_few_steps():
    entry = Entry(name="a", every_s=1)
    assert latest_due(entry, utc(1990, 1, 1), utc(2026, 1, 1)) == utc(2026, 1, 1)
    entry = Entry(name="a", cron="* * * * *", zone="Europe/Berlin")
    assert latest_due(entry, utc(1990, 1, 1), utc(2026, 1, 1, 1, 1, 1)) == utc(2026, 1, 1, 1, 1)


def test_a_run_is_named_after_entry_and_due_time():
    assert run_id("nightly", utc(2026, 12, 1, 2)) == "nightly-20261201T020000Z"
