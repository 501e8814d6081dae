"""Salvage: what can be read of a spool's file that was broken and set aside."""

import sqlite3
from collections.abc import Iterator
from contextlib import closing, suppress
from typing import Any

from rqscan.batches import batches
from rqscan.store.spool import Spool
from rqscan.store.spool_file import move, saved

__all__ = ["salvage"]

BATCH = 100
MOST_GAPS = 1_000_000
"""Ids between what was read from both ends that are asked for one by one."""

COLUMNS = "record, rows, is_part, store_id"


def salvage(spool: Spool) -> list[tuple[str, int]]:
    """Put the records of broken files back into the spool; gives each file and how many they were.

    One that was put back twice, for a crash in between, is taken by the store once. The file stays
    under the name that is given, for whoever wants to look for more.
    """
    done = []
    for path in spool.file.broken():
        count = 0
        with suppress(sqlite3.Error), closing(sqlite3.connect(path)) as connection:
            for some in batches(_records(connection), BATCH):
                spool.put(some)
                count += len(some)
        move(path, saved(path))
        done.append((str(saved(path)), count))
    return done


def _records(connection: sqlite3.Connection) -> Iterator[tuple[Any, ...]]:
    """Read from both ends to where it is broken, then what lies between, one by one.

    Quarantined rows come too: the store says again what is wrong with them.
    """
    for table in ("records", "quarantine"):
        ends = []
        for order in ("ASC", "DESC"):
            ends.append(0)
            with suppress(sqlite3.Error):
                for number, *record in connection.execute(
                    f"SELECT id, {COLUMNS} FROM {table} ORDER BY id {order}"  # noqa: S608 - ours
                ):
                    if order == "DESC" and number <= ends[0]:
                        break
                    ends[-1] = number
                    yield tuple(record)
        first, last = ends
        for number in range(first + 1, min(last, first + MOST_GAPS)):
            with suppress(sqlite3.Error):
                query = f"SELECT {COLUMNS} FROM {table} WHERE id = ?"  # noqa: S608 - as above
                for record in connection.execute(query, [number]):
                    yield tuple(record)
