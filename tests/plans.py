"""Plans of small scans, without a command: one chunk for each of the first loopback addresses."""

from datetime import UTC, datetime, timedelta

from rqscan.model import ChunkRecord, Scan
from rqscan.scan.plan import Plan, plan_of
from rqscan.states import ChunkState

__all__ = ["a_plan", "a_record", "number_of"]

AT = datetime(2026, 11, 24, 10, tzinfo=UTC)


def a_plan(scan_id: str = "s1", chunks: int = 3, at: datetime = AT) -> Plan:
    """Plan a scan on queue wakaka."""
    scan = Scan(
        scan_id=scan_id, name="n", queue="wakaka", kinds=["ports"], seed=7, chunks=chunks,
        targets=[f"127.0.{n // 256}.{n % 256}" for n in range(1, chunks + 1)],
        params={"ports": {"ports": "1"}}, hosts_per_chunk={"ports": 1}, probes=chunks,
        requested_at=at,
    )  # fmt: skip
    return plan_of(scan)


def a_record(chunk: int, scan_id: str = "s1", generation: int = 1, attempt: int = 1, **more):
    """Make the record of a chunk that has finished, with no rows."""
    fields = {"kind": "ports", "state": ChunkState.FINISHED, "worker": "w1", "probes": 1}
    times = {"started_at": AT, "finished_at": AT + timedelta(minutes=1)}
    about = {"scan_id": scan_id, "chunk": chunk, "generation": generation, "attempt": attempt}
    return ChunkRecord(**fields | times | about | more)


def number_of(job_id: str) -> int:
    """Tell the chunk of a job."""
    return int(job_id.split("-")[-2])
