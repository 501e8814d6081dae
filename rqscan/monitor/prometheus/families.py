"""Families: a snapshot as Prometheus names and labels things; whose library is not needed for it.

Base units, `_seconds`, `_bytes`, and labels that are few: workers, hosts, queues, entries, scans.
No job's id is a label, since each would be a series for ever. A figure that is None is left out.
"""

from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Literal

from msgspec import Struct

from rqscan import __version__
from rqscan.monitor.prometheus import gauges
from rqscan.monitor.prometheus.gauges import Figure
from rqscan.monitor.records import Queue, Snapshot, Trouble, Worker
from rqscan.monitor.trouble import overdue_s
from rqscan.states import WorkerState

__all__ = ["MAX_SCANS", "Family", "families", "redis_up"]

MAX_SCANS = 100
"""Scans with series of their own: those that were asked for first."""

PACKAGES = ("rqscan", "rq", "redis", "python")

Labels = tuple[str, ...]


class Family(Struct, frozen=True):
    """A metric: its text, the names of its labels, and its figures by their values."""

    name: str  # without the suffix of its type
    text: str
    labels: Labels
    figures: dict[Labels, float]
    type: Literal["gauge", "counter", "info"] = "gauge"


def redis_up(*, is_up: bool) -> Family:
    """Give the one family that is true while Redis is away, too."""
    return _one(
        "redis_up", "Whether Redis answers; if not, all that it would tell is absent.", is_up
    )


def families(shot: Snapshot) -> Iterator[Family]:
    """Give all of a snapshot."""
    yield _one("snapshot_timestamp_seconds", "When Redis was read, by its own clock.",
               shot.at.timestamp())  # fmt: skip
    yield _make("build", "The version that tells this.", ["version"], [((__version__,), 1)], "info")
    about = (shot.redis.version or "", shot.redis.eviction or "")
    text = "Redis' version, and what it evicts when its memory is full."
    yield _make("redis", text, ["version", "eviction"], [(about, 1)], "info")
    for name, text, get in gauges.REDIS:
        yield _one(f"redis_{name}", text, get(shot.redis))
    yield from _of_queues(shot.queues)
    yield from _of_workers(shot.workers)
    yield from _of_schedules(shot)
    yield from _of_scans(shot)
    for name, text in gauges.COUNTERS.items():
        yield _make(f"jobs_{name}", text, [], [((), shot.counters.get(name))], "counter")
    yield from _of_trouble(shot)


def _of_queues(queues: list[Queue]) -> Iterator[Family]:
    jobs = [((one.name, state), get(one)) for one in queues for state, get in gauges.JOBS.items()]
    text = "Jobs of the queue by state; those that finished are not counted."
    yield _make("queue_jobs", text, ["queue", "state"], jobs)
    for name, text, get in gauges.QUEUES:
        yield _make(f"queue_{name}", text, ["queue"], [((one.name,), get(one)) for one in queues])


def _of_workers(workers: list[Worker]) -> Iterator[Family]:
    names = {one.name: (one.name, one.host or "") for one in workers}
    labels = ["worker", "host"]
    living = [one for one in workers if one.state != WorkerState.LOST]
    counts = dict.fromkeys(WorkerState, 0) | Counter(one.state for one in workers)
    text = "Workers by state; one that is lost stays listed for an hour."
    yield _make("workers", text, ["state"], [((state,), n) for state, n in counts.items()])
    states = [((*names[one.name], one.state), 1) for one in workers]
    yield _make("worker_state", "1 for the state that a worker has.", [*labels, "state"], states)
    versions = [
        ((*names[one.name], *(one.versions.get(package, "") for package in PACKAGES)), 1)
        for one in workers
    ]
    about = [*labels, *(f"{package}_version" for package in PACKAGES)]
    yield _make("worker", "Versions on a worker's host.", about, versions, "info")
    for table, told in ((gauges.WORKERS, workers), (gauges.LIVING, living)):
        for name, text, get in table:
            found = [(names[one.name], get(one)) for one in told]
            yield _make(f"worker_{name}", text, labels, found)
    for name, text, get in gauges.TOTALS:
        found = [(names[one.name], get(one)) for one in workers]
        yield _make(f"worker_{name}", text, labels, found, "counter")
    kinds = Counter(job.kind for one in workers for job in one.jobs)
    text = "Jobs that workers run, or held when they were lost, by scan kind."
    yield _make("jobs_running", text, ["kind"], [((kind,), n) for kind, n in kinds.items()])
    # Workers of one home tell of the same spool: the newest beat counts.
    beats = sorted(workers, key=lambda one: -one.heartbeat_age_s)
    spools = {(one.host or "", one.spool.home): one.spool for one in beats if one.spool}
    for name, text, tell in gauges.SPOOLS:
        found = [(home, tell(spool)) for home, spool in spools.items()]
        yield _make(f"spool_{name}", text, ["host", "home"], found)


