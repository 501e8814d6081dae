"""A store and a spool to drain into it, without a fleet: small helpers for many tests."""

import time
from datetime import UTC, datetime, timedelta
from typing import Any

from rqscan.errors import Fault
from rqscan.home import keep_id
from rqscan.model import ChunkRecord, Observation, Scan
from rqscan.settings import DatabaseSettings, Settings, SpoolSettings
from rqscan.states import ChunkState
from rqscan.store.breaker import Breaker
from rqscan.store.database import Database
from rqscan.store.drain import drain
from rqscan.store.migrate import open_current
from rqscan.store.repository import Repository
from rqscan.tally import Moved

__all__ = ["AT", "a_record", "drained", "in_store", "note_as_away", "plan", "seen", "settings_of"]

AT = datetime(2026, 11, 24, 10, tzinfo=UTC)


def settings_of(home: Any, url: str | None = None, **spool: Any) -> Settings:
    """Make the settings of a home and a database."""
    database = DatabaseSettings(url=url)
    return Settings(home=str(home), database=database, spool=SpoolSettings(**spool))


def plan(settings: Settings, chunks: int = 3, scan_id: str = "s1") -> None:
    """Plan a scan, and let the home know its store, as a worker does."""
    scan = Scan(
        scan_id=scan_id, name="n", queue="wakaka", kinds=["ports"], targets=["127.0.0.0/24"],
        seed=7, hosts_per_chunk={"ports": 1}, chunks=chunks, probes=chunks, requested_at=AT,
    )  # fmt: skip
    with open_current(settings) as database:
        store = Repository(database)
        assert store.add_plan(scan, ((n, "ports") for n in range(chunks)))
        keep_id(settings, store.store_id())


def seen(port: int = 22, host: str = "127.0.0.1", **more: Any) -> Observation:
    """Make a row."""
    return Observation(**{"host": host, "port": port, "state": "open", "observed_at": AT} | more)


def a_record(chunk: int, *rows: Observation, scan_id: str = "s1", **more: Any) -> ChunkRecord:
    """Make the record of a chunk that has finished; without rows it has one of its own."""
    about: dict[str, Any] = {"scan_id": scan_id, "chunk": chunk, "generation": 1, "attempt": 1}
    how = {"kind": "ports", "state": ChunkState.FINISHED, "worker": "w1", "probes": 1}
    times = {"started_at": AT, "finished_at": AT + timedelta(minutes=1)}
    rows = rows or (seen(1000 + chunk),)
    return ChunkRecord(**about | how | times | {"observations": list(rows)} | more)


def drained(settings: Settings, **how: Any) -> Moved:
    """Drain, whether the store was seen to be away or not, and give what was moved."""
    moved = Moved()
    drain(settings, moved, by_force=True, **how)
    return moved


def in_store(settings: Settings) -> tuple[list[tuple[int, int]], dict[str, int]]:
    """Give chunk and port of each row as it lies in the table, and the chunks' states counted.

    What is there twice is given twice.
    """
    with Database.open(settings) as database, database.transaction(read_only=True) as connection:
        cursor = connection.cursor()
        cursor.execute("SELECT chunk, port FROM observations ORDER BY chunk, port")
        rows = [tuple(row) for row in cursor.fetchall()]
        cursor.execute("SELECT state, COUNT(*) FROM chunks GROUP BY state")
        return rows, dict(cursor.fetchall())


def note_as_away(home: Any) -> None:
    """Have all processes of a home take the store for away, for 20 s at least."""
    breaker = Breaker(str(home))
    while not (away := breaker.away()) or away.until < time.monotonic() + 20:
        breaker.open(Fault.FULL, "its disk is full")  # the pause is drawn
