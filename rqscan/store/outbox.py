"""The one write path of chunk records: from a work-horse into the store."""

import time
from collections.abc import Callable
from typing import TypeVar

from rqscan.errors import StoreUnavailable
from rqscan.model import ChunkRecord
from rqscan.settings import Settings
from rqscan.store.database import Database
from rqscan.store.dialects import dialect_of
from rqscan.store.repository import Repository

__all__ = ["Outbox"]

RETRY_S = 5.0
PAUSES_S = 0.05, 1.0
"""The first pause between two tries, which doubles, and the longest."""

T = TypeVar("T")


class Outbox:
    """Puts chunk records into the store; connects at the first one, so that it can be forked."""

    def __init__(self, settings: Settings) -> None:
        self._database = Database(dialect_of(settings))

    def record(self, record: ChunkRecord) -> bool:
        """Write a record with its rows, trying again for a few seconds while the store is away.

        A record can be replayed whole, so a commit that was cut off does no harm.

        Returns:
            Whether it was taken; False when a newer attempt was recorded, or no such chunk planned.

        Raises:
            StoreUnavailable: the database stayed away; nothing was written that replaying it
                would not write again.
        """
        return _again(Repository(self._database).record, record)

    def finished(self, record: ChunkRecord) -> tuple[int, int] | None:
        """Give observations and probes of a refused record's chunk if another has finished it.

        Raises:
            StoreUnavailable: the database stayed away.
        """
        return _again(Repository(self._database).finished, record)

    def close(self) -> None:
        """Close the connection, if there is one."""
        self._database.close()


def _again(do: Callable[[ChunkRecord], T], record: ChunkRecord) -> T:
    late = time.monotonic() + RETRY_S
    pause_s, longest_s = PAUSES_S
    while True:
        try:
            return do(record)
        except StoreUnavailable:
            if time.monotonic() > late:
                raise
        time.sleep(pause_s)
        pause_s = min(2 * pause_s, longest_s)
