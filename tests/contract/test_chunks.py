"""The plan chunk by chunk, over SQLite and a real MariaDB."""

import threading
from datetime import timedelta

import pytest

from rqscan import clock
from rqscan.settings import DatabaseSettings, Settings
from rqscan.states import ChunkState, ScanState
from rqscan.store.chunks import BATCH, Chunks
from rqscan.store.migrate import open_current
from rqscan.store.repository import Repository
from tests.plans import AT, a_plan, a_record


@pytest.fixture(params=["sqlite", "mariadb"])
def settings(request, tmp_path):
    maria = request.param == "mariadb" and request.getfixturevalue("mariadb")
    url = maria.database_url() if maria else None
    return Settings(home=str(tmp_path), database=DatabaseSettings(url=url))


@pytest.fixture
def database(settings):
    with open_current(settings) as opened:
        yield opened


@pytest.fixture
def store(database):
    return Repository(database)


@pytest.fixture
def chunks(database):
    return Chunks(database)


def planned(store, scan_id="s1", count=3, at=AT):
    plan = a_plan(scan_id, count, at)
    assert store.add_plan(plan.scan, plan.chunk_kinds())


def read(chunks, scan_id="s1"):
    return [chunk for page in chunks.pages(scan_id) for chunk in page]


def unenqueued(chunks, scan_id="s1"):
    return [pair for page in chunks.unenqueued(scan_id) for pair in page]


def generations(chunks):
    return [chunk.generation for chunk in read(chunks)]


def test_pages_give_every_chunk_as_the_plan_has_it(store, chunks):
    planned(store, count=2_100)
    planned(store, "s2", 1)
    chunks.mark_enqueued("s1", range(1, 2_100))
    assert store.record(a_record(1_500, probes=9))
    pages = list(chunks.pages("s1"))
    assert [len(page) for page in pages] == [BATCH, BATCH, 100]
    assert [chunk.number for page in pages for chunk in page] == list(range(2_100))
    assert pages[0][0] == (0, 1, "planned", False, 0, 0, 0)
    assert pages[1][500] == (1_500, 1, "finished", True, 0, 9, 1)
    assert list(chunks.pages("nobody")) == []


def test_unenqueued_chunks_are_those_neither_marked_nor_ended(store, chunks):
    planned(store, count=2_500)
    planned(store, "s2", 1)
    chunks.mark_enqueued("s1", (n for n in range(2_500) if n % 100))
    store.record(a_record(200))
    chunks.mark_enqueued("s1", [])
    assert unenqueued(chunks) == [(n, 1) for n in range(0, 2_500, 100) if n != 200]
    assert unenqueued(chunks, "s2") == [(0, 1)]


def test_marking_in_the_midst_of_reading_skips_none(store, chunks):
    planned(store, count=2_100)
    given = []
    for page in chunks.unenqueued("s1"):
        given += page
        chunks.mark_enqueued("s1", [number for number, _ in page])
    assert given == [(n, 1) for n in range(2_100)]
    assert unenqueued(chunks) == []


def test_scans_are_found_by_what_is_unfinished_in_them(store, chunks):
    minute = timedelta(minutes=1)
    start = clock.now() - 3 * minute
    for number, scan_id in enumerate(["ended", "queued", "young", "fresh"]):
        planned(store, scan_id, 1, start + number * minute - minute / 2)
    planned(store, "ahead", 1, start + timedelta(hours=1))  # by a host whose clock is fast
    chunks.mark_enqueued("queued", [0])
    store.record(a_record(0, "ended"))
    assert sorted(chunks.unfinished_scans()) == ["ahead", "fresh", "queued", "young"]
    assert sorted(chunks.unenqueued_scans(start + 2 * minute)) == ["ahead", "young"]


def test_a_lost_chunk_is_planned_for_its_next_generation_once(store, chunks):
    planned(store)
    chunks.mark_enqueued("s1", range(3))
    seen = read(chunks)
    chunks.raise_generation("s1", seen[:2])
    chunks.raise_generation("s1", seen[:2])  # another who saw the same
    assert generations(chunks) == [2, 2, 1]
    assert unenqueued(chunks) == [(0, 2), (1, 2)]
    chunks.mark_enqueued("s1", [0, 1], 1)  # late, by who put the jobs that were lost
    assert unenqueued(chunks) == [(0, 2), (1, 2)]
    chunks.mark_enqueued("s1", [0, 1], 2)
    chunks.raise_generation("s1", seen)  # one that comes late
    assert generations(chunks) == [2, 2, 2]
    chunks.mark_enqueued("s1", [2], 2)
    chunks.raise_generation("s1", [read(chunks)[0]])
    chunks.raise_generation("s1", read(chunks))  # of several generations, one not marked
    assert generations(chunks) == [3, 3, 3]


def test_what_has_ended_gets_no_new_generation(store, chunks):
    planned(store)
    chunks.mark_enqueued("s1", range(3))
    seen = read(chunks)
    store.record(a_record(0))
    store.record(a_record(1, state=ChunkState.FAILED))
    chunks.cancel("s1", [])
    chunks.raise_generation("s1", seen)
    assert generations(chunks) == [1, 1, 1]
    assert unenqueued(chunks) == []


