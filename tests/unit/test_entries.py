"""Schedule entries: each table is checked alone, and nothing that was asked for is ignored."""

from datetime import UTC, datetime

import pytest

from rqscan.schedule.entries import ScanRequest, read_entries
from rqscan.settings import Settings

SCAN = {"targets": ["127.0.0.1"]}
GOOD = {"name": "good", "every_s": 60, "scan": SCAN}


def read(*tables):
    return read_entries(Settings(home="/nowhere", schedule=list(tables)))


def test_a_full_entry_is_read():
    table = {
        "name": "nightly", "cron": "0 2 * * *", "zone": "Asia/Shanghai", "queue": "wakaka",
        "scan": SCAN | {"kinds": ["ports"], "ports": "top-100", "exclude": ["127.0.0.2"]},
        "enabled": False, "start": "2026-12-01T00:00:00", "end": "2026-12-31T00:00:00+00:00",
        "misfire": "once", "overlap": "run",
    }  # fmt: skip
    (entry,) = read(table)
    assert entry.invalid is None
    assert (entry.name, entry.cron, entry.zone) == ("nightly", "0 2 * * *", "Asia/Shanghai")
    assert entry.scan == ScanRequest(["127.0.0.1"], ["ports"], "top-100", ["127.0.0.2"])
    assert entry.start == datetime(2026, 11, 30, 16, tzinfo=UTC)
    assert entry.end == datetime(2026, 12, 31, tzinfo=UTC)
    assert not entry.enabled


def test_defaults():
    (entry,) = read(GOOD)
    assert (entry.zone, entry.queue, entry.enabled) == ("UTC", "default", True)
    assert (entry.misfire, entry.overlap) == ("once", "skip")
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
    ["0 2 * * *", "30 0 2 * * *", "0 0 LW * *", "0 9 * * MON#2", " 5  4 * * sun "],
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
    ({"jitter_s": 5}, "jitter_s is not in force in this version"),
    ({"start": 5}, "got `int` for start, got: 5"),
    ({"misfire": "all"}, "'all' for misfire"),
    ({"misfire": "skip"}, "'skip' for misfire"),
    ({"misfire": "never"}, "misfire"),
    ({"misfire": []}, "misfire"),
    ({"overlap": "queue"}, "'queue' for overlap"),
    ({"overlap": "cancel"}, "'cancel' for overlap"),
    ({"task": "drain"}, "task is not in force in this version"),
    ({"when": "idle"}, "when is not in force in this version"),
    ({"misfire_deadline_s": 5}, "misfire_deadline_s is not in force in this version"),
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
