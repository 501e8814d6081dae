"""One suite for the journal of the schedule over SQLite and a real MariaDB."""

import threading
from datetime import UTC, datetime, timedelta

import pytest

from rqscan.errors import StoreUnavailable
from rqscan.model import RunRecord
from rqscan.settings import DatabaseSettings, Settings
from rqscan.store.database import Database
from rqscan.store.journal import Journal, KeptEntry
from rqscan.store.migrate import open_current

T0 = datetime(2026, 11, 24, 10, tzinfo=UTC)
TABLE = {"name": "a", "every_s": 60.0, "scan": {"targets": ["bücher.example"], "kinds": ["ports"]}}


@pytest.fixture(params=["sqlite", "mariadb"])
def settings(request, tmp_path) -> Settings:
    url = None
    if request.param == "mariadb":
        url = request.getfixturevalue("mariadb").database_url()
    return Settings(home=str(tmp_path), database=DatabaseSettings(url=url))


@pytest.fixture
def journal(settings):
    with open_current(settings) as database:
        yield Journal(database)


def a_run(name="a", minute=0, **more) -> RunRecord:
    due_at = T0 + timedelta(minutes=minute)
    fields = {"fired_at": due_at + timedelta(microseconds=1), "lateness_s": 1e-6}
    fields |= {"outcome": "fired", "scan_id": f"{name}-{minute}"}
    return RunRecord(name=name, due_at=due_at, **fields | more)


def at_once(settings, *works) -> list:
    """Do things to the journal at the same time, each over a connection of its own."""
    answers, start = [], threading.Barrier(len(works))

    def do(work):
        with Database.open(settings) as database:
            start.wait(10)
            try:
                answers.append(work(Journal(database)))
            except Exception as error:  # noqa: BLE001 - whatever it is, the test shows it
                answers.append(error)

    threads = [threading.Thread(target=do, args=(work,)) for work in works]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    return answers


def test_a_new_journal_knows_nothing(journal):
    assert journal.entries() == journal.last_due() == {}
    assert journal.runs(None, 10) == journal.runs("a", 10) == []
    assert journal.last_scan("a") is None
    assert journal.runs("ä", 10) == []
    assert not journal.remove_entry("ä")


def test_an_entry_is_kept_as_it_was_given_until_it_is_removed(journal):
    assert journal.add_entry("a", TABLE)
    assert journal.entries() == {"a": KeptEntry(TABLE, is_paused=False)}
    assert journal.remove_entry("a")
    assert journal.entries() == {}
    assert not journal.remove_entry("a")


def test_a_name_is_taken_once_and_tells_upper_case_from_lower(journal):
    assert journal.add_entry("a", TABLE)
    assert not journal.add_entry("a", TABLE | {"every_s": 1.0})
    assert journal.entries()["a"].table == TABLE
    assert journal.add_entry("A", TABLE)
    assert list(journal.entries()) == ["A", "a"]


def test_an_entry_is_paused_and_resumed(journal):
    journal.add_entry("a", TABLE)
    for is_paused in (True, True, False, False, True):
        journal.pause("a", is_paused=is_paused)
        assert journal.entries() == {"a": KeptEntry(TABLE, is_paused)}
    assert not journal.add_entry("a", TABLE)
    assert journal.entries()["a"].is_paused


def test_an_entry_of_the_settings_is_paused_too_and_not_removed_here(journal):
    journal.pause("a", is_paused=True)
    journal.pause("b", is_paused=False)
    assert journal.entries() == {"a": KeptEntry(None, True), "b": KeptEntry(None, False)}
    assert not journal.remove_entry("a")
    assert journal.add_entry("a", TABLE)  # it has left the settings
    assert journal.entries()["a"] == KeptEntry(TABLE, is_paused=True)


def test_what_was_noted_of_a_run_first_stands(journal):
    run = a_run(outcome="refused", reason="target 'bücher.example' \N{SNOWMAN}", scan_id=None)
    journal.add_run(run)
    journal.add_run(a_run(outcome="fired"))
    assert journal.runs("a", 10) == [run]


def test_the_newest_runs_come_first(journal):
    runs = [a_run(name, minute) for minute in (0, 2, 1, 3) for name in ("a", "b", "A")]
    for run in runs:
        journal.add_run(run)
    newest = sorted(runs, key=lambda run: (run.due_at, run.name), reverse=True)
    assert journal.runs(None, 100) == newest
    assert journal.runs(None, 5) == newest[:5]
    assert journal.runs("a", 2) == [run for run in newest if run.name == "a"][:2]
    assert journal.runs("none", 2) == []
    assert journal.runs(None, 2**63 - 1) == newest


def test_the_last_due_time_and_the_last_scan_of_an_entry(journal):
    for run in (a_run(minute=2), a_run(minute=1), a_run("b", 7, outcome="missed", scan_id=None)):
        journal.add_run(run)
    journal.add_run(a_run(minute=3, outcome="skipped", scan_id=None))
    assert journal.last_due() == {
        "a": T0 + timedelta(minutes=3), "b": T0 + timedelta(minutes=7)
    }  # fmt: skip
    assert journal.last_scan("a") == "a-2"
    assert journal.last_scan("b") is None


def test_times_keep_their_microseconds(journal):
    run = a_run(fired_at=T0 + timedelta(microseconds=123_456), lateness_s=0.123456)
    journal.add_run(run)
    assert journal.runs("a", 1) == [run]


def test_of_those_who_add_a_name_at_once_one_has_it(settings, journal):
    works = [lambda one, n=n: one.add_entry("a", TABLE | {"every_s": float(n)}) for n in range(4)]
    assert sorted(at_once(settings, *works)) == [False, False, False, True]
    assert journal.entries()["a"].table["every_s"] in range(4)


def test_an_entry_is_paused_by_many_at_once(settings, journal):
    assert at_once(settings, *[lambda one: one.pause("a", is_paused=True)] * 4) == [None] * 4
    assert journal.entries() == {"a": KeptEntry(None, is_paused=True)}


def test_a_run_is_noted_by_many_at_once(settings, journal):
    runs = [a_run(reason=str(n)) for n in range(4)]
    works = [lambda one, run=run: one.add_run(run) for run in runs]
    assert at_once(settings, *works) == [None] * 4
    assert len(journal.runs("a", 10)) == 1


def test_a_database_that_is_away_is_told(mariadb, tmp_path):
    url = DatabaseSettings(url=mariadb.database_url())
    with open_current(Settings(home=str(tmp_path), database=url)) as database:
        journal = Journal(database)
        mariadb.kill()
        for ask in (journal.entries, journal.last_due, lambda: journal.add_run(a_run())):
            with pytest.raises(StoreUnavailable, match="check that the server runs"):
                ask()
        with pytest.raises(StoreUnavailable):
            journal.add_entry("a", TABLE)


def test_old_runs_are_forgotten_but_the_last_of_each_entry(journal, monkeypatch):
    monkeypatch.setattr("rqscan.store.journal.BATCH", 3)
    for minute in range(10):
        journal.add_run(a_run("often", minute))
    journal.add_run(a_run("once", 1))
    assert journal.forget_runs(T0) == 0
    assert journal.forget_runs(T0 + timedelta(minutes=8)) == 8
    left = {(run.name, run.scan_id) for run in journal.runs(None, 100)}
    assert left == {("often", "often-8"), ("often", "often-9"), ("once", "once-1")}
    assert journal.forget_runs(T0 + timedelta(days=1)) == 1
    assert {run.scan_id for run in journal.runs(None, 100)} == {"often-9", "once-1"}