def _of_schedules(shot: Snapshot) -> Iterator[Family]:
    entries = shot.schedules
    for name, text, get in gauges.SCHEDULES:
        found = [((one.name,), get(one)) for one in entries]
        yield _make(f"schedule_{name}", text, ["schedule"], found)
    late = [((one.name,), overdue_s(one, shot) or 0) for one in entries]
    text = "For how long the entry should have been fired; 0 if it is not overdue."
    yield _make("schedule_overdue_seconds", text, ["schedule"], late)
    states = [((one.name, one.state), 1) for one in entries if one.state]
    text = "1 for the state that an entry has."
    yield _make("schedule_state", text, ["schedule", "state"], states)
    counts = {
        "schedule_entries": ("Entries of the schedule.", shot.entries.count),
        "schedule_planned_entries": ("Entries that will fall due.", shot.entries.planned),
        "schedule_overdue_entries": ("Entries that should have been fired.", shot.entries.overdue),
        "schedule_unmade_runs": ("Runs that were fired and are not made yet.", shot.entries.runs),
        "schedule_has_leader": ("Whether a scheduler leads.", bool(shot.leader)),
        "schedulers": ("Schedulers that live.", len(shot.schedulers)),
    }
    for name, (text, count) in counts.items():
        yield _one(name, text, count)
    labels = ["scheduler", "host"]
    leads = [((one.name, one.host), one.name == shot.leader) for one in shot.schedulers]
    yield _make("scheduler_leads", "Whether the scheduler is the one that leads.", labels, leads)
    ages = [((o.name, o.host), max(0, (shot.at - o.at).total_seconds())) for o in shot.schedulers]
    yield _make("scheduler_seen_age_seconds", "Time since the scheduler was seen.", labels, ages)


def _of_scans(shot: Snapshot) -> Iterator[Family]:
    counts = Counter(one.state for one in shot.scans)
    text = "Scans that have not ended, by state."
    yield _make("scans", text, ["state"], [((state,), n) for state, n in counts.items()])
    scans = shot.scans[:MAX_SCANS]
    chunks = [
        ((one.scan_id, state), get(one.chunks))
        for one in scans
        for state, get in gauges.CHUNKS.items()
    ]
    yield _make("scan_chunks", "Chunks of a scan by state.", ["scan", "state"], chunks)
    left = [((one.scan_id,), one.eta_s) for one in scans]
    text = "Time until the scan ends if it goes on as fast as until now."
    yield _make("scan_eta_seconds", text, ["scan"], left)


def _of_trouble(shot: Snapshot) -> Iterator[Family]:
    holders = {job.id: one.name for one in shot.workers for job in one.jobs}
    holders |= {job: one.queue for one in shot.failed for job in one.jobs}

    def place(one: Trouble) -> Labels:  # a job is told as who has it
        return one.what, holders.get(one.object, one.object), one.level

    counts = Counter((one.what, one.level) for one in shot.trouble)
    text = "How many things are wrong, by what it is; a note only explains a wait."
    yield _make("troubles", text, ["what", "level"], counts.items())
    text = "1 for each thing that is wrong, and with what; `rqscan top` tells the cause."
    found = [(place(one), 1) for one in shot.trouble]
    yield _make("trouble", text, ["what", "object", "level"], found)


def _one(name: str, text: str, figure: Figure) -> Family:
    return _make(name, text, [], [((), figure)])


def _make(
    name: str,
    text: str,
    labels: Iterable[str],
    found: Iterable[tuple[Labels, Figure]],
    type_: Literal["gauge", "counter", "info"] = "gauge",
) -> Family:
    """Make a family; of figures with the same labels, which Prometheus would refuse, the last."""
    figures = {key: float(figure) for key, figure in found if figure is not None}
    return Family(f"rqscan_{name}", text, tuple(labels), figures, type_)
