"""The spool's file: made whole, opened for one transaction at a time, set aside when it is broken.

All processes of a home share it. Each holds `spool.lock` while it does something with the file, so
that who finds it broken can move it away when nobody does. A ballast file beside it keeps the room
that removing rows takes on a full disk.
"""

import fcntl
import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from itertools import count
from pathlib import Path
from typing import TypeVar

from rqscan.errors import HomeUnavailable
from rqscan.home import beside, drain_lock, spool_path, spool_stamp
from rqscan.store.queries import Queries, read

__all__ = ["FORMAT", "SpoolFile", "move", "saved"]

FORMAT = 1
"""Written as the file's user_version; docs/spool-format.md tells what it holds."""

BUSY_S = 30.0
BALLAST_BYTES = 2_000_000
"""Enough to remove rows and shrink the file when nothing else is free."""

BROKEN = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}
NO_ROOM = {sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN}
ADVICE = {
    sqlite3.SQLITE_BUSY: "another process holds it: try again",
    sqlite3.SQLITE_FULL: "free some space on its disk",
    sqlite3.SQLITE_IOERR: "check its disk and the space on it",
}

T = TypeVar("T")


class SpoolFile:
    """The file of one home; `queries` are its statements."""

    def __init__(self, home: str) -> None:
        self.home, self.path = home, spool_path(home)
        self._lock, self._ballast = map(self.path.with_suffix, (".lock", ".ballast"))
        # Not to be made by who opens it: another may just have moved it away.
        self._uri = f"{self.path.as_uri()}?mode=rw"
        self.queries: Queries = read("spool")
        self._inode = 0  # of the file that was opened last

    @property
    def bytes(self) -> int:
        """How much of the disk it takes, with its log; 0 when there is none."""
        return spool_stamp(self.home)[0]

    @property
    def exists(self) -> bool:
        """Whether anything was ever spooled."""
        return self.path.exists()

    def run(
        self,
        work: Callable[[sqlite3.Connection], T],
        *,
        for_room: bool = False,
        is_read: bool = False,
    ) -> T:
        """Do something in one transaction, durable when this returns.

        A broken file is set aside first, and a new one takes its place.

        Args:
            work: gets the connection; it may be called twice.
            for_room: it is to make room, so that it may have the ballast's when the disk is full.
            is_read: it only reads, and so waits for nobody who writes, or froze while writing.

        Raises:
            HomeUnavailable: the file cannot be used; nothing was done.
        """
        try:
            return self._once(work, "BEGIN" if is_read else "BEGIN IMMEDIATE")
        except sqlite3.Error as error:
            if not _code(error):  # it is ours
                raise
            if _code(error) in BROKEN:
                self._set_aside()
            elif not (for_room and _code(error) in NO_ROOM and self._free_ballast()):
                raise self._unavailable(error) from error
        try:
            return self._once(work, "BEGIN" if is_read else "BEGIN IMMEDIATE")
        except sqlite3.Error as error:
            raise self._unavailable(error) from error

    @contextmanager
    def kept_open(self) -> Iterator[None]:
        """Have it open meanwhile, if it is there and whole, but hold no lock that others need.

        Who closes it as the last brings its log into the file, and waits for the disk twice more:
        while another has it open no append does.
        """
        connection = None
        with suppress(sqlite3.Error, HomeUnavailable), self._held(fcntl.LOCK_SH):
            connection = self._connect() if self.exists else None
        try:
            yield
        finally:
            # Held, so that nobody sets it aside in the middle of this: SQLite looks first whether
            # the file was moved away, and leaves the log of the new one alone then.
            if connection:
                with self._held(fcntl.LOCK_SH):
                    connection.close()

    def broken(self) -> list[Path]:
        """Name the files that were set aside and that nothing was saved of yet."""
        return sorted(self.path.parent.glob("spool-broken-*.db"))

    def keep_ballast(self) -> None:
        """Take the ballast's room again, if there is enough."""
        with suppress(OSError):
            fd = os.open(self._ballast, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
            try:
                os.posix_fallocate(fd, 0, BALLAST_BYTES)
            except OSError:
                self._ballast.unlink()
                raise
            finally:
                os.close(fd)

    def _once(self, work: Callable[[sqlite3.Connection], T], begin: str) -> T:
        if not self.path.exists():
            self._make()
        with self._held(fcntl.LOCK_SH), closing(self._connect()) as connection:
            connection.execute(begin)
            result = work(connection)
            connection.execute("COMMIT")
            return result

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self._uri, uri=True, timeout=BUSY_S, isolation_level=None)
        try:
            self._inode = self.path.stat().st_ino
            connection.execute("PRAGMA synchronous = FULL")
            self._check(connection)
        except BaseException:
            connection.close()
            raise
        return connection

    def _check(self, connection: sqlite3.Connection) -> None:
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        if version > FORMAT:
            raise HomeUnavailable(
                f"the spool '{self.path}' has format {version}, which this older rqscan does not "
                "know: upgrade it"
            )
        if not version:  # cut to nothing
            error = sqlite3.DatabaseError("the file is empty")
            error.sqlite_errorcode = sqlite3.SQLITE_NOTADB
            raise error

    def _make(self) -> None:
        """Make the file under another name first: it is there whole, or not at all."""
        new = self.path.with_suffix(".new")
        try:
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            with self._held(fcntl.LOCK_EX):
                if self.path.exists():
                    return
                # Also the log of one that was deleted: it would be taken for ours.
                stale = [beside(at, end) for at in (new, self.path) for end in ("-wal", "-shm")]
                for path in (new, beside(new, "-journal"), *stale):
                    path.unlink(missing_ok=True)
                drain_lock(self.home).touch(0o600)  # while there is room for it
                os.close(os.open(new, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
                with closing(sqlite3.connect(new, isolation_level=None)) as connection:
                    self._fill(connection)
                new.rename(self.path)
                _sync_folder(self.path.parent)
        except OSError as error:
            message = f"cannot make the spool '{self.path}': {error.strerror}; check the disk"
            raise HomeUnavailable(message) from error
        self.keep_ballast()

    def _fill(self, connection: sqlite3.Connection) -> None:
        connection.execute("PRAGMA auto_vacuum = FULL")  # what is removed gives its room back
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("BEGIN IMMEDIATE")
        queries = self.queries
        for make in (queries.make_records, queries.make_index, queries.make_quarantine):
            make(connection)
        queries.seed_ids(connection)
        connection.execute(f"PRAGMA user_version = {FORMAT}")
        connection.execute("COMMIT")

    def _set_aside(self) -> None:
        with self._held(fcntl.LOCK_EX):
            if not self.path.exists() or self.path.stat().st_ino != self._inode:
                return  # another process has done so
            names = (self.path.with_name(f"spool-broken-{n}.db") for n in count(1))
            aside = next(path for path in names if not (path.exists() or saved(path).exists()))
            move(self.path, aside)
            _sync_folder(self.path.parent)

    def _free_ballast(self) -> bool:
        try:
            self._ballast.unlink()
        except OSError:
            return False
        return True

    def _unavailable(self, error: sqlite3.Error) -> HomeUnavailable:
        advice = ADVICE.get(_code(error), "check its disk, and that this user may write there")
        return HomeUnavailable(f"cannot use the spool '{self.path}': {error}; {advice}")

    @contextmanager
    def _held(self, how: int) -> Iterator[None]:
        try:
            fd = os.open(self._lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            message = f"cannot use the spool '{self.path}': {error.strerror}; check its folder"
            raise HomeUnavailable(message) from error
        try:
            fcntl.flock(fd, how)
            yield
        finally:
            os.close(fd)


def move(path: Path, to: Path) -> None:
    """Give a database another name, while others may have it open."""
    for end in ("-wal", ""):  # the log first: without its file it says nothing
        with suppress(FileNotFoundError):
            beside(path, end).rename(beside(to, end))
    beside(path, "-shm").unlink(missing_ok=True)


def saved(broken: Path) -> Path:
    """Name what becomes of a broken file once what can be read of it was saved."""
    return broken.with_suffix(".saved")


def _code(error: sqlite3.Error) -> int:
    return getattr(error, "sqlite_errorcode", 0) & 0xFF  # the low byte is the primary code


def _sync_folder(folder: Path) -> None:
    fd = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
