"""The frozen records that flow through the house; times are aware and in UTC."""

from datetime import datetime
from typing import Any

from msgspec import Struct, field

from rqscan.states import ChunkState, ScanState

__all__ = [
    "COVERAGE",
    "Chunk",
    "ChunkRecord",
    "Counts",
    "Observation",
    "Progress",
    "Row",
    "RunRecord",
    "Scan",
]

COVERAGE = "coverage"
"""State of the one row per host and chunk that counts what was looked at and not open."""


class Observation(Struct, frozen=True, kw_only=True):
    """One fact seen by a kind.

    A coverage row has no port, the state `COVERAGE`, and in `data` the probes counted by state
    and reason: ``{"probes": 1000, "counts": {"closed": {"refused": 998}}}``.
    """

    host: str  # address that was dialled
    port: int | None = None
    proto: str = "tcp"
    state: str  # a ProbeState, COVERAGE, or a kind's own word
    data: dict[str, Any] = field(default_factory=dict)
    observed_at: datetime


class Chunk(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What one job carries: all that is needed to run it, with the database away.

    The scope is not in it: a payload cannot widen what this worker may touch.
    """

    scan_id: str
    chunk: int  # 0-based, in the plan's order
    generation: int = 1  # raised each time the chunk is enqueued again
    kind: str
    targets: list[str]  # "10.0.0.0-10.0.0.63", an address, or a name
    exclude: list[str] = field(default_factory=list)
    params: dict[str, Any]


class ChunkRecord(Struct, frozen=True, kw_only=True):
    """How one attempt of a chunk ended, with its rows: written in one transaction."""

    scan_id: str
    chunk: int
    generation: int
    attempt: int  # counted from 1 within the generation
    kind: str
    state: ChunkState
    worker: str
    started_at: datetime
    finished_at: datetime
    probes: int = 0
    error: str | None = None
    observations: list[Observation] = field(default_factory=list)


class Scan(Struct, frozen=True, kw_only=True):
    """What a user asked for; with `seed` and `hosts_per_chunk` its chunks can be made again."""

    scan_id: str
    name: str
    queue: str
    kinds: list[str]
    targets: list[str]
    exclude: list[str] = field(default_factory=list)
    params: dict[str, dict[str, Any]] = field(default_factory=dict)  # by kind
    seed: int
    hosts_per_chunk: dict[str, int]  # by kind
    chunks: int
    probes: int  # planned, without retries
    schedule: str | None = None  # name of the entry that asked for it
    due_at: datetime | None = None
    requested_at: datetime
    result_ttl_s: int | None = None  # how long Redis keeps its jobs; None: as the queue has it
    failure_ttl_s: int | None = None


class Counts(Struct, frozen=True):
    """A scan's chunks: all of them, and those that ended."""

    total: int
    done: int = 0
    failed: int = 0
    cancelled: int = 0


class Progress(Struct, frozen=True, kw_only=True):
    """How far a scan is."""

    scan_id: str
    chunks: Counts
    observations: int = 0
    spooled: int = 0  # of these, those that were not in the store when their chunk ended
    probes: int = 0
    started_at: datetime | None = None
    finished_at: datetime | None = None

    @property
    def state(self) -> ScanState:
        """Derive the scan's state from its chunks."""
        c = self.chunks
        if c.done + c.failed + c.cancelled < c.total:
            return ScanState.RUNNING if self.started_at else ScanState.QUEUED
        if c.cancelled:
            return ScanState.CANCELLED
        if not c.failed:
            return ScanState.FINISHED
        return ScanState.PARTIAL if c.done else ScanState.FAILED

    @property
    def is_ended(self) -> bool:
        """Tell whether every chunk has ended."""
        return self.state not in (ScanState.QUEUED, ScanState.RUNNING)


class Row(Struct, frozen=True, kw_only=True):
    """One stored observation as `rqscan results` gives it."""

    scan_id: str
    kind: str
    host: str
    port: int | None
    proto: str
    state: str
    data: dict[str, Any]
    first_seen: datetime
    last_seen: datetime
    observed_at: datetime
    worker: str


class RunRecord(Struct, frozen=True, kw_only=True):
    """What came of one run of a schedule entry, as `rqscan schedule history` gives it."""

    name: str  # of the entry
    due_at: datetime
    fired_at: datetime
    lateness_s: float
    outcome: str
    reason: str = ""
    scan_id: str | None = None
