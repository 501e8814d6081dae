"""`rqscan schedule`, as a user runs it."""

from datetime import UTC, datetime, timedelta
from unittest.mock import ANY
from zoneinfo import ZoneInfo

import pytest
from msgspec import json

from rqscan import clock
from rqscan.broker import keys
from rqscan.cli import main
from rqscan.config import load
from rqscan.schedule.calendar import run_id
from rqscan.schedule.entries import read_entries
from rqscan.schedule.misfire import Run
from rqscan.settings import DatabaseSettings, RedisSettings, Settings
from rqscan.store.journal import Journal
from rqscan.store.migrate import open_current
from tests.servers import wait_for

COLUMNS = [
    "name", "cron", "every_s", "at", "zone", "queue", "when", "paused", "next_at", "last_at",
    "lateness_s", "state", "reason",
]  # fmt: skip
RUN_COLUMNS = ["name", "due_at", "fired_at", "lateness_s", "outcome", "reason", "scan_id"]

FILE = """
[[schedule]]
name = "nightly"
cron = "0 2 * * *"
zone = "Asia/Shanghai"
queue = "wakaka"
scan = { targets = ["127.0.0.1"], ports = "1-20" }

[[schedule]]
name = "broken"
cron = "61 * * * *"
scan = { targets = ["127.0.0.1"] }

[[schedule]]
every_s = 60
scan = { targets = ["127.0.0.1"] }

[[schedule]]
name = "off"
every_s = 300
enabled = false
when = "idle"
scan = { targets = ["127.0.0.1"] }
"""


@pytest.fixture
def settings(request, home, redis_server) -> Settings:
    url = None
    if getattr(request, "param", None) == "mariadb":
        url = request.getfixturevalue("mariadb").database_url()
    redis, database = RedisSettings(url=redis_server.url), DatabaseSettings(url=url)
    return Settings(home=str(home), redis=redis, database=database)


@pytest.fixture
def with_file(rig):
    (rig.folder / "rqscan.toml").write_text(FILE)
    return rig


@pytest.fixture
def here(rig, monkeypatch, capsys):
    """Run `rqscan schedule …` in this process; gives its exit code and what it said."""
    monkeypatch.chdir(rig.folder)
    for name in rig.env:
        if name.startswith("RQSCAN_"):
            monkeypatch.setenv(name, rig.env[name])
    return lambda *words: (main(["schedule", *words]), *capsys.readouterr())


@pytest.fixture
def client(redis_server):
    with redis_server.client() as found:
        yield found


def schedule(rig, *words, **env):
    """Run `rqscan schedule …`, which must succeed without a word on stderr, but of a leader."""
    done = rig.run("schedule", *words, **env)
    said = [line for line in done.stderr.splitlines() if "no scheduler leads" not in line]
    assert (done.returncode, said) == (0, [])
    return done.stdout


def kept(settings):
    with open_current(settings) as database:
        return Journal(database).entries()


def entries(rig):
    return {row["name"]: row for row in rig.json("schedule", "list")}


def scheduler(rig):
    started = rig.start("scheduler.py", "--log-json")
    started.wait_for_event("leader_taken")
    return started


def outcomes(rig, name):
    return [row["outcome"] for row in rig.json("schedule", "history", name)]


def has_field(client, name, field, value):
    found = client.hget(keys.schedule_entry(name), field)
    return found is not None and found.decode() == value


