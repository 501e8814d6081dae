"""The stream: a real Redis of this host's own that is there, full, gone, frozen or not ours."""

import os

import pytest
from msgspec import json
from msgspec.structs import replace

from rqscan.errors import HomeUnavailable
from rqscan.home import keep_id, known_id, stream_note
from rqscan.settings import SpoolSettings
from rqscan.store.breaker import Breaker
from rqscan.store.drain import backlog
from rqscan.store.outbox import Kept, Outbox
from rqscan.store.spool import Spool
from rqscan.store.stream import Stream
from rqscan.tally import Moved
from tests.spools import a_record, drained, in_store, plan, seen, settings_of


@pytest.fixture
def settings(home, stream_server):
    made = settings_of(home, mode="redis_stream", redis_url=stream_server.url)
    plan(made)
    return made


@pytest.fixture
def outbox(settings):
    made = Outbox(settings)
    yield made
    made.close()


def streamed(settings) -> int:
    return Stream(settings, is_reader=True).status().records


def test_what_is_streamed_arrives_and_leaves_nothing(settings, outbox, stream_server):
    assert backlog(settings).bytes == 0
    for chunk in range(3):
        rows = seen(chunk), seen(9, host=f"10.0.0.{chunk}")
        assert outbox.record(a_record(chunk, *rows)) is Kept.SPOOLED
    held = backlog(settings)
    assert (held.records, held.rows, held.stream_away) == (3, 6, None)
    assert held.oldest_at
    assert held.bytes == stream_note(settings.home).stat().st_size > 1_000
    assert not Spool(settings).file.exists
    assert drained(settings) == Moved(rows=6)
    rows, states = in_store(settings)
    assert rows == [(0, 0), (0, 9), (1, 1), (1, 9), (2, 2), (2, 9)]
    assert states == {"finished": 3}
    held = backlog(settings)
    assert (held.records, held.rows, held.bytes, held.oldest_at) == (0, 0, 0, None)


def test_homes_that_share_a_server_have_streams_of_their_own(settings, outbox, short_path):
    outbox.record(a_record(0))
    (short_path / "other").mkdir()
    other = replace(settings, home=str(short_path / "other"))
    assert (backlog(settings).records, backlog(other).records) == (1, 0)


def test_what_was_drained_and_not_removed_changes_nothing(settings, outbox, monkeypatch):
    outbox.record(a_record(0))
    monkeypatch.setattr(Stream, "remove", lambda *_: os._exit(9))
    pid = os.fork()
    if not pid:
        drained(settings)
        os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 9
    monkeypatch.undo()
    before = in_store(settings)
    assert before[0] == [(0, 1000)]
    assert streamed(settings) == 1
    assert drained(settings).rows == 1
    assert in_store(settings) == before
    assert streamed(settings) == 0


def test_poison_goes_through_the_file_to_quarantine_and_the_rest_is_stored(
    mariadb, home, stream_server
):
    url = mariadb.database_url()
    settings = settings_of(home, url, mode="redis_stream", redis_url=stream_server.url)
    plan(settings)
    outbox = Outbox(settings)
    outbox.record(a_record(0, seen(1), seen(2, proto="é"), seen(3)))
    outbox.record(a_record(1))
    outbox.record(a_record(7, seen(1), seen(2)))  # of a chunk that nobody knows
    moved = drained(settings)
    assert (moved.rows, moved.quarantined) == (3, 2)
    assert in_store(settings)[0] == [(0, 1), (0, 3), (1, 1001)]
    entries = [(entry.code, entry.rows) for entry in Spool(settings).quarantined()]
    assert sorted(entries) == [("1366", 1), ("unknown_chunk", 2)]
    assert backlog(settings).records == 0


def test_unknown_chunk_takes_none_of_its_batch_along(settings, outbox):
    outbox.record(a_record(7))
    outbox.record(a_record(1))
    assert drained(settings) == Moved(rows=1, quarantined=1)
    assert in_store(settings)[0] == [(1, 1001)]


def test_record_of_another_store_waits_for_it_in_the_file(settings, outbox):
    own = known_id(settings)
    keep_id(settings, "0" * 32)
    outbox.record(a_record(0))
    keep_id(settings, own)
    outbox.record(a_record(1))
    assert drained(settings) == Moved(rows=1)
    assert in_store(settings)[0] == [(1, 1001)]
    assert (streamed(settings), Spool(settings).status().records) == (0, 1)


