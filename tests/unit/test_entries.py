"""Schedule entries: each table is checked alone, and nothing that was asked for is ignored."""

from datetime import UTC, datetime

import pytest

from rqscan.schedule.entries import ScanRequest, read_entries
from rqscan.settings import Settings
from rqscan.store.journal import KeptEntry

SCAN = {"targets": ["127.0.0.1"]}
GOOD = {"name": "good", "every_s": 60, "scan": SCAN}


def read(*tables):
    return list(read_entries(Settings(home="/nowhere", schedule=list(tables))).values())


def test_a_full_entry_is_read():
    table = {
        "name": "nightly", "cron": "0 2 * * *", "zone": "Asia/Shanghai", "queue": "wakaka",
        "scan": SCAN | {"kinds": ["ports"], "ports": "top-100", "exclude": ["127.0.0.2"]},
        "enabled": False, "start": "2026-12-01T00:00:00", "end": "2026-12-31T00:00:00+00:00",
        "misfire": "all", "misfire_limit": 5, "misfire_deadline_s": 3600, "overlap": "queue",
        "jitter_s": 30, "when": "idle", "max_delay_s": 600,
    }  # fmt: skip
    (entry,) = read(table)
    assert entry.invalid is None
    assert (entry.name, entry.cron, entry.zone) == ("nightly", "0 2 * * *", "Asia/Shanghai")
    assert entry.scan == ScanRequest(["127.0.0.1"], ["ports"], "top-100", ["127.0.0.2"])
    assert entry.start == datetime(2026, 11, 30, 16, tzinfo=UTC)
    assert entry.end == datetime(2026, 12, 31, tzinfo=UTC)
    assert not entry.enabled
    assert (entry.misfire, entry.misfire_limit, entry.misfire_deadline_s) == ("all", 5, 3600)
    assert (entry.overlap, entry.jitter_s) == ("queue", 30)
    assert (entry.when, entry.max_delay_s) == ("idle", 600)


def test_defaults():
    (entry,) = read(GOOD)
    assert (entry.zone, entry.queue, entry.enabled) == ("UTC", "default", True)
    assert (entry.misfire, entry.overlap, entry.jitter_s) == ("once", "skip", 0)
    assert (entry.when, entry.task, entry.is_paused) == (None, None, False)
    assert entry.scan.kinds == ["ports"]


@pytest.mark.parametrize(
    ("at", "expected"),
    [
        ("2026-12-01T02:00:00", datetime(2026, 12, 1, 1, tzinfo=UTC)),
        (datetime.fromisoformat("2026-12-01T02:00:00"), datetime(2026, 12, 1, 1, tzinfo=UTC)),
        ("2026-12-01T02:00:00-05:00", datetime(2026, 12, 1, 7, tzinfo=UTC)),
        ("2026-03-29T02:30:00", datetime(2026, 3, 29, 1, tzinfo=UTC)),  # skipped: first valid
        ("2026-10-25T02:30:00", datetime(2026, 10, 25, 0, 30, tzinfo=UTC)),  # repeated: first
    ],
)
def test_at_is_local_to_the_zone(at, expected):
    (entry,) = read({"name": "a", "at": at, "zone": "Europe/Berlin", "scan": SCAN})
    assert (entry.invalid, entry.at) == (None, expected)


@pytest.mark.parametrize(
    "cron",
    ["0 2 * * *", "30 0 2 * * *", "0 0 LW * *", "0 9 * * MON#2", " 5  4 * * sun ", "@daily"],
)
def test_good_cron(cron):
    (entry,) = read({"name": "a", "cron": cron, "scan": SCAN})
    assert entry.invalid is None


