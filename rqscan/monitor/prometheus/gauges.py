"""Gauges: the tables of what each record of a snapshot tells Prometheus, and in which words.

A row is the name without its prefix, the text, and how the figure is had; None leaves it out.
"""

from collections.abc import Callable

from rqscan.fleet.reports import SpoolReport
from rqscan.model import Counts
from rqscan.monitor.records import Queue, Schedule, Server, Worker

__all__ = [
    "CHUNKS", "COUNTERS", "JOBS", "LIVING", "QUEUES", "REDIS", "SCHEDULES", "SPOOLS", "TOTALS",
    "WORKERS", "Figure",
]  # fmt: skip

Figure = float | None

REDIS: list[tuple[str, str, Callable[[Server], Figure]]] = [
    ("round_trip_seconds", "Time of one round trip with all that was asked in it.",
     lambda one: one.rtt_ms / 1000),
    ("memory_bytes", "Memory that Redis uses.", lambda one: one.memory_bytes),
    ("memory_limit_bytes", "Memory that Redis may use; 0: no limit is set.",
     lambda one: one.memory_limit_bytes),
    ("clients", "Connections that Redis has.", lambda one: one.clients),
    ("is_replica", "Whether Redis is a replica, which takes no writes.",
     lambda one: one.is_replica),
]  # fmt: skip

QUEUES: list[tuple[str, str, Callable[[Queue], Figure]]] = [
    ("oldest_job_age_seconds", "Age of the job that is next; absent if none waits.",
     lambda one: one.oldest_s),
    ("failed_last_hour", "Jobs that failed within the last hour.", lambda one: one.failed_1h),
    ("paused", "Whether nothing of the queue is started.", lambda one: one.paused),
    ("workers", "Workers that listen on the queue and live.", lambda one: one.workers),
    ("enqueued_per_second", "Jobs that came, over the last full minute.",
     lambda one: one.in_per_s),
    ("ended_per_second", "Jobs that ended, over the last full minute.",
     lambda one: one.out_per_s),
    ("drain_seconds", "Time until it is empty at these rates; absent if never, or if it is.",
     lambda one: one.drain_s),
]  # fmt: skip

JOBS: dict[str, Callable[[Queue], Figure]] = {
    "waiting": lambda one: one.depth,
    "running": lambda one: one.running,
    "failed": lambda one: one.failed,
    "scheduled": lambda one: one.scheduled,
    "deferred": lambda one: one.deferred,
}

WORKERS: list[tuple[str, str, Callable[[Worker], Figure]]] = [
    ("heartbeat_age_seconds", "Age of the worker's last beat, by Redis' clock.",
     lambda one: one.heartbeat_age_s),
    ("jobs_running", "Jobs that the worker runs, or held when it was lost.",
     lambda one: len(one.jobs)),
    ("oldest_job_age_seconds", "How long the worker's oldest job has run; absent if none runs.",
     lambda one: one.job_age_s),
]  # fmt: skip

LIVING: list[tuple[str, str, Callable[[Worker], Figure]]] = [  # untrue of one that is lost
    ("places", "Jobs that the worker may run at once.", lambda one: one.concurrency),
    ("connected", "Whether the worker's connection to Redis is open.",
     lambda one: one.is_connected),
    ("claims_held", "Whether the worker claims nothing for a while.",
     lambda one: bool(one.holds)),
    ("clock_offset_seconds", "Redis' clock minus that of the worker's host.",
     lambda one: one.clock_offset_s),
    ("utc_offset_seconds", "Local time of the worker's host minus UTC.",
     lambda one: one.utc_offset_s),
    ("resident_memory_bytes", "Memory of the worker's process.", lambda one: one.rss_bytes),
]  # fmt: skip

TOTALS: list[tuple[str, str, Callable[[Worker], Figure]]] = [
    ("jobs_done", "Jobs that the worker has finished since its start.", lambda one: one.done),
    ("jobs_failed", "Jobs that have failed on the worker since its start.",
     lambda one: one.failed),
]  # fmt: skip

SPOOLS: list[tuple[str, str, Callable[[SpoolReport], Figure]]] = [
    ("rows", "Rows on the host's disk that are not in the database yet.", lambda one: one.rows),
    ("bytes", "Size of the spool on the host's disk.", lambda one: one.bytes),
    ("oldest_age_seconds", "Time since the oldest record came; absent if the spool is empty.",
     lambda one: one.oldest_s),
    ("quarantined_entries", "Entries that the database has refused and that were set aside.",
     lambda one: one.quarantined),
    ("drained_rows_per_second", "Rate of the last drain that moved something.",
     lambda one: one.drain_rows_per_s),
    ("drain_seconds", "Time until the spool is empty at that rate.", lambda one: one.eta_s),
]  # fmt: skip

SCHEDULES: list[tuple[str, str, Callable[[Schedule], Figure]]] = [
    ("next_run_timestamp_seconds", "When the entry falls due next; absent if it does not.",
     lambda one: one.next_at.timestamp() if one.next_at else None),
    ("last_run_timestamp_seconds", "When the entry was fired last.",
     lambda one: one.last_at.timestamp() if one.last_at else None),
    ("lateness_seconds", "How late the entry's last run was fired.", lambda one: one.lateness_s),
    ("paused", "Whether the entry is paused: it is not fired.", lambda one: one.paused),
]  # fmt: skip

COUNTERS = {
    "rescued": "Jobs that were put back since the process, worker or host that ran them died.",
    "lost": "Attempts that ended with the process, worker or host that ran them.",
    "refused": "Jobs that were refused: their payload is not ours or names what may not run.",
    "fenced": "Ends that came too late and changed nothing: another attempt had the job.",
}

CHUNKS: dict[str, Callable[[Counts], Figure]] = {
    "done": lambda one: one.done,
    "failed": lambda one: one.failed,
    "cancelled": lambda one: one.cancelled,
    "open": lambda one: max(0, one.total - one.done - one.failed - one.cancelled),
}
