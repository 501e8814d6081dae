"""The commands that read the store, against a real one."""

import csv
import io
from contextlib import closing
from datetime import UTC, datetime, timedelta

import msgspec
import pytest

from rqscan.cli import main
from rqscan.config import load
from rqscan.model import COVERAGE, ChunkRecord, Observation, Row, Scan
from rqscan.states import ChunkState
from rqscan.store.migrate import open_current
from rqscan.store.repository import Repository

AT = datetime(2026, 11, 1, 12, 0, tzinfo=UTC)


def plan(scan_id, requested_at):
    return Scan(
        scan_id=scan_id,
        name="n",
        queue="default",
        kinds=["ports"],
        targets=["127.0.0.1", "127.0.0.2", "127.0.0.3", "127.0.0.4"],
        seed=1,
        hosts_per_chunk={"ports": 64},
        chunks=1,
        probes=4,
        requested_at=requested_at,
    )


@pytest.fixture
def store(tmp_path, monkeypatch):
    """Two scans: `old` with a row, `new` with two ports, a coverage row and an evil banner."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RQSCAN_HOME", str(tmp_path / "home"))
    with closing(open_current(load())) as database:
        repository = Repository(database)
        for days, scan_id in enumerate(["old", "new"]):
            at = AT + timedelta(days=days)
            repository.add_plan(plan(scan_id, at), [(0, "ports")])
            seen = [
                Observation(host="127.0.0.1", port=22, state="open", observed_at=at),
                Observation(
                    host="127.0.0.2", port=80, state="open", observed_at=at,
                    data={"banner": "=1+1\x1b[31m\u202e"},
                ),
                Observation(host="127.0.0.1", state=COVERAGE, data={"probes": 9}, observed_at=at),
            ]  # fmt: skip
            record = ChunkRecord(
                scan_id=scan_id,
                chunk=0,
                generation=1,
                attempt=1,
                kind="ports",
                state=ChunkState.FINISHED,
                worker="w1",
                started_at=at,
                finished_at=at + timedelta(seconds=2),
                probes=4,
                observations=seen if scan_id == "new" else seen[:1],
            )
            assert repository.record(record)


def output(capsys, *args):
    assert main(list(args)) == 0
    out, err = capsys.readouterr()
    assert err == ""
    return out


def test_results_of_the_newest_scan_are_one_array_of_rows(store, capsys):
    rows = msgspec.json.decode(output(capsys, "results", "--json"))
    assert [(row["scan_id"], row["host"], row["port"]) for row in rows] == [
        ("new", "127.0.0.1", 22),
        ("new", "127.0.0.2", 80),
    ]
    assert list(rows[0]) == list(Row.__struct_fields__)
    assert rows[0]["first_seen"] == "2026-11-01T12:00:00.000000Z"
    assert rows[0]["observed_at"] == rows[0]["last_seen"] == "2026-11-02T12:00:00.000000Z"
    assert rows[1]["data"]["banner"] == "=1+1\x1b[31m\u202e"


@pytest.mark.parametrize(
    ("args", "ports"),
    [
        (["old"], [22]),
        (["--host", "127.0.0.2"], [80]),
        (["--port", "22"], [22]),
        (["--kind", "banner"], []),
        (["-n", "1"], [22]),
        (["--since", "2026-11-02T12:00:00Z"], [22, 80]),
        (["--since", "2026-11-02T13:00:00"], []),
        (["--since", "1s"], []),
        (["--since", "99999d"], [22, 80]),
        (["--coverage"], [None, 22, 80]),
    ],
)
def test_results_are_chosen(store, capsys, args, ports):
    rows = msgspec.json.decode(output(capsys, "results", "--json", *args))
    assert [row["port"] for row in rows] == ports


def test_results_as_lines_csv_and_table(store, capsys):
    lines = output(capsys, "results", "--format", "jsonl").splitlines()
    assert [msgspec.json.decode(line)["port"] for line in lines] == [22, 80]
    header, *cells = csv.reader(io.StringIO(output(capsys, "results", "--format", "csv")))
    assert header == list(Row.__struct_fields__)
    assert [row[3] for row in cells] == ["22", "80"]
    table = output(capsys, "results")
    assert table.replace("\n", "").isprintable()
    assert [line.split()[:2] for line in table.splitlines()[1:]] == [
        ["127.0.0.1", "22"],
        ["127.0.0.2", "80"],
    ]


def test_results_says_when_the_table_is_cut(store, capsys, monkeypatch):
    from rqscan.cli import results

    assert main(["results", "-n", "1"]) == 0
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(results, "TABLE_ROWS", 1)
    assert main(["results"]) == 0
    out, err = capsys.readouterr()
    assert len(out.splitlines()) == 2
    assert err.startswith("these are the first 1 rows")


def test_scans_are_listed_newest_first(store, capsys):
    items = msgspec.json.decode(output(capsys, "scans", "--json"))
    assert [item["scan_id"] for item in items] == ["new", "old"]
    assert items[0] == {
        "scan_id": "new",
        "name": "n",
        "state": "finished",
        "queue": "default",
        "kinds": ["ports"],
        "targets": ["127.0.0.1", "127.0.0.2", "127.0.0.3", "127.0.0.4"],
        "schedule": None,
        "due_at": None,
        "requested_at": "2026-11-02T12:00:00.000000Z",
        "started_at": "2026-11-02T12:00:00.000000Z",
        "finished_at": "2026-11-02T12:00:02.000000Z",
        "chunks": {"total": 1, "done": 1, "failed": 0},
        "observations": 2,
        "probes": 4,
    }
    assert len(msgspec.json.decode(output(capsys, "scans", "--json", "-n", "1"))) == 1
    assert "127.0.0.3 +1" in output(capsys, "scans")


def test_an_empty_store_gives_empty_answers(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("RQSCAN_HOME", str(tmp_path))
    assert output(capsys, "scans", "--json") == output(capsys, "results", "--json") == "[]\n"


def test_an_unknown_scan_ends_with_2(store, capsys):
    assert main(["results", "newx"]) == 2
    assert "did you mean 'new'" in capsys.readouterr().err


def test_db_check_fails_until_the_tables_are_made(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("RQSCAN_HOME", str(tmp_path))
    assert main(["db", "check", "--json"]) == 1
    out, err = capsys.readouterr()
    found = msgspec.json.decode(out)
    assert (found["ok"], found["version"]) == (False, 0)
    assert found["pending"][0] in err
    made = msgspec.json.decode(output(capsys, "db", "migrate", "--json"))
    assert made["applied"] == found["pending"]
    assert msgspec.json.decode(output(capsys, "db", "check", "--json"))["ok"] is True
    assert "nothing" in output(capsys, "db", "migrate")


@pytest.mark.parametrize("command", [["scans"], ["results"], ["db", "check"], ["db", "migrate"]])
def test_a_database_that_is_away_ends_with_3_and_shows_no_password(command, monkeypatch, capsys):
    monkeypatch.setenv("RQSCAN_DATABASE_URL", "mysql+pymysql://me:hidden@127.0.0.1:1/d")
    assert main(command) == 3
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("rqscan: error: ")
    assert "hidden" not in err


def test_kinds_tells_parameters_with_default_unit_and_limits(capsys):
    kinds = {kind["name"]: kind for kind in msgspec.json.decode(output(capsys, "kinds", "--json"))}
    parameters = {p["name"]: p for p in kinds["ports"]["parameters"]}
    assert parameters["ports"]["default"] == "top-1000"
    assert parameters["timeout_ms"]["unit"] == "milliseconds"
    assert "minimum" in parameters["timeout_ms"]["constraint"]
    table = output(capsys, "kinds")
    assert "timeout_ms" in table
    assert kinds["ports"]["description"] in table
