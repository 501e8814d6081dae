"""Power cuts: whatever the disk has of what was written last, the spool has all that it accepted.

The files are copied as they are before and after each of its transactions, and what a disk may have
made of the writes in between is put together from these: torn, missing in the middle, or in part.
"""

import os
import random
import shutil
import sqlite3
from contextlib import closing

import pytest

from rqscan.home import beside
from rqscan.store.drain import drain
from rqscan.store.spool import Refused, Spool
from rqscan.tally import Moved
from tests.spools import a_record, in_store, plan, seen, settings_of

HEADER, FRAME, PAGE = 32, 24 + 4096, 4096
"""Bytes of a WAL's header and of its frames: a page, behind a header of its own."""

POISON = seen(7, state="x" * 65)


def content(spool):
    """Give what the spool holds: its records, and its quarantine."""
    ask = "SELECT id, record FROM {} ORDER BY id".format
    tables = ("records", "quarantine")
    return spool.file.run(lambda c: tuple(c.execute(ask(table)).fetchall() for table in tables))


class Disk:
    """A spool that another process has open too, so that its log stays; and copies of both."""

    def __init__(self, folder) -> None:
        self.folder, self.home = folder, folder / "home"
        self.home.mkdir()
        self.spool = Spool(settings_of(self.home))
        self.spool.append(a_record(0))
        self.other = sqlite3.connect(self.spool.file.path, isolation_level=None)
        self.other.execute("SELECT * FROM records").fetchall()

    def files(self):
        path = self.spool.file.path
        return path.read_bytes(), beside(path, "-wal").read_bytes()

    def torn(self, record):
        """Give what the log has of a record that was not accepted yet."""
        _, before = self.files()
        self.spool.append(record)
        return self.files()[1][len(before) : -2_000]

    def after_a_cut(self, db, log):
        """Give the spool that is found when the power is back."""
        home = self.folder / "cut"
        shutil.rmtree(home, ignore_errors=True)
        home.mkdir()
        spool = Spool(settings_of(home))
        path = spool.file.path
        path.write_bytes(db)
        beside(path, "-wal").write_bytes(log)
        beside(path, "-shm").write_bytes(os.urandom(32_768))  # never synced
        return spool


@pytest.fixture
def disk(short_path):
    made = Disk(short_path)
    with closing(made.other):
        yield made


def cuts(old, new):
    """Give the logs that a disk may have when power is cut between these two."""
    longer = old.ljust(len(new), b"\0")
    written = [n for n in range(len(new)) if longer[n] != new[n]]
    first, end = written[0], written[-1] + 1
    frames = range(HEADER + (first - HEADER) // FRAME * FRAME, end, FRAME)
    found = set()
    for at in {first, first + 7, *(at + more for at in frames for more in (0, 11, 24, 2_000))}:
        found |= {
            new[:at] + old[at:],  # a log that begins anew is written over the old one
            new[:at] + bytes(len(new) - at),  # longer already, and not yet written
            new[:at] + longer[at : at + FRAME] + new[at + FRAME :],  # what comes later came first
        }
    return [log for log in found if log[:end] != new[:end]]


def mixed(old, new, draw):
    """Give a file of which some pages are old, some new and some torn."""
    longest = max(len(old), len(new))
    old_pages, new_pages = (file.ljust(longest, b"\0") for file in (old, new))
    pages = []
    for at in range(0, longest, PAGE):
        torn = at + draw.choice((0, 512, PAGE))
        pages.append(new_pages[at:torn] + old_pages[torn : at + PAGE])
    return b"".join(pages)[: draw.choice((len(old), len(new)))]


def test_a_transaction_that_is_cut_off_has_come_whole_or_not_at_all(disk):
    spool, count = disk.spool, 0

    def append(chunk, rows, size=10):
        some = (seen(100 * chunk + n, data={"banner": "x" * size}) for n in range(rows))
        spool.append(a_record(chunk, *some))

    def quarantine():
        one = spool.batch("")[-1]
        bad = Refused(record=one.record, rows=1, is_part=True, code="1406", reason="too long")
        spool.set_aside(one, [bad], one.record)

    def start_log_anew():
        disk.other.execute("PRAGMA wal_checkpoint(RESTART)")
        append(7, 1)

    steps = [
        lambda: append(1, 1),
        lambda: append(2, 20),
        lambda: append(3, 3, size=4_000),
        quarantine,
        lambda: spool.remove(spool.batch("")[:2]),
        start_log_anew,
        lambda: append(8, 20),
        lambda: spool.remove(spool.batch("")[:1]),
        lambda: append(9, 1),
    ]
    for step in steps:
        before, (_, old) = content(spool), disk.files()
        step()
        after, (db, new) = content(spool), disk.files()
        assert before != after
        for log in cuts(old, new):
            count += 1
            found = disk.after_a_cut(db, log)
            assert content(found) == before
            assert found.file.broken() == []
        found.append(a_record(10))  # over what was torn
        assert len(content(found)[0]) == len(before[0]) + 1
        assert content(disk.after_a_cut(db, new)) == after
    assert count > 200


def test_a_checkpoint_that_is_cut_off_has_lost_nothing(disk):
    spool, draw = disk.spool, random.Random(7)
    for rounds in range(4):
        for chunk in range(1, 30):
            spool.append(a_record(chunk, *(seen(n, data={"x": "y" * 100}) for n in range(20))))
        if rounds % 2:  # the file becomes shorter
            spool.remove(spool.batch("")[:40])
        held, (old, log) = content(spool), disk.files()
        disk.other.execute("PRAGMA wal_checkpoint(FULL)")
        new, _ = disk.files()
        assert old != new
        for _ in range(20):
            found = disk.after_a_cut(mixed(old, new, draw), log)
            assert content(found) == held
            assert found.file.broken() == []
        assert content(disk.after_a_cut(new, b"")) == held


def test_what_a_power_cut_left_arrives_once_though_the_drain_was_cut_off_too(disk, mariadb):
    for chunk in range(1, 6):
        disk.spool.append(a_record(chunk, seen(chunk), *([POISON] if chunk == 3 else [])))
    db, log = disk.files()
    settings = settings_of(disk.folder / "cut", mariadb.database_url())
    plan(settings, 6)
    for _ in range(2):  # as if nothing that the drain wrote had come to the disk
        found, moved = disk.after_a_cut(db, log + disk.torn(a_record(0))), Moved()
        drain(settings, moved)
        assert moved == Moved(rows=6, quarantined=1)
        assert (found.status().records, found.status().quarantined) == (0, 1)
        assert in_store(settings)[0] == [(0, 1000), *((n, n) for n in range(1, 6))]


def test_a_spool_that_was_not_made_to_the_end_is_made_anew(short_path):
    spool = Spool(settings_of(short_path))
    for name in ("spool.new", "spool.new-wal", "spool.new-journal"):
        (short_path / name).write_bytes(os.urandom(10_000))
    spool.append(a_record(0))
    assert len(content(spool)[0]) == 1
