"""The chaos runner itself: a short run breaks something, loses nothing, and leaves nothing."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(
    ("options", "minutes"),
    [
        pytest.param([], "0.15", id="sqlite"),
        pytest.param(["--database"], "0.35", id="database", marks=pytest.mark.slow),
    ],
)
def test_a_short_run_finds_nothing_lost_or_doubled(options, minutes):
    command = [sys.executable, "-m", "bench.chaos", "--json", "--workers", "3", *options]
    done = subprocess.run(
        [*command, "--minutes", minutes, "--seed", "11"],
        cwd=ROOT, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert "seed 11" in done.stderr
    assert done.returncode in {0, 1}, done.stderr  # 1: an orphan may be late on a busy machine
    report = json.loads(done.stdout)["ours"]
    tally = report["tally"]
    assert sum(report["faults"].values()) > 2
    assert tally["planned"] == tally["finished"] + len(tally["failed"])
    assert [tally["lost"], tally["open"], tally["doubled"], tally["uncounted"]] == [[]] * 4
    rows = tally["rows"]
    assert rows["expected"] == rows["stored"] > 0
    assert [rows[what] for what in ("missing", "doubled", "spooled")] == [0] * 3
    assert [rows["at_odds"], rows["quarantined"]] == [[]] * 2
    assert report["stray"] == []
    assert report["exits"] == []
