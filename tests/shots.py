"""Snapshots for tests of the screen: a fleet in which much is wrong, the same each time."""

from datetime import UTC, datetime, timedelta

from msgspec import structs

from rqscan.fleet.reports import JobReport, SpoolReport
from rqscan.fleet.schedulers import Scheduler
from rqscan.model import Counts
from rqscan.monitor import trouble
from rqscan.monitor.records import (
    Entries,
    Failure,
    Queue,
    Schedule,
    Server,
    Snapshot,
    Task,
    Worker,
)
from rqscan.tally import Idleness

__all__ = ["AT", "queue", "troubled", "worker"]

AT = datetime(2026, 12, 1, 14, 3, 7, tzinfo=UTC)
IDLE = "waiting for idle: 34 Mbit/s on eth0, 10 allowed; forced in 12 min"

CAUSES = {
    "TimeoutError: connect to <ip>": 31, "CertificateError: <ip> has expired": 20,
    "ConnectionResetError: by <ip>:<n>": 14, "FailedError: killed by signal <n>": 9,
    "ValueError: answer of <n> bytes": 7, "OSError: no route to <ip>": 4, "KeyError: 'banner'": 2,
}  # fmt: skip


def queue(name, depth, **fields) -> Queue:
    return structs.replace(
        Queue(name=name, depth=depth, oldest_s=331, running=96, in_per_s=40.1, out_per_s=37,
              failed=61, failed_1h=9, paused=False, workers=120),
        **fields,
    )  # fmt: skip


def worker(name, host, state="idle", jobs=0, **fields) -> Worker:
    runs = [
        JobReport(id=f"nightly-{name}-{n}", kind="ports", age_s=31 + n, limit_s=600, progress=0.4)
        for n in range(jobs)
    ]
    oldest = runs[-1] if runs else None
    return structs.replace(
        Worker(name=name, host=host, pid=100, concurrency=2, state=state, heartbeat_age_s=1.5,
               is_connected=True, queues=["scan.fast"], jobs=runs, job=oldest and oldest.id,
               job_age_s=oldest and oldest.age_s, clock_offset_s=0.0, rss_bytes=90 << 20,
               versions={"rqscan": "0.1.0", "rq": "3.0.0"}, done=1402, failed=3),
        **fields,
    )  # fmt: skip


def troubled() -> Snapshot:
    spool = SpoolReport(rows=1200, bytes=400_000, oldest_s=40,
                        idle=Idleness(is_idle=False, reason=IDLE.partition(": ")[2]))  # fmt: skip
    workers = [
        *(worker(f"web01.{n}", "web01", "busy", jobs=2) for n in range(1, 5)),
        *(worker(f"web02.{n}", "web02") for n in range(1, 3)),
        *(worker(f"db02.{n}", "db02", "lost", jobs=1, heartbeat_age_s=252, is_connected=False)
          for n in (1, 2)),
        worker("web03.1", "web03", "stale", jobs=1, heartbeat_age_s=12),
        worker("web07.1", "web07", "busy", jobs=1, clock_offset_s=-92.0),
        worker("old.1", "old", "mismatched", versions={"rqscan": "0.0.9", "rq": "3.0.0"},
               spool_rows=1200, spool=spool),
    ]  # fmt: skip
    failed = [
        Failure(group=f"{n:08x}", error=error, count=count, last_at=AT - timedelta(seconds=12 * n),
                queue="scan.fast", workers=["web01.1"], kinds=["ports"],
                jobs=[f"nightly-{n}-{i}" for i in range(count)])
        for n, (error, count) in enumerate(CAUSES.items(), 1)
    ]  # fmt: skip
    schedules = [
        Schedule(name="nightly", next_at=AT + timedelta(minutes=12), state="scheduled",
                 last_at=AT - timedelta(hours=23), lateness_s=0.0312, outcome="fired"),
        Schedule(name="sync", next_at=AT, state="waiting", reason=IDLE, outcome="waiting"),
        Schedule(name="weekly", state="invalid", reason="no zone 'Mars/Base'"),
    ]  # fmt: skip
    rising = list(range(0, 12_000, 400))
    shot = Snapshot(
        at=AT,
        redis=Server(up=True, version="7.2.4", rtt_ms=0.8, memory_bytes=184 << 20, clients=412),
        queues=[
            queue("scan.fast", 12_102, depths=rising, failures=[0] * 25 + [1, 9, 30, 20, 27]),
            queue("scan.deep", 329, workers=0, in_per_s=5.0, out_per_s=0.0, depths=rising),
            queue("report", 0, running=0, failed=0, failed_1h=0, oldest_s=None, paused=True),
        ],
        workers=workers,
        failed=failed,
        schedules=schedules,
        scans=[Task(scan_id="nightly-20261201T020000Z", state="running",
                    chunks=Counts(40, 9, 1), eta_s=90, progress=0.25)],
        leader="db01.7",
        counters={"rescued": 2, "lost": 1, "refused": 0, "fenced": 0},
        entries=Entries(count=3, planned=2, runs=1),
        schedulers=[Scheduler(name="db01.7", host="db01", pid=7, entries="ab", at=AT)],
    )  # fmt: skip
    return structs.replace(shot, trouble=list(trouble.find(shot, 1 << 30)))
