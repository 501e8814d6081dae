"""Settings: their shape with units and defaults, and how they are read and checked."""

from typing import Annotated, Any

from msgspec import Meta, Struct, field

__all__ = [
    "DatabaseSettings",
    "JobsSettings",
    "QueueSettings",
    "RedisSettings",
    "ScopeSettings",
    "Settings",
    "WorkerSettings",
]

Seconds = Annotated[float, Meta(ge=0)]
Positive = Annotated[int, Meta(ge=1)]
Count = Annotated[int, Meta(ge=0)]


class RedisSettings(Struct, frozen=True, forbid_unknown_fields=True):
    """Where Redis is; no url means the embedded server of the home."""

    url: str | None = None
    connect_timeout_s: Seconds = 20


class DatabaseSettings(Struct, frozen=True, forbid_unknown_fields=True):
    """Where results are kept; no url means SQLite in the home."""

    url: str | None = None


class ScopeSettings(Struct, frozen=True, forbid_unknown_fields=True):
    """What may be touched; deny wins. The default is loopback and the private networks."""

    allow: list[str] = field(
        default_factory=lambda: [
            "127.0.0.0/8", "::1/128", "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "fc00::/7",
        ]
    )  # fmt: skip
    deny: list[str] = field(default_factory=list)


class WorkerSettings(Struct, frozen=True, forbid_unknown_fields=True):
    """How workers run jobs and when they are given up for lost."""

    heartbeat_s: Seconds = 3
    lease_s: Seconds = 6.5  # presence older than this: the worker is lost
    stop_timeout_s: Seconds = 30
    max_jobs_per_horse: Count = 1  # 0: no limit
    memory_limit_bytes: Count = 0  # of a work-horse; 0: no limit
    max_lost: Positive = 3  # deaths of the job's own horse before it is failed as poison
    max_host_losses: Positive = 10  # deaths of worker or host before it is failed
    allow_functions: list[str] = field(default_factory=list)


class JobsSettings(Struct, frozen=True, forbid_unknown_fields=True):
    """Where the scan kinds are; no path means the `jobs` folder beside rqscan or the config."""

    path: str | None = None


class QueueSettings(Struct, frozen=True, forbid_unknown_fields=True):
    """How the jobs of one queue are run and kept."""

    timeout_s: Positive = 3600  # hard: the work-horse is killed
    result_ttl_s: Count = 3600  # 0 keeps no result in Redis
    failure_ttl_s: Count = 604_800


class Settings(Struct, frozen=True, kw_only=True):
    """All settings in force; `origin` tells for each dotted key where it came from."""

    home: str
    redis: RedisSettings = RedisSettings()
    database: DatabaseSettings = DatabaseSettings()
    scope: ScopeSettings = ScopeSettings()
    worker: WorkerSettings = WorkerSettings()
    jobs: JobsSettings = JobsSettings()
    queues: dict[str, QueueSettings] = field(
        default_factory=lambda: {"default": QueueSettings(), "wakaka": QueueSettings()}
    )
    schedule: list[dict[str, Any]] = field(default_factory=list)  # unchecked: entry by entry later
    origin: dict[str, str] = field(default_factory=dict)  # "worker.heartbeat_s": "default"
    path: str | None = None  # of the rqscan.toml that was read