@pytest.mark.parametrize("settings", ["sqlite", "mariadb"], indirect=True)
def test_the_life_of_an_entry_of_the_command_line(rig, client):
    leader = scheduler(rig)
    words = ["127.0.0.1", "-p", "1-20", "-q", "wakaka", "--every", "1s", "--overlap", "run"]
    added = rig.json("schedule", "add", "often", *words)
    assert list(added) == COLUMNS
    assert (added["state"], added["every_s"], added["queue"]) == ("scheduled", 1, "wakaka")
    wait_for(lambda: outcomes(rig, "often").count("fired") >= 2, what="two runs")

    (row,) = rig.json("schedule", "list")
    assert list(row) == COLUMNS
    assert (row["state"], row["paused"], row["reason"]) == ("scheduled", False, None)
    assert row["last_at"] < row["next_at"]
    assert row["lateness_s"] >= 0
    history = rig.json("schedule", "history")
    made = [one for one in history if one["outcome"] == "fired"]
    assert list(made[0]) == RUN_COLUMNS
    dues = [clock.from_iso(one["due_at"]) for one in made]
    assert dues == sorted(dues, reverse=True)
    assert [one["scan_id"] for one in made] == [run_id("often", due) for due in dues]
    for one, due in zip(made, dues, strict=True):
        late = clock.from_iso(one["fired_at"]) - due
        assert one["lateness_s"] == pytest.approx(late.total_seconds(), abs=1e-5)
    assert {one["scan_id"] for one in made} <= {scan["scan_id"] for scan in rig.json("scans")}

    assert rig.json("schedule", "pause", "often") == [{"name": "often", "paused": True}]
    assert (entries(rig)["often"]["state"], entries(rig)["often"]["paused"]) == ("paused", True)
    assert entries(rig)["often"]["next_at"] is None
    wait_for(lambda: has_field(client, "often", "state", "paused"), what="the leader to hear it")
    count = len(outcomes(rig, "often"))
    assert rig.json("schedule", "resume", "often") == [{"name": "often", "paused": False}]
    wait_for(lambda: len(outcomes(rig, "often")) > count, what="a run again")

    assert rig.json("schedule", "remove", "often") == {"name": "often", "removed": True}
    assert rig.json("schedule", "list") == []
    wait_for(lambda: client.zscore(keys.SCHEDULE, "often") is None, what="the leader to hear it")
    assert "fired" in outcomes(rig, "often")
    assert leader.stop() == 0


def test_before_any_scheduler_ran_the_next_run_is_computed(with_file, settings):
    found = entries(with_file)
    assert list(found) == ["nightly", "broken", "#3", "off"]
    nightly = found["nightly"]
    assert (nightly["cron"], nightly["zone"]) == ("0 2 * * *", "Asia/Shanghai")
    next_at = clock.from_iso(nightly["next_at"])
    assert next_at.astimezone(ZoneInfo("Asia/Shanghai")).hour == 2
    assert timedelta(0) < next_at - clock.now() <= timedelta(days=1)
    assert (nightly["state"], nightly["last_at"], nightly["lateness_s"]) == (
        "scheduled",
        None,
        None,
    )
    assert (found["broken"]["state"], found["broken"]["next_at"]) == ("invalid", None)
    assert "'61 * * * *' is wrong" in found["broken"]["reason"]
    assert "expected name to be" in found["#3"]["reason"]
    assert (found["off"]["state"], found["off"]["when"]) == ("disabled", "idle")


def test_for_people_times_are_in_the_zone_and_in_utc(with_file):
    done = with_file.run("schedule", "list")
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("nightly")]
    assert "02:00:00+08:00" in line
    assert "18:00:00Z" in line
    assert "'61 * * * *' is wrong" in done.stdout
    assert done.stderr == "no scheduler leads (start one with: rqscan scheduler)\n"
    added = schedule(with_file, "add", "once", "127.0.0.1", "--at", "2100-01-01T08:00:00",
                     "--zone", "Asia/Tokyo")  # fmt: skip
    assert added == "entry 'once' is added; next run 2100-01-01 08:00:00+09:00\n"
    assert "at 2100-01-01 08:00:00+09:00" in schedule(with_file, "list")
    gone = schedule(with_file, "add", "gone", "127.0.0.1", "--at", "2000-01-01T00:00:00")
    assert gone == "entry 'gone' is added; it is ended\n"


def test_a_leader_with_another_file_is_told(with_file):
    scheduler(with_file)
    assert schedule(with_file, "list") == schedule(with_file, "list")
    file = with_file.folder / "rqscan.toml"
    file.write_text(FILE.replace("0 2 * * *", "0 3 * * *").replace('"off"', '"on"'))
    done = with_file.run("schedule", "list")
    words = "the scheduler that leads has not seen these yet, or has another rqscan.toml: "
    assert done.stderr == f"{words}'nightly', 'off', 'on'\n"
    assert entries(with_file)["nightly"]["cron"] == "0 3 * * *"


