"""What lies in the home of the store: its id, known also while it is away, and the spool.

Names are made once: a work-horse, which is forked for one record, then finds them made.
"""

import os
from contextlib import suppress
from functools import cache
from pathlib import Path

from rqscan.digest import blake2b
from rqscan.settings import Settings

__all__ = [
    "beside",
    "drain_lock",
    "keep_id",
    "known_id",
    "spool_path",
    "spool_stamp",
    "stream_note",
]


def known_id(settings: Settings) -> str:
    """Give the store's id; empty if this home has never reached it."""
    with suppress(OSError):
        return _id_file(settings.home, settings.database.url).read_bytes().decode("ascii").strip()
    return ""


def keep_id(settings: Settings, store_id: str) -> None:
    """Keep the store's id; whoever reads it meanwhile reads the one before, or this one."""
    if known_id(settings) == store_id:
        return
    path = _id_file(settings.home, settings.database.url)
    new = beside(path, f".{os.getpid()}")
    with suppress(OSError):  # a full disk: the database tells it again
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        new.write_text(store_id, "ascii")
        new.rename(path)


@cache
def _id_file(home: str, url: str | None) -> Path:
    about = blake2b((url or "").encode(), digest_size=8).hexdigest()
    return Path(home) / f"store-{about}"


def spool_path(home: str) -> Path:
    """Name the spool's file."""
    return Path(home, "spool.db").absolute()


def drain_lock(home: str) -> Path:
    """Name the file that whoever drains the spool holds."""
    return spool_path(home).with_name("drain.lock")


def stream_note(home: str) -> Path:
    """Name the empty file that is as long as what lies in the stream: it takes no room."""
    return spool_path(home).with_suffix(".stream")


def beside(path: Path, end: str) -> Path:
    """Name a file that SQLite has beside a database, such as its log (``-wal``)."""
    return path.with_name(path.name + end)


def spool_stamp(home: str) -> tuple[int, ...]:
    """Give the size of spool, its log and stream, in bytes, and what changes with each write."""
    found: list[os.stat_result] = []
    for one in _kept_in(home):
        with suppress(OSError):
            found.append(one.stat())
    return sum(one.st_size for one in found), *(one.st_mtime_ns for one in found)


@cache
def _kept_in(home: str) -> tuple[Path, ...]:
    path = spool_path(home)
    return path, beside(path, "-wal"), stream_note(home)
