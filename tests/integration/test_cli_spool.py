"""`rqscan spool`, as a user runs it."""

import json

import pytest
from msgspec.structs import replace

from rqscan.home import keep_id, known_id
from rqscan.settings import Settings, SpoolSettings
from rqscan.store.outbox import Outbox
from rqscan.store.spool import Spool
from tests.rig import Rig
from tests.spools import a_record, in_store, plan, seen, settings_of


@pytest.fixture
def settings(mariadb, home, redis_server) -> Settings:
    made = settings_of(home, mariadb.database_url())
    plan(made)
    return made


@pytest.fixture
def poisoned(settings, rig: Rig) -> Rig:
    Spool(settings).append(a_record(0, seen(1), seen(2, state="x" * 65), seen(3, state="y" * 65)))
    done = rig.json("spool", "drain")
    assert done.pop("elapsed_s") > 0
    assert done == {"drained": 1, "left": 0, "quarantined": 2}
    return rig


def test_status_of_a_home_without_a_spool(rig):
    known = rig.json("spool", "status")
    assert known == {
        "rows": 0, "records": 0, "bytes": 0, "oldest_at": None, "quarantined": 0, "mode": "direct",
        "store_up": True, "stream_up": None,
        "idle": {
            "is_idle": None, "reason": "not measured: nothing waits for it in mode direct",
            "forced_at": None,
        },
    }  # fmt: skip
    assert "store_up" in rig.run("spool", "status").stdout
    assert rig.json("spool", "drain")["drained"] == 0
    assert rig.json("spool", "quarantine", "list") == []


def test_quarantine_is_listed_exported_and_dropped(poisoned):
    first, second = poisoned.json("spool", "quarantine", "list")
    assert (first["port"], first["code"], first["rows"], first["chunk"]) == (2, "1406", 1, 0)
    assert "state" in first["reason"]
    assert second["port"] == 3
    lines = poisoned.run("spool", "quarantine", "export", "--all").stdout.splitlines()
    records = [json.loads(line)["record"] for line in lines]
    assert [record["observations"][0]["port"] for record in records] == [2, 3]
    (line,) = poisoned.run("spool", "quarantine", "export", str(second["id"])).stdout.splitlines()
    assert json.loads(line)["id"] == second["id"]
    assert poisoned.json("spool", "quarantine", "drop", str(first["id"])) == {"dropped": 1}
    assert poisoned.json("spool", "status")["quarantined"] == 1
    assert poisoned.json("spool", "quarantine", "drop", "--all", "-y") == {"dropped": 1}


def test_what_the_database_takes_by_now_is_retried(poisoned, settings, mariadb):
    with mariadb.connect(database=settings.database.url.split("/")[3].split("?")[0]) as admin:
        admin.cursor().execute("ALTER TABLE observations MODIFY state VARCHAR(99) NOT NULL")
    assert poisoned.json("spool", "quarantine", "retry", "--all") == {"retried": 2}
    assert poisoned.json("spool", "drain")["drained"] == 2
    assert in_store(settings)[0] == [(0, 1), (0, 2), (0, 3)]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["retry"], "name the entries"),
        (["drop", "1", "--all"], "name the entries"),
        (["export", "99"], "no entry 99 in quarantine"),
        (["drop", "none"], "not a valid integer"),
    ],
)
def test_wrong_entries_are_named(poisoned, arguments, words):
    done = poisoned.run("spool", "quarantine", *arguments)
    assert done.returncode == 2
    assert words in done.stderr


def test_rows_of_another_database_are_left_and_told(settings, rig):
    own = known_id(settings)
    keep_id(settings, "0" * 32)
    Spool(settings).append(a_record(0))
    keep_id(settings, own)
    done = rig.run("spool", "drain", "--json")
    assert (done.returncode, json.loads(done.stdout)["left"]) == (0, 1)
    assert "1 rows are of another database" in done.stderr


def test_a_stream_is_shown_and_drained_with_the_file(settings, stream_server, rig):
    url = stream_server.url
    rig.env |= {"RQSCAN_SPOOL_MODE": "redis_stream", "RQSCAN_SPOOL_REDIS_URL": url}
    with_stream = replace(settings, spool=SpoolSettings(mode="redis_stream", redis_url=url))
    Outbox(with_stream).record(a_record(0))
    Spool(settings).append(a_record(1))
    status = rig.json("spool", "status")
    assert (status["rows"], status["mode"], status["stream_up"]) == (2, "redis_stream", True)
    done = rig.json("spool", "drain")
    assert (done["drained"], done["left"]) == (2, 0)
    Outbox(with_stream).record(a_record(2))
    stream_server.kill()
    done = rig.run("spool", "drain")
    assert "0 rows were moved" in done.stdout
    assert "what the stream holds was not drained: cannot use Redis" in done.stderr
    assert rig.json("spool", "status")["stream_up"] is False
