"""rqscan.example.toml shows every setting with the default that is in force."""

import re
import tomllib
from pathlib import Path

from msgspec import structs

from rqscan import config, settings
from rqscan.schedule.entries import Entry, ScanRequest, read_entries

EXAMPLE = Path(__file__).parents[2] / "rqscan.example.toml"


def uncommented():
    """Give the example with its settings in force; the endpoints have no default to show."""
    lines = EXAMPLE.read_text().splitlines()
    shown = [re.sub(r"^# (?=[a-z_]+ = |\[\[)", "", line) for line in lines]
    return "\n".join(line for line in shown if not re.match(r"(url|redis_url|path|home) = ", line))


def test_every_setting_is_shown_with_its_default(tmp_path):
    file = tmp_path / "rqscan.toml"
    file.write_text(uncommented())
    found, default = config.load(str(file), {}), config.load(None, {})
    for section in ("redis", "database", "scope", "worker", "jobs", "spool", "idle", "queues"):
        assert getattr(found, section) == getattr(default, section), section
    table = tomllib.loads(uncommented())
    for name, struct in (("worker", settings.WorkerSettings), ("spool", settings.SpoolSettings)):
        assert set(table[name]) == {f.name for f in structs.fields(struct)} - {"redis_url"}
    assert set(table["queues"]["wakaka"]) == {
        f.name for f in structs.fields(settings.QueueSettings)
    }
    (entry,) = read_entries(found).values()
    assert entry.invalid is None
    (table,) = table["schedule"]
    other = {"every_s", "at", "task", "older_than_s"}  # in place of cron and scan
    assert set(table) == set(Entry.__struct_fields__) - {"invalid", "is_paused"} - other
    assert set(table["scan"]) == set(ScanRequest.__struct_fields__)
    for key in ("enabled", "jitter_s", "misfire", "misfire_limit", "overlap"):
        assert table[key] == getattr(Entry(name="x"), key), key
