"""The same rows for everybody: chunk records as kind `ports` makes them."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

from rqscan.model import ChunkRecord, Observation
from rqscan.settings import DatabaseSettings, Settings, SpoolSettings
from rqscan.states import ChunkState

__all__ = ["SCAN", "records", "settings_of"]

AT = datetime(2026, 11, 24, 10, tzinfo=UTC)
SCAN = "office-20261124T100000Z"
PORTS = 1_000  # of each host


def settings_of(home: str, url: str) -> Settings:
    return Settings(
        home=home, database=DatabaseSettings(url=url), spool=SpoolSettings(max_bytes=10**10)
    )


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