BAD = [
    ({"every_s": 0}, "every_s"),
    ({"every_s": -1}, "every_s"),
    ({"every_s": float("nan")}, "every_s"),
    ({"every_s": float("inf")}, "every_s"),
    ({"every_s": "60"}, "every_s"),
    ({"every_s": 0.9}, "every_s"),
    ({"every_s": None, "cron": "0 2 * *"}, "cron '0 2 * *' is wrong (Wrong number of fields)"),
    ({"every_s": None, "cron": "61 2 * * *"}, "(Bad minute)"),
    ({"every_s": None, "cron": "0 0 31 2 *"}, "(Bad day-of-month)"),
    ({"every_s": None, "cron": "@often"}, "cron '@often' is wrong"),
    ({"every_s": None, "cron": ""}, "cron '' is wrong"),
    ({"every_s": None, "cron": 5}, "cron"),
    ({"every_s": None, "at": "tomorrow"}, "got: 'tomorrow'"),
    ({"every_s": None, "at": "9999-12-31T00:00:00"}, "expected at to be from 1970 to 2199"),
    ({"every_s": None}, "expected one of cron, every_s and at, got: none"),
    ({"cron": "0 2 * * *"}, "expected one of cron, every_s and at, got: ['cron', 'every_s']"),
    ({"zone": "Mars/Phobos"}, "got: 'Mars/Phobos'"),
    ({"zone": "../../etc/passwd"}, "expected zone"),
    ({"zone": 8}, "got: 8"),
    ({"zone": ""}, "expected zone"),
    ({"queue": "wakka"}, "queue 'wakka' is not declared"),
    ({"queue": ["wakaka"]}, "queue"),
    ({"evry_s": 60}, "unknown key evry_s, did you mean every_s?"),
    ({"invalid": "x"}, "unknown key invalid"),
    ({"scan": None}, "scan"),
    ({"scan": {}}, "targets"),
    ({"scan": {"targets": []}}, "targets"),
    ({"scan": {"targets": "127.0.0.1"}}, "targets"),
    ({"scan": SCAN | {"kind": ["ports"]}}, "unknown key scan.kind, did you mean scan.kinds?"),
    ({"scan": SCAN | {"kinds": []}}, "kinds"),
    ({"scan": SCAN | {"ports": 80}}, "ports"),
    ({"scan": SCAN | {"profile": "fast"}}, "unknown key scan.profile"),
    ({"enabled": "yes"}, "enabled"),
    ({"jitter_s": -1}, "jitter_s"),
    ({"is_paused": True}, "unknown key is_paused"),
    ({"start": 5}, "got `int` for start, got: 5"),
    ({"misfire_limit": 0}, "misfire_limit"),
    ({"misfire": "never"}, "misfire"),
    ({"misfire": []}, "misfire"),
    ({"overlap": "wait"}, "'wait' for overlap"),
    ({"task": "drain"}, "or task, got both"),
    ({"task": "drain", "scan": None, "older_than_s": 3600}, "expected older_than_s with task"),
    ({"task": "prune", "scan": None}, "expected older_than_s with task"),
    ({"task": "sweep", "scan": None}, "'sweep' for task"),
    ({"when": "later"}, "'later' for when"),
]


@pytest.mark.parametrize(("change", "reason"), BAD)
def test_a_bad_entry_tells_why_and_harms_no_other(change, reason):
    table = {"name": "bad", "every_s": 60, "scan": SCAN} | change
    table = {key: value for key, value in table.items() if value is not None}
    before, bad, after = read(GOOD, table, GOOD | {"name": "other"})
    assert bad.name == "bad"
    assert reason in bad.invalid
    assert "\n" not in bad.invalid
    assert before.invalid is after.invalid is None


@pytest.mark.parametrize("name", ["", "a b", "x" * 65, "a/b", 5, None, "good", ["good"]])
def test_an_entry_without_a_usable_name_is_named_by_its_place(name):
    good, bad = read(GOOD, GOOD | {"name": name})
    assert good.invalid is None
    assert bad.name == "#2"
    assert "name" in bad.invalid


@pytest.mark.parametrize(
    "table",
    [
        {"task": "drain"},
        {"task": "drain", "when": "idle", "max_delay_s": 60},
        {"task": "drain", "cron": "@hourly"},
        {"task": "prune", "cron": "0 3 * * *", "older_than_s": 7_776_000, "when": "idle"},
    ],
)
def test_a_task_takes_the_place_of_a_scan(table):
    (entry,) = read({"name": "a"} | table)
    assert (entry.invalid, entry.scan, entry.task) == (None, None, table["task"])


def test_entries_that_are_kept_come_after_those_of_the_file_and_may_be_paused():
    settings = Settings(home="/nowhere", schedule=[GOOD])
    other = GOOD | {"name": "other"}
    kept = {
        "good": KeptEntry(GOOD | {"every_s": 5}, is_paused=True),
        "other": KeptEntry(other, is_paused=False),
        "gone": KeptEntry(None, is_paused=True),
        "bad": KeptEntry(other | {"name": "bad", "every_s": 0}, is_paused=False),
    }
    found = read_entries(settings, kept)
    assert list(found) == ["good", "other", "bad"]
    assert (found["good"].every_s, found["good"].is_paused) == (60, True)
    assert (found["other"].invalid, found["other"].is_paused) == (None, False)
    assert "every_s" in found["bad"].invalid
