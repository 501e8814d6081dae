"""The outbox: the one write path of chunk records, from a work-horse into the store or the spool.

The store if it is there; else, and in the mode spool_first always, the spool, from which a drain
brings them into the store later. What the store would not take for its rows is spooled too: the
drain finds out which rows. So a job waits for a dead database once in a home, and not again. In the
mode redis_stream the stream comes first, and the spool takes what the stream cannot.
"""

from enum import StrEnum
from importlib import import_module
from typing import TYPE_CHECKING

from rqscan.errors import Fault, StoreUnavailable
from rqscan.model import ChunkRecord
from rqscan.settings import Settings
from rqscan.store.breaker import PATIENCE_S, Breaker
from rqscan.store.database import Database
from rqscan.store.dialect import Limits
from rqscan.store.dialects import dialect_of
from rqscan.store.intake import Intake

if TYPE_CHECKING:
    from rqscan.store.spool import Spool
    from rqscan.store.stream import Stream

__all__ = ["Kept", "Outbox"]

LIMITS = Limits(connect=5, answer=15)
"""Shorter than others have them: a job waits, and its record may be spooled. An answer may still
take as long as innodb_lock_wait_timeout."""


class Kept(StrEnum):
    """What became of a record."""

    STORED = "stored"
    SPOOLED = "spooled"
    REFUSED = "refused"  # by the store's fence


class Outbox:
    """Takes chunk records; connects at the first one, so that it can be forked."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._database = Database(dialect_of(settings, LIMITS))
        self._intake = Intake(self._database)
        self._breaker = Breaker(settings.home)
        self._spool: Spool | None = None
        self._stream: Stream | None = None
        self._is_local = settings.spool.mode != "direct"

    def record(self, record: ChunkRecord) -> Kept:
        """Keep a record with its rows; they are safe when this returns.

        A record can be replayed whole, so a commit that was cut off does no harm.

        Returns:
            What became of it: refused when a newer attempt was recorded, or no such chunk is
            planned. Of one that is spooled the drain learns that.

        Raises:
            HomeUnavailable: the store is away, and the spool is full or cannot be used.
        """
        if not self._is_local and self._breaker.may_try(PATIENCE_S):
            try:
                is_taken = self._intake.record(record)
            except StoreUnavailable as error:
                if error.fault is not Fault.BUSY:
                    self._breaker.open(error.fault, str(error))
            except Exception as error:
                if self._database.dialect.refusal(error) is None:
                    raise
            else:
                self._breaker.close()
                return Kept.STORED if is_taken else Kept.REFUSED
        spool = self._load_spool()
        if not (self._stream and self._stream.append(record)):
            spool.append(record)
        return Kept.SPOOLED

    def finished(self, record: ChunkRecord) -> tuple[int, int] | None:
        """Give observations and probes of a refused record's chunk if another has finished it.

        Raises:
            StoreUnavailable: the database is away.
        """
        return self._intake.finished(record)

    def foresee(self) -> None:
        """Load the spool if the next record will go there: once, for all that are forked."""
        if self._spool is None and (self._is_local or self._breaker.away()):
            self._load_spool().foresee()

    def close(self) -> None:
        """Close the connection, if there is one."""
        self._database.close()

    def _load_spool(self) -> "Spool":
        """Load the spool, with SQLite or redis too, when it is wanted: it weighs on every horse."""
        if self._spool is None:
            self._spool = import_module("rqscan.store.spool").Spool(self._settings)
            if self._settings.spool.mode == "redis_stream":
                self._stream = import_module("rqscan.store.stream").Stream(self._settings)
        return self._spool
