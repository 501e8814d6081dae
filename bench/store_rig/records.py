"""The same rows for everybody: chunk records as kind `ports` makes them, and their plan."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

from rqscan.home import keep_id
from rqscan.model import ChunkRecord, Observation, Scan
from rqscan.settings import DatabaseSettings, Settings, SpoolSettings
from rqscan.states import ChunkState
from rqscan.store.migrate import open_current
from rqscan.store.repository import Repository

__all__ = ["plan", "records", "settings_of"]

AT = datetime(2026, 11, 24, 10, tzinfo=UTC)
SCAN = "office-20261124T100000Z"
PORTS = 1_000  # of each host


def settings_of(home: str, url: str) -> Settings:
    return Settings(
        home=home, database=DatabaseSettings(url=url), spool=SpoolSettings(max_bytes=10**10)
    )


def plan(settings: Settings, chunks: int) -> None:
    """Make the tables and plan so many chunks; let the home know its store, as a worker does."""
    scan = Scan(
        scan_id=SCAN, name="office", queue="default", kinds=["ports"], targets=["10.0.0.0/8"],
        seed=7, hosts_per_chunk={"ports": 1}, chunks=chunks, probes=chunks, requested_at=AT,
    )  # fmt: skip
    with open_current(settings) as database:
        store = Repository(database)
        assert store.add_plan(scan, ((n, "ports") for n in range(chunks)))
        keep_id(settings, store.store_id())


def records(chunks: int, size: int) -> Iterator[ChunkRecord]:
    """Give so many records of so many rows each, one by one."""
    for chunk in range(chunks):
        yield ChunkRecord(
            scan_id=SCAN, chunk=chunk, generation=1, attempt=1, kind="ports", probes=size,
            state=ChunkState.FINISHED, worker="bench", started_at=AT,
            finished_at=AT + timedelta(seconds=5),
            observations=[_seen(chunk * size + n) for n in range(size)],
        )  # fmt: skip


def _seen(number: int) -> Observation:
    host, port = divmod(number, PORTS)
    return Observation(
        host=f"10.{host >> 16 & 255}.{host >> 8 & 255}.{host & 255}", port=port + 1, state="open",
        data={"reason": "syn-ack", "tries": 1}, observed_at=AT + timedelta(microseconds=number),
    )  # fmt: skip
