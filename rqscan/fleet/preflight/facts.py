"""Facts: what is known of Redis, the store, the workers and this host when it is to be judged."""

from msgspec import Struct

from rqscan.fleet.schedulers import Scheduler

__all__ = ["Facts", "HostFacts", "RedisFacts", "SpoolFacts", "StoreFacts", "WorkerFacts"]


class RedisFacts(Struct, frozen=True, kw_only=True):
    """What Redis says of itself; None is what it would not tell."""

    where: str
    error: str | None = None  # why it can't be used
    refused: str | None = None  # why some figures are missing
    version: str | None = None
    role: str | None = None
    appendonly: str | None = None
    appendfsync: str | None = None
    policy: str | None = None
    used_bytes: int | None = None
    most_bytes: int | None = None
    write_error: str | None = None  # its disk failed: it takes no writes


class StoreFacts(Struct, frozen=True, kw_only=True):
    """What the database says."""

    error: str | None = None
    version: int = 0
    pending: list[str] = []
    store_id: str = ""


class SpoolFacts(Struct, frozen=True, kw_only=True):
    """What this home keeps for the store, and the Redis of its stream if it has one."""

    error: str | None = None
    rows: int = 0
    share: float = 0.0  # of what it may hold
    late_s: float = 0.0  # beyond spool.max_delay_s
    quarantined: int = 0
    stream: RedisFacts | None = None


class WorkerFacts(Struct, frozen=True, kw_only=True):
    """A registered worker, and whether it has just answered."""

    name: str
    answered: bool
    is_lost: bool
    age_s: float
    host: str | None = None
    versions: dict[str, str] = {}
    clock_offset_s: float | None = None
    mismatch: str = ""
    queues: list[str] = []


class HostFacts(Struct, frozen=True, kw_only=True):
    """This host and its home."""

    name: str
    clock_offset_s: float | None
    home: str
    home_error: str | None
    free_bytes: int
    wanted_bytes: int  # what the spool may grow to
    is_root: bool


class Facts(Struct, frozen=True, kw_only=True):
    """All that is judged."""

    redis: RedisFacts
    store: StoreFacts
    host: HostFacts
    spool: SpoolFacts = SpoolFacts()
    workers: list[WorkerFacts] = []
    waiting: dict[str, int] = {}  # jobs by queue
    paused: list[str] = []
    entries: int = 0  # of the schedule that are to start
    leader: str | None = None
    schedulers: list[Scheduler] = []  # that live
    invalid: dict[str, str] = {}  # entries that never run, and why
    fleet_store: str = ""  # store id that those who enqueue wrote; empty: nobody has