def test_a_late_attempt_of_an_older_generation_writes_nothing(store, chunks):
    planned(store)
    chunks.mark_enqueued("s1", [0])
    chunks.raise_generation("s1", read(chunks)[:1])
    assert not store.record(a_record(0, attempt=9))
    assert store.record(a_record(0, generation=2))
    assert not store.record(a_record(0, attempt=9))


def test_what_another_attempt_has_finished_is_told(store):
    planned(store)
    assert store.record(a_record(0, generation=2, probes=9))
    for generation, told in ((1, (0, 9)), (2, (0, 9)), (3, None)):
        assert store.finished(a_record(0, generation=generation)) == told
    store.record(a_record(1, state=ChunkState.FAILED))
    for number in (1, 2, 7):
        assert store.finished(a_record(number)) is None


def test_a_failure_does_not_undo_what_has_finished(store):
    planned(store)
    assert store.record(a_record(0))
    for attempt in (1, 2):
        for state in (ChunkState.FAILED, ChunkState.PLANNED):
            assert not store.record(a_record(0, attempt=attempt, state=state))
    assert store.progress("s1").chunks.done == 1
    assert store.record(a_record(1, state=ChunkState.FAILED))
    assert store.record(a_record(1, attempt=2))
    assert store.progress("s1").chunks.done == 2


def test_cancel_marks_what_has_not_ended_and_refuses_its_records(store, chunks):
    planned(store, count=5)
    planned(store, "s1-1", 2)
    store.record(a_record(0))
    store.record(a_record(1, state=ChunkState.FAILED))
    store.record(a_record(2, state=ChunkState.FAILED))
    assert chunks.cancel("s1", [0, 2]) == 3  # 0 has finished; 2 was to be tried again
    assert chunks.cancel("s1", [0, 2]) == 0
    states = [chunk.state for chunk in read(chunks)]
    assert states == ["finished", "failed", "cancelled", "cancelled", "cancelled"]
    assert [c.number for page in chunks.cancelled("s1") for c in page] == [2, 3, 4]
    for state in (ChunkState.FINISHED, ChunkState.FAILED):
        assert not store.record(a_record(3, state=state, attempt=2))
    progress = store.progress("s1")
    assert (progress.state, progress.finished_at is None) == (ScanState.CANCELLED, False)
    assert store.progress("s1-1").state == ScanState.QUEUED


def test_what_failed_or_was_cancelled_is_planned_again(store, chunks, database):
    planned(store, count=4)
    chunks.mark_enqueued("s1", range(4))
    store.record(a_record(0))
    store.record(a_record(1, state=ChunkState.FAILED, error="it broke", attempt=3, probes=5))
    chunks.cancel("s1", [])
    assert chunks.plan_again("s1", [0, 1, 2]) == 2
    assert chunks.plan_again("s1", [0, 1, 2]) == 0
    assert [chunk.state for chunk in read(chunks)] == [
        "finished", "planned", "planned", "cancelled",
    ]  # fmt: skip
    assert unenqueued(chunks) == [(1, 2), (2, 2)]
    progress = store.progress("s1")
    assert (progress.probes, progress.finished_at) == (1, None)
    assert not store.record(a_record(1, attempt=9))
    assert store.record(a_record(1, generation=2))


def test_comparers_at_once_raise_a_generation_once(settings):
    with open_current(settings) as database:
        planned(Repository(database), count=300)
        Chunks(database).mark_enqueued("s1", range(300))
    start, errors = threading.Barrier(3), []

    def work():
        try:
            with open_current(settings) as database:
                chunks = Chunks(database)
                seen = read(chunks)
                start.wait(10)
                for first in range(0, 300, 50):
                    chunks.raise_generation("s1", seen[first : first + 50])
        except Exception as error:  # noqa: BLE001 - whatever it is, the test shows it
            errors.append(error)

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert errors == []
    with open_current(settings) as database:
        assert set(generations(Chunks(database))) == {2}


def test_chunks_that_an_operator_removes_are_cancelled_unless_they_have_finished(store, chunks):
    planned(store, count=4)
    store.record(a_record(0))
    store.record(a_record(1, state=ChunkState.FAILED))
    chunks.cancel_some("s1", [0, 1, 2])
    assert [chunk.state for chunk in read(chunks)] == [
        "finished", "cancelled", "cancelled", "planned",
    ]  # fmt: skip
    assert not store.record(a_record(2))


def test_failed_chunks_are_planned_again_behind_the_same_fence(store, chunks):
    planned(store, count=3)
    store.record(a_record(0))
    store.record(a_record(1, attempt=2, state=ChunkState.FAILED))
    chunks.reopen("s1", [0, 1, 2])
    assert [chunk.state for chunk in read(chunks)] == ["finished", "planned", "planned"]
    assert generations(chunks) == [1, 1, 1]
    assert store.progress("s1").state == ScanState.RUNNING
    assert not store.record(a_record(1, attempt=1))
    assert store.record(a_record(1, attempt=3))