def test_all_options_make_the_same_entry_as_a_table_of_the_file(rig, settings):
    schedule(
        rig, "add", "full", "127.0.0.1", "--target", "127.0.0.2", "--cron", "30 0 2 * * *",
        "--zone", "Europe/Berlin", "--kind", "ports", "-p", "1-20", "--exclude", "127.0.0.3,::1",
        "-q", "wakaka", "--jitter", "1m", "--start", "2026-12-01T00:00:00", "--end",
        "2100-12-31T00:00:00", "--misfire", "all", "--misfire-limit", "7", "--misfire-deadline",
        "2h", "--overlap", "queue", "--when", "idle", "--max-delay", "90", "--disabled",
    )  # fmt: skip
    (rig.folder / "rqscan.toml").write_text("""
        [[schedule]]
        name = "full"
        cron = "30 0 2 * * *"
        zone = "Europe/Berlin"
        scan.targets = ["127.0.0.1", "127.0.0.2"]
        scan.ports = "1-20"
        scan.exclude = ["127.0.0.3", "::1"]
        queue = "wakaka"
        jitter_s = 60
        start = 2026-12-01T00:00:00
        end = 2100-12-31T00:00:00
        misfire = "all"
        misfire_limit = 7
        misfire_deadline_s = 7200
        overlap = "queue"
        when = "idle"
        max_delay_s = 90
        enabled = false
    """)
    of_file = read_entries(load(str(rig.folder / "rqscan.toml"), {}))
    assert read_entries(settings, kept(settings)) == of_file
    assert of_file["full"].invalid is None


FOR = ["new", "127.0.0.1"]


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (FOR, 2, "entry 'new' is not added: expected one of cron, every_s and at"),
        ([*FOR, "--every", "0"], 2, "entry 'new' is not added: expected `float` >= 1"),
        ([*FOR, "--every", "5x"], 2, "expected seconds, or 30s, 5m, 2h, 1d, got: '5x'"),
        ([*FOR, "--every", "nan"], 2, "expected seconds"),
        ([*FOR, "--every", "9999999999d"], 2, "expected seconds"),
        ([*FOR, "--cron", "61 * * * *"], 2, "cron '61 * * * *' is wrong"),
        ([*FOR, "--at", "soon"], 2, "for at, got: 'soon'"),
        ([*FOR, "--every", "60", "--zone", "Mars"], 2, "expected zone to be a name"),
        ([*FOR, "--every", "60", "-q", "wakka"], 2, "queue 'wakka' is not declared"),
        ([*FOR, "--every", "60", "--kind", "portz"], 2, "portz"),
        ([*FOR, "--every", "60", "--misfire-limit", "0"], 2, "misfire_limit, got: 0"),
        ([*FOR, "--every", "60", "--overlap", "run1"], 2, "'run1' is not one of"),
        (["new", "nonsense!", "--every", "60"], 2, "entry 'new' is not added: "),
        (["new", "--every", "60"], 2, "entry 'new' is not added: no target is given"),
        (["n w", "127.0.0.1", "--every", "60"], 2, "expected NAME to be 1 to 64 letters"),
        (["nightly", "127.0.0.1", "--every", "60"], 2, "there is an entry 'nightly' in "),
        (["broken", "127.0.0.1", "--every", "60"], 2, "there is an entry 'broken' in "),
        (["new", "192.0.2.1", "--every", "60"], 4, "entry 'new' is not added: target '192.0.2.1'"),
    ],
)  # fmt: skip
@pytest.mark.usefixtures("with_file")
def test_what_is_wrong_is_refused_and_not_kept(here, settings, words, code, said):
    assert here("add", *words) == (code, "", ANY)
    assert said in here("add", *words)[2]
    assert kept(settings) == {}


def test_a_name_is_taken_once(rig):
    schedule(rig, "add", "new", "127.0.0.1", "--every", "5m")
    done = rig.run("schedule", "add", "new", "127.0.0.2", "--every", "60")
    assert done.returncode == 2
    assert (
        "there is an entry 'new'; choose another name, or first: rqscan schedule rem" in done.stderr
    )
    assert entries(rig)["new"]["every_s"] == 300