def test_stream_is_drained_though_the_mode_was_left(settings, outbox):
    outbox.record(a_record(0))
    spool = SpoolSettings(redis_url=settings.spool.redis_url)
    assert drained(replace(settings, spool=spool)) == Moved(rows=1)


def test_large_records_are_read_a_few_at_a_time(settings, outbox):
    plan(settings, 30, "big")
    for chunk in range(30):
        row = seen(chunk, data={"banner": "x" * 200_000})
        outbox.record(a_record(chunk, row, scan_id="big"))
    assert 1 <= len(Stream(settings, is_reader=True).batch()) < 10
    assert drained(settings) == Moved(rows=30)
    assert len(in_store(settings)[0]) == 30


def test_stream_and_file_together_are_bounded(settings):
    limits = SpoolSettings(
        mode="redis_stream", redis_url=settings.spool.redis_url, max_bytes=200_000
    )
    small = replace(settings, spool=limits)
    outbox, kept = Outbox(small), 0
    plan(settings, 1_000, "big")
    with pytest.raises(HomeUnavailable, match="is full"):  # noqa: PT012 - at which is not said
        while kept < 1_000:
            outbox.record(a_record(kept, seen(kept, data={"x": "y" * 3_000}), scan_id="big"))
            kept += 1
    assert kept > 20
    assert backlog(small).records == kept
    assert backlog(small).bytes <= 200_000
    assert drained(small).rows == kept
    assert len(in_store(settings)[0]) == kept


def test_server_without_memory_has_the_file_take_over(settings, outbox, stream_server):
    outbox.record(a_record(0))
    admin = stream_server.client()
    admin.config_set("maxmemory", 1)
    assert outbox.record(a_record(1)) is Kept.SPOOLED
    assert (streamed(settings), Spool(settings).status().records) == (0, 1)
    assert "memory" in Breaker(settings.home, "stream").away().reason
    admin.config_set("maxmemory", 0)
    Breaker(settings.home, "stream").close()
    assert drained(settings).rows == 2
    assert in_store(settings)[0] == [(0, 1000), (1, 1001)]


@pytest.mark.parametrize("how", ["killed", "frozen"])
def test_server_that_is_away_is_waited_for_once(settings, outbox, stream_server, how):
    outbox.record(a_record(0))
    stream_server.kill() if how == "killed" else stream_server.freeze()
    assert [outbox.record(a_record(n)) for n in (1, 2)] == [Kept.SPOOLED] * 2
    away = Breaker(settings.home, "stream").away()
    assert away
    assert away.tries == 1
    assert Spool(settings).status().records == 2
    assert drained(settings) == Moved(rows=2)
    assert backlog(settings).stream_away
    stream_server.start() if how == "killed" else stream_server.thaw()
    Breaker(settings.home, "stream").close()
    # its log had the first; what a frozen one had on its way to it comes from both places, once
    assert drained(settings) == Moved(rows=1 if how == "killed" else 2)
    assert in_store(settings)[0] == [(0, 1000), (1, 1001), (2, 1002)]


@pytest.mark.parametrize("wrong", ["redis://127.0.0.1:1", "unix:///dev/null", "unix:///x?odd=1"])
def test_server_that_never_is_there_costs_no_row(settings, wrong):
    limits = SpoolSettings(mode="redis_stream", redis_url=wrong)
    lost = replace(settings, spool=limits)
    outbox = Outbox(lost)
    assert [outbox.record(a_record(n)) for n in range(3)] == [Kept.SPOOLED] * 3
    assert drained(lost) == Moved(rows=3)
    assert len(in_store(settings)[0]) == 3


def test_password_of_the_server_is_never_told(settings, stream_server):
    url = stream_server.url.replace("unix://", "unix://:secret@")
    lost = replace(settings, spool=SpoolSettings(mode="redis_stream", redis_url=url))
    assert Outbox(lost).record(a_record(0)) is Kept.SPOOLED
    told = backlog(lost).stream_away
    assert "password" in told.lower()
    assert "secret" not in told


def test_record_lies_there_as_the_format_says(settings, outbox, stream_server):
    outbox.record(a_record(0, error="TimeoutError: \udcff"))
    client = stream_server.client()
    key = f"rqscan:spool:{os.path.realpath(settings.home)}"
    ((_, fields),) = client.xrange(key)
    assert set(fields) == {b"record", b"rows", b"store_id"}
    assert json.decode(fields[b"record"])["chunk"] == 0
    assert fields[b"store_id"].decode() == known_id(settings)
    assert client.get(f"{key}:rows") == b"1"
