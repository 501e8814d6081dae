"""Settings: their shape with units and defaults; `rqscan.config` reads and checks them."""

import re
from typing import Annotated, Any, Literal

from msgspec import Meta, Struct, field, structs

__all__ = [
    "DatabaseSettings",
    "FilePath",
    "JobsSettings",
    "QueueSettings",
    "RedisSettings",
    "ScopeSettings",
    "Settings",
    "WorkerSettings",
    "mask_url",
]

Seconds = Annotated[float, Meta(ge=0, le=1e9)]  # finite
Beat = Annotated[float, Meta(ge=0.01, le=30)]
Positive = Annotated[int, Meta(ge=1)]
Count = Annotated[int, Meta(ge=0)]
FilePath = Annotated[str, Meta(min_length=1)]
RedisUrl = Annotated[str, Meta(pattern=r"^(redis|rediss|unix)://")]
DatabaseUrl = Annotated[str, Meta(pattern=r"^(mysql\+pymysql|sqlite)://")]


def mask_url(url: str) -> str:
    """Give the URL with ``***`` for its password, and for what might be one."""
    if not re.match(r"\W*(unix|sqlite):///", url):
        url = re.sub(r"(?s)^(.*?://|)([^:@/]*:)?.*@", r"\1\2***@", url)
    return re.sub(r"(?is)([?&][^=&]*(?:pass|pwd|secret|token)[^=&]*=)[^&]*", r"\1***", url)


class _Endpoint(Struct, frozen=True):
    def __rich_repr__(self) -> list[tuple[str, Any]]:
        fields = structs.asdict(self).items()
        return [(name, mask_url(v) if isinstance(v, str) else v) for name, v in fields]

    def __repr__(self) -> str:
        return f"{type(self).__name__}({dict(self.__rich_repr__())})"


class RedisSettings(_Endpoint, frozen=True):
    """Where Redis is; no url means the embedded server of the home."""

    url: RedisUrl | None = None
    connect_timeout_s: Seconds = 20


class DatabaseSettings(_Endpoint, frozen=True):
    """Where results are kept; no url means SQLite in the home."""

    url: DatabaseUrl | None = None


_PRIVATE = [
    "127.0.0.0/8", "::1/128", "10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "fc00::/7",
]  # fmt: skip


class ScopeSettings(Struct, frozen=True):
    """What may be touched; deny wins. The default is loopback and the private networks."""

    allow: list[str] = field(default_factory=_PRIVATE.copy)
    deny: list[str] = field(default_factory=list)


class WorkerSettings(Struct, frozen=True):
    """How workers run jobs and when they are given up for lost."""

    heartbeat_s: Beat = 3
    lease_s: Seconds = 5.5  # presence older than this: the worker is lost
    stop_timeout_s: Seconds = 30
    max_jobs_per_horse: Count = 1  # 0: no limit
    memory_limit_bytes: Count = 0  # of a work-horse; 0: no limit
    max_lost: Positive = 3  # deaths of the job's own horse before it is failed as poison
    max_host_losses: Positive = 10  # deaths of worker or host before it is failed
    allow_functions: list[str] = field(default_factory=list)


class JobsSettings(Struct, frozen=True):
    """Where the scan kinds are; no path means the `jobs` folder beside rqscan."""

    path: FilePath | None = None


class QueueSettings(Struct, frozen=True):
    """How the jobs of one queue are run and kept."""

    timeout_s: Positive = 3600  # hard: the work-horse is killed
    soft_timeout_s: Count = 0  # an exception in the job; 0: none
    concurrency: Count = 0  # most jobs of this queue running at once in the fleet; 0: no limit
    retries: Count = 0  # of a failed job
    retry_backoff_s: Seconds = 5  # before the first retry; doubles with each
    retry_backoff_max_s: Seconds = 3600
    result_ttl_s: Count = 3600  # 0 keeps no result in Redis
    failure_ttl_s: Count = 604_800


class SpoolSettings(_Endpoint, frozen=True):
    """How rows are kept on this host while they are not in the store."""

    mode: Literal["direct", "spool_first", "redis_stream"] = "direct"
    redis_url: RedisUrl | None = None  # of this host's own Redis, for the mode redis_stream
    max_bytes: Positive = 1_073_741_824  # from 80 % on workers claim nothing
    max_delay_s: Seconds = 300
    drain_rows_per_s: Count = 0  # 0: no limit
    drain_bytes_per_s: Count = 0  # of rows as the spool has them; 0: no limit


class IdleSettings(Struct, frozen=True):
    """When the network counts as idle, for rows that wait for it in the mode spool_first."""

    interfaces: list[str] = field(default_factory=list)  # empty: the one that leads to the store
    below_bits_per_s: Count = 0  # received and sent, without our own drain; 0: judged by percent
    below_percent: Seconds = 10  # of the link's speed; of 100 Mbit/s if it tells none
    for_s: Seconds = 5  # calm for so long, while no job runs or waits here


class Settings(Struct, frozen=True, kw_only=True):
    """All settings in force; `origin` tells for each dotted key where it came from."""

    home: FilePath
    redis: RedisSettings = RedisSettings()
    database: DatabaseSettings = DatabaseSettings()
    scope: ScopeSettings = ScopeSettings()
    worker: WorkerSettings = WorkerSettings()
    jobs: JobsSettings = JobsSettings()
    spool: SpoolSettings = SpoolSettings()
    idle: IdleSettings = IdleSettings()
    queues: dict[str, QueueSettings] = field(
        default_factory=lambda: {"default": QueueSettings(), "wakaka": QueueSettings()}
    )
    schedule: list[dict[str, Any]] = field(default_factory=list)  # unchecked: entry by entry later
    origin: dict[str, str] = field(default_factory=dict)  # "worker.heartbeat_s": "default"
    path: str | None = None  # of the rqscan.toml that was read