@pytest.mark.parametrize("words", [["remove"], ["pause"], ["resume"], ["run"], ["history"]])
def test_an_unknown_entry_ends_with_2_and_a_near_name(with_file, here, settings, words):
    said = "rqscan: error: no schedule entry 'nightli'; did you mean 'nightly'?\n"
    assert here(*words, "nightli") == (2, "", said)
    said = "rqscan: error: no schedule entry 'zzz'; see: rqscan schedule list\n"
    assert here(*words, "zzz") == (2, "", said)
    assert kept(settings) == {}


def test_an_entry_of_the_file_is_paused_here_and_removed_there(with_file):
    done = with_file.run("schedule", "remove", "nightly")
    assert done.returncode == 2
    assert "entry 'nightly' stands in " in done.stderr
    assert "rqscan.toml; remove it there" in done.stderr
    assert "entry '#3' stands in " in with_file.run("schedule", "remove", "#3").stderr
    assert schedule(with_file, "pause", "nightly", "off") == (
        "entry 'nightly' is paused\nentry 'off' is paused\n"
    )
    found = entries(with_file)
    assert (found["nightly"]["state"], found["nightly"]["paused"]) == ("paused", True)
    assert (found["off"]["state"], found["off"]["paused"]) == ("disabled", True)
    schedule(with_file, "resume", "nightly")
    assert entries(with_file)["nightly"]["state"] == "scheduled"
    done = with_file.run("schedule", "pause", "nightly", "#3")
    assert done.returncode == 2
    assert "entry '#3' has no name of its own" in done.stderr
    assert not entries(with_file)["nightly"]["paused"]


def test_a_run_that_is_asked_for_waits_for_a_scheduler(with_file, client):
    schedule(with_file, "pause", "nightly")
    asked = {}
    for name in ("nightly", "off"):
        done = with_file.run("schedule", "run", name, "--json")
        assert done.returncode == 0
        assert "no scheduler leads" in done.stderr
        assert "the run is made once one does" in done.stderr
        asked[name] = json.decode(done.stdout)
        assert list(asked[name]) == ["name", "scan_id"]
    waiting = {row["name"]: row for row in with_file.json("schedule", "history")}
    for name, one in asked.items():
        row = waiting[name]
        assert list(row) == RUN_COLUMNS
        assert (row["outcome"], row["scan_id"]) == ("waiting", None)
        assert row["reason"] == "no scheduler leads"
        assert one["scan_id"] == run_id(name, clock.from_iso(row["due_at"]))
        assert row["lateness_s"] >= 0
    assert client.exists(keys.RUNS_BELL)
    scheduler(with_file)
    for name, one in asked.items():
        wait_for(lambda name=name: outcomes(with_file, name) == ["fired"], what=f"{name} to run")
        (row,) = with_file.json("schedule", "history", name)
        assert row["scan_id"] == one["scan_id"]
    done = with_file.run("schedule", "run", "nightly")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("a run of entry 'nightly' is asked for: nightly-")
    assert entries(with_file)["nightly"]["state"] == "paused"


def test_an_invalid_entry_is_not_run_and_stands_in_the_history(with_file):
    done = with_file.run("schedule", "run", "broken")
    assert done.returncode == 2
    assert "entry 'broken' is invalid: cron '61 * * * *' is wrong" in done.stderr
    nothing = dict.fromkeys(RUN_COLUMNS)
    (row,) = with_file.json("schedule", "history", "broken")
    assert row == nothing | {"name": "broken", "outcome": "invalid", "reason": row["reason"]}
    assert "is wrong" in row["reason"]
    history = with_file.json("schedule", "history")
    assert [one["name"] for one in history] == ["broken", "#3"]
    assert with_file.json("schedule", "history", "nightly") == []


def test_a_run_that_waits_is_shown_with_its_reason(rig):
    scheduler(rig)
    words = ["127.0.0.1", "-p", "1", "--every", "1s", "--overlap", "queue"]
    schedule(rig, "add", "often", *words)
    wait_for(lambda: entries(rig)["often"]["state"] == "waiting", what="a run to wait")
    (first,) = rig.json("scans")
    reason = f"the run before, scan {first['scan_id']}, has not ended"
    assert entries(rig)["often"]["reason"] == reason
    row = rig.json("schedule", "history", "often")[0]
    assert (row["outcome"], row["reason"], row["scan_id"]) == ("waiting", reason, None)


