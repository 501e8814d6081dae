"""The words for the states of scans, chunks, probes and workers, as users and stores see them."""

from enum import StrEnum

__all__ = ["ChunkState", "ProbeState", "ScanState", "WorkerState"]


class ScanState(StrEnum):
    """A scan, derived from its chunks: never stored."""

    QUEUED = "queued"
    RUNNING = "running"
    FINISHED = "finished"
    PARTIAL = "partial"
    FAILED = "failed"
    CANCELLED = "cancelled"


class ChunkState(StrEnum):
    """A chunk in the plan: planned → finished, failed or cancelled.

    One that has failed is planned again when its job is requeued, or it is cancelled; a scan that
    is resumed plans again what has failed or was cancelled. What has finished stays so.
    """

    PLANNED = "planned"
    FINISHED = "finished"
    FAILED = "failed"
    CANCELLED = "cancelled"


class ProbeState(StrEnum):
    """What one probe says of its target; `UNKNOWN` is our own fault and no fact about it."""

    OPEN = "open"
    CLOSED = "closed"
    FILTERED = "filtered"
    NO_RESPONSE = "no-response"
    UNKNOWN = "unknown"


class WorkerState(StrEnum):
    """A worker, as its presence and its beats tell."""

    STARTING = "starting"
    IDLE = "idle"
    BUSY = "busy"
    SUSPENDED = "suspended"
    STOPPING = "stopping"
    MISMATCHED = "mismatched"
    STALE = "stale"
    LOST = "lost"
