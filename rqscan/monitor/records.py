"""The records of a snapshot: as JSON they are what `rqscan top --json` promises, field for field.

A figure that Redis would not give (an access rule), that is garbage there, or that has no source
yet is None.
"""

from datetime import datetime
from typing import Annotated, Literal

from msgspec import Meta, Struct

from rqscan.fleet.reports import JobReport, SpoolReport
from rqscan.fleet.schedulers import Scheduler
from rqscan.model import Counts
from rqscan.states import WorkerState

__all__ = [
    "Entries", "Failure", "Level", "Moment", "Queue", "Schedule", "Server", "Snapshot", "Task",
    "Trouble", "Worker",
]  # fmt: skip

Moment = Annotated[datetime, Meta(tz=True)]

Level = Literal["fail", "warn", "note"]


class Server(Struct, frozen=True):
    """Redis; `rtt_ms` is one whole round trip with all that was asked in it."""

    up: bool
    version: str | None
    rtt_ms: float
    memory_bytes: int | None = None
    memory_limit_bytes: int | None = None  # 0: none
    eviction: str | None = None  # its maxmemory-policy
    clients: int | None = None
    is_replica: bool | None = None
    unsaved: str | None = None  # what its last attempt to save has failed at: it may refuse writes


class Queue(Struct, frozen=True, kw_only=True):
    """A queue; rates are over the last full minute, `workers` counts those that live.

    The histories are of the last half hour, a figure a minute, the newest last.
    """

    name: str
    depth: int | None
    oldest_s: float | None
    running: int | None
    in_per_s: float
    out_per_s: float
    failed: int | None
    failed_1h: int | None
    paused: bool
    workers: int
    drain_s: float | None = None  # until it is empty at these rates; None: never, or it is
    deferred: int | None = None  # jobs that wait for others
    scheduled: int | None = None  # jobs that wait for their time, such as a retry
    depths: list[int] = []
    failures: list[int] = []


class Worker(Struct, frozen=True, kw_only=True):
    """A worker by its last beat; ages are as of the snapshot, by Redis' clock."""

    name: str
    host: str | None = None
    pid: int | None = None
    concurrency: int | None = None
    state: str = WorkerState.MISMATCHED
    heartbeat_age_s: float = 0.0
    is_connected: bool | None = None  # its connection for commands is open
    queues: list[str] = []
    job: str | None = None  # the oldest that runs
    job_age_s: float | None = None
    jobs: list[JobReport] = []
    versions: dict[str, str] = {}
    mismatch: str | None = None  # store or protocol, here and in the fleet
    clock_offset_s: float | None = None
    utc_offset_s: int | None = None
    holds: str | None = None  # why it claims nothing for a while
    spool_rows: int | None = None
    spool: SpoolReport | None = None
    rss_bytes: int | None = None
    done: int | None = None
    failed: int | None = None


class Failure(Struct, frozen=True, kw_only=True):
    """Failed jobs of one queue whose errors are the same but for numbers and addresses."""

    group: str
    error: str
    count: int
    last_at: datetime | None
    queue: str
    workers: list[str]
    jobs: list[str]
    kinds: list[str] = []


class Schedule(Struct, frozen=True, kw_only=True):
    """A schedule entry and its last run."""

    name: str
    next_at: Moment | None = None
    last_at: Moment | None = None
    lateness_s: Annotated[float, Meta(lt=1e12)] | None = None
    paused: bool = False
    state: str | None = None  # as `schedule.table` writes it, or waiting: its last run does
    reason: str | None = None  # why it is invalid, or what came of its last run
    outcome: str | None = None  # of its last run: fired, skipped, missed, waiting, refused, failed


class Entries(Struct, frozen=True, kw_only=True):
    """How many entries the schedule has: a snapshot need not hold each of them."""

    count: int | None = 0
    planned: int | None = 0  # that are to be fired some time
    overdue: int | None = 0
    runs: int | None = 0  # that were fired and are not made yet


class Task(Struct, frozen=True, kw_only=True):
    """A scan that has not ended."""

    scan_id: str
    state: str
    chunks: Counts
    eta_s: float | None
    progress: float = 0.0  # with what its running chunks have done


class Trouble(Struct, frozen=True):
    """One thing that is wrong, and why; a note is nothing wrong, but explains a wait."""

    what: str
    object: str
    cause: str
    level: Level = "fail"


class Snapshot(Struct, frozen=True, kw_only=True):
    """One frozen view of the fleet at a moment of Redis' clock."""

    at: datetime
    redis: Server
    queues: list[Queue] = []
    workers: list[Worker] = []
    failed: list[Failure] = []
    schedules: list[Schedule] = []
    scans: list[Task] = []
    leader: str | None = None
    trouble: list[Trouble] = []
    counters: dict[str, int] = {}
    entries: Entries = Entries()
    schedulers: list[Scheduler] = []  # that live
    suspended: bool = False  # by RQ's `rq suspend`: nothing is claimed anywhere