def test_the_history_is_cut_where_it_is_asked_for(rig, client, settings):
    begin = datetime(2026, 11, 1, tzinfo=UTC)
    schedule(rig, "add", "a", "127.0.0.1", "--every", "60")
    entry = read_entries(settings, kept(settings))["a"]
    for n in range(30):
        run = Run(entry=entry, due=begin + n * timedelta(minutes=1), at=begin)
        client.zadd(keys.RUNS, {json.encode(run): begin.timestamp() + n})
    client.zadd(keys.RUNS, {b"nothing of ours": 1})
    client.hset(keys.schedule_entry("a"), "last_at", b"\xff")
    dues = [row["due_at"] for row in rig.json("schedule", "history")]
    assert len(dues) == 30
    assert dues == sorted(dues, reverse=True)
    assert [row["due_at"] for row in rig.json("schedule", "history", "a", "-n", "3")] == dues[:3]
    done = rig.run("schedule", "history")
    assert len(done.stdout.splitlines()) == 21
    assert done.stderr == "these are the newest 20 runs; -n N or --json gives more\n"
    assert rig.run("schedule", "history", "-n", "30").stderr == ""


def test_a_redis_that_came_back_empty_loses_neither_entries_nor_history(rig, client):
    leader = scheduler(rig)
    schedule(rig, "add", "often", "127.0.0.1", "-p", "1", "--every", "1s", "--overlap", "run")
    wait_for(lambda: "fired" in outcomes(rig, "often"), what="a run")
    leader.stop()
    client.flushall()
    history = rig.json("schedule", "history")
    row = entries(rig)["often"]
    assert (row["state"], row["reason"]) == ("scheduled", None)
    assert (row["last_at"], row["lateness_s"]) == (history[0]["due_at"], history[0]["lateness_s"])


def test_what_is_changed_while_redis_is_away_is_kept(rig, redis_server):
    schedule(rig, "add", "a", "127.0.0.1", "--every", "60")
    redis_server.stop()
    for words in (
        ["add", "b", "127.0.0.1", "--every", "60"], ["pause", "b"], ["resume", "b"],
        ["pause", "b"], ["remove", "a"],
    ):  # fmt: skip
        done = rig.run("schedule", *words)
        assert done.returncode == 0, done.stderr
        assert "cannot use Redis" in done.stderr
        assert "sees it within 30 s of its return" in done.stderr
    for words in (["list"], ["history"], ["run", "b"]):
        done = rig.run("schedule", *words)
        assert done.returncode == 3
        assert done.stderr.startswith("rqscan: error: cannot use Redis")
    redis_server.start()
    assert {name: row["state"] for name, row in entries(rig).items()} == {"b": "paused"}


@pytest.mark.parametrize(
    "words",
    [
        ["list"], ["history"], ["run", "a"], ["pause", "a"], ["resume", "a"], ["remove", "a"],
        ["add", "a", "127.0.0.1", "--every", "60"],
    ],
)  # fmt: skip
def test_a_database_that_is_away_ends_each_with_3(here, monkeypatch, tmp_path, client, words):
    url = f"mysql+pymysql://root:hidden@localhost/x?unix_socket={tmp_path}/none"
    monkeypatch.setenv("RQSCAN_DATABASE_URL", url)
    code, out, err = here(*words)
    assert (code, out) == (3, "")
    assert err.startswith("rqscan: error: cannot ")
    assert "hidden" not in err
    assert not client.exists(keys.RUNS)


def test_a_task_is_added_as_the_file_has_it(rig):
    row = rig.json("schedule", "add", "tidy", "--task", "prune", "--older-than", "90d",
                   "--cron", "0 3 * * *", "--when", "idle")  # fmt: skip
    assert (row["state"], row["when"]) == ("scheduled", "idle")
    standing = rig.json("schedule", "add", "keep", "--task", "drain")
    assert (standing["state"], standing["next_at"]) == ("standing", None)
    wrong = rig.run("schedule", "add", "both", "127.0.0.1", "--task", "drain")
    assert (wrong.returncode, "or task, got both" in wrong.stderr) == (2, True)
    wrong = rig.run("schedule", "add", "old", "--task", "prune", "--every", "1d")
    assert (wrong.returncode, "older_than_s" in wrong.stderr) == (2, True)
