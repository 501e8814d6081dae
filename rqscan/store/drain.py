"""The drain: moves what is kept into the store, oldest first; one process of a home at a time.

batch → one transaction of the store → removed from where it was kept. Whatever ends it in
between, the batch is moved again, and that changes nothing.
"""

import fcntl
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from rqscan.errors import FailedError, Fault, HomeUnavailable, StoreUnavailable
from rqscan.home import drain_lock, spool_stamp
from rqscan.settings import Settings, SpoolSettings
from rqscan.store.breaker import Breaker
from rqscan.store.database import Database
from rqscan.store.migrate import open_current
from rqscan.store.mover import Mover
from rqscan.store.salvage import salvage
from rqscan.store.spool import Spool
from rqscan.tally import Backlog, Moved

if TYPE_CHECKING:
    from rqscan.store.stream import Stream

__all__ = ["Held", "backlog", "drain", "stream_of"]

LOOK_S = 1.0
"""How often, in a pause, it is asked whether to go on."""


class Held(FailedError):  # noqa: N818 - a state of the home, not a mistake
    """Another process of this home drains, or enough other homes do."""


def stream_of(settings: Settings) -> "Stream | None":
    """Give the stream to read; whatever the mode is now, there may be records in it."""
    if settings.spool.redis_url is None:
        return None
    made: Stream = import_module("rqscan.store.stream").Stream(settings, is_reader=True)
    return made


def backlog(settings: Settings) -> Backlog:
    """Tell what this home keeps, in spool and stream.

    Raises:
        HomeUnavailable: the spool cannot be used.
    """
    kept, stream = Spool(settings).status(), stream_of(settings)
    streamed = stream.status() if stream else Backlog()
    return Backlog(
        records=kept.records + streamed.records,
        rows=kept.rows + streamed.rows,
        bytes=spool_stamp(settings.home)[0],
        oldest_at=min(filter(None, (kept.oldest_at, streamed.oldest_at)), default=None),
        quarantined=kept.quarantined,
        stream_away=streamed.stream_away,
    )


def drain(
    settings: Settings,
    moved: Moved,
    *,
    by_force: bool = False,
    goes_on: Callable[[int], bool] = lambda _: True,
    on_batch: Callable[[], None] = lambda: None,
) -> None:
    """Drain spool and stream of this home until they hold nothing for the store.

    Args:
        settings: say where the home and the store are, and how fast to go.
        moved: is counted up after each batch.
        by_force: try the store also before the breaker's time has come, and however many drain.
        goes_on: asked before each batch, and once a second where its turn is waited for; gets the
            bytes that the drain has sent over the network and received so far.
        on_batch: called after each batch.

    Raises:
        Held: another process drains, and its pid is named; or enough other homes do.
        StoreUnavailable: the store is away; what was not moved stays.
        HomeUnavailable: the spool cannot be used.
    """
    breaker, spool, pace = Breaker(settings.home), Spool(settings), _Pace(settings.spool)
    with _alone(drain_lock(settings.home)):
        moved.salvaged += salvage(spool)
        if not backlog(settings).records and not breaker.away():
            return
        if not (breaker.may_try() or by_force):
            return
        try:
            with open_current(settings) as database:
                if not by_force:
                    _take_turn(database)
                mover = Mover(spool, stream_of(settings), database, moved)
                while batch := mover.batch():
                    amounts = sum(one.rows for one in batch), sum(len(x.record) for x in batch)
                    if not pace.wait(*amounts, goes_on=lambda: goes_on(database.wire_bytes())):
                        return
                    mover.move(batch)
                    breaker.close()
                    on_batch()
            breaker.close()
        except StoreUnavailable as error:
            if error.fault is not Fault.BUSY:
                breaker.open(error.fault, str(error))
            raise
        spool.file.keep_ballast()


def _take_turn(database: Database) -> None:
    with database.transaction(read_only=True) as connection:
        if not database.dialect.take_turn(connection):
            raise Held(f"enough other homes drain into {database.dialect.where}; wait for a turn")


class _Pace:
    """Keeps a drain below its limits, from the second batch on."""

    def __init__(self, settings: SpoolSettings) -> None:
        self._limits = settings.drain_rows_per_s, settings.drain_bytes_per_s
        self._at = 0.0  # monotonic: when the next batch may go

    def wait(self, *amounts: int, goes_on: Callable[[], bool]) -> bool:
        """Wait until a batch of so many rows and bytes may go; tell whether it is still to."""
        while goes_on():
            left_s = self._at - time.monotonic()
            if left_s <= 0:
                break
            time.sleep(min(left_s, LOOK_S))
        else:
            return False
        costs = (n / limit for n, limit in zip(amounts, self._limits, strict=True) if limit)
        self._at = time.monotonic() + max(costs, default=0.0)
        return True


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    """Hold the home's right to drain; the kernel frees it with its process."""
    try:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        message = f"cannot use '{path}': {error.strerror}; check its folder"
        raise HomeUnavailable(message) from error
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(fd, 32, 0).decode("ascii", "replace").strip() or "?"
            raise Held(f"process {holder} drains the spool of this home; wait for it") from None
        with suppress(OSError):  # a full disk is what a drain is for
            os.ftruncate(fd, 0)
            os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)
        yield
    finally:
        os.close(fd)
