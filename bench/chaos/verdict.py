"""The account of a run: what became of every job, and how the orphans came back."""

import math
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import redis

from bench.chaos.rows import Rows
from rqscan.broker import keys

__all__ = ["Record", "Report", "Tally", "show"]


SHOWN = 10
"""So many of a kind are printed in full; --json has them all."""


@dataclass(frozen=True)
class Record:
    """What Redis says of one job."""

    status: str
    worker: str
    attempt: str
    results: int
    error: str
    is_in_queue: bool
    is_running: bool

    @property
    def is_open(self) -> bool:
        """Tell whether it still waits or runs."""
        return self.is_in_queue or self.is_running


@dataclass
class Tally:
    """The jobs of one run, each counted once in finished, failed, open or lost."""

    planned: int = 0
    rows: Rows | None = None  # stock RQ has none
    finished: int = 0
    failed: list[str] = field(default_factory=list)  # with their reason: not lost
    open: list[str] = field(default_factory=list)  # waits or runs after the settle time
    lost: list[str] = field(default_factory=list)
    doubled: list[str] = field(default_factory=list)  # an effect recorded twice
    contradicted: list[str] = field(default_factory=list)  # done in the store, failed in Redis
    uncounted: list[str] = field(default_factory=list)  # scans that never end
    attempts: dict[str, int] = field(default_factory=dict)  # jobs by how often they were begun

    def read(
        self, client: redis.Redis, jobs: Sequence[str], queues: Iterable[str], alive: set[str]
    ) -> list[Record]:
        """Read what Redis knows of the jobs; `alive` names the workers that could still run one."""
        waiting: set[bytes] = set()
        running: set[bytes] = set()
        for queue in queues:
            waiting.update(client.lrange(keys.queue(queue), 0, -1))
            wip = client.zrange(keys.registry("wip", queue), 0, -1)
            running.update(pair.rpartition(b":")[0] for pair in wip)
        found = []
        for start in range(0, len(jobs), 500):
            page = jobs[start : start + 500]
            with client.pipeline(transaction=False) as pipe:
                for job in page:
                    pipe.hmget(keys.job(job), "status", "worker_name", "rqscan_attempt")
                    pipe.xrange(keys.results(job))
                answers = pipe.execute()
            for job, fields, results in zip(page, answers[::2], answers[1::2], strict=True):
                status, worker, attempt = ((value or b"").decode() for value in fields)
                good = sum(entry.get(b"type") == b"1" for _, entry in results)
                is_running = job.encode() in running and worker in alive
                found.append(
                    Record(status, worker, attempt, good, "", job.encode() in waiting, is_running)
                )
        return found

    def see(self, about: str, record: Record) -> None:
        """Count what every job has: attempts and results."""
        self.attempts[record.attempt] = self.attempts.get(record.attempt, 0) + 1
        if record.results > 1:
            self.doubled.append(f"{about}: {record.results} results")


@dataclass
class Report:
    """All that a run found."""

    system: str
    seed: int
    minutes: float
    faults: dict[str, int]
    left_out: list[str]
    tally: Tally
    late: list[str]
    exits: list[str]
    stray: list[str]
    recovery: dict[str, list[float]]
    start: dict[str, list[float]]
    folder: str

    @property
    def is_clean(self) -> bool:
        """Tell whether nothing was lost, doubled or late."""
        tally = self.tally
        bad = (tally.lost, tally.open, tally.doubled, tally.uncounted, self.late, self.exits)
        return not any(bad) and (tally.rows is None or tally.rows.is_clean)

    def as_json(self) -> dict[str, Any]:
        times = {"recovery": self.recovery, "start": self.start}
        spans = {name: {c: spread(s) for c, s in of.items()} for name, of in times.items()}
        return asdict(self) | spans | {"is_clean": self.is_clean}


def spread(seconds: list[float]) -> dict[str, float]:
    """Give count, p50, p90, p99 and maximum."""
    values = sorted(seconds)

    def at(share: float) -> float:
        return round(values[min(len(values) - 1, math.ceil(share * len(values)) - 1)], 3)

    return {"n": len(values), "p50": at(0.5), "p90": at(0.9), "p99": at(0.99), "max": at(1)}


def show(reports: list[Report]) -> None:
    """Print the reports as one table, a column each."""
    rows: list[tuple[str, list[Any]]] = [
        ("faults injected", [sum(r.faults.values()) for r in reports]),
        ("jobs planned", [r.tally.planned for r in reports]),
        ("  finished", [r.tally.finished for r in reports]),
        ("  failed, with a reason", [len(r.tally.failed) for r in reports]),
        ("  still open", [len(r.tally.open) for r in reports]),
        ("  LOST", [len(r.tally.lost) for r in reports]),
        ("DOUBLED in effect", [len(r.tally.doubled) for r in reports]),
        ("rows expected", _rows(reports, lambda r: r.expected)),
        ("  stored", _rows(reports, lambda r: r.stored)),
        ("  LOST", _rows(reports, lambda r: r.missing)),
        ("rows DOUBLED", _rows(reports, lambda r: r.doubled)),
        ("rows left in a spool", _rows(reports, lambda r: r.spooled)),
        ("in quarantine", _rows(reports, lambda r: len(r.quarantined))),
        ("chunks that tell other rows", _rows(reports, lambda r: len(r.at_odds))),
        ("orphans LATE", [len(r.late) for r in reports]),
        ("scans that never end", [len(r.tally.uncounted) for r in reports]),
        ("done, but told as failed", [len(r.tally.contradicted) for r in reports]),
        ("ended by themselves", [len(r.exits) for r in reports]),
        ("outlived their worker", [len(r.stray) for r in reports]),
    ]
    print(f"{'':34}" + "".join(f"{r.system:>34}" for r in reports))
    for name, values in rows:
        print(f"{name:34}" + "".join(f"{value:>34}" for value in values))
    for title, times in (
        ("from death to back in the queue, s", [r.recovery for r in reports]),
        ("from back in the queue to start, s", [r.start for r in reports]),
    ):
        print(f"{title:34}" + f"{'n   p50   p90   p99   max':>34}" * len(reports))
        for cause in dict.fromkeys(cause for one in times for cause in one):
            cells = [_cell(one.get(cause)) for one in times]
            print(f"  {cause:32}" + "".join(f"{cell:>34}" for cell in cells))
    for report in reports:
        _show_details(report)


def _rows(reports: list[Report], figure: Callable[[Rows], int]) -> list[int | str]:
    return [figure(r.tally.rows) if r.tally.rows else "-" for r in reports]


def _cell(seconds: list[float] | None) -> str:
    if not seconds:
        return "-"
    s = spread(seconds)
    return f"{s['n']:.0f} {s['p50']:5.2f} {s['p90']:5.2f} {s['p99']:5.2f} {s['max']:5.2f}"


def _show_details(report: Report) -> None:
    tally = report.tally
    print(f"\n{report.system}: seed {report.seed}, faults {report.faults}")
    for reason in report.left_out:
        print(f"  left out: {reason}")
    reasons = Counter(one.partition(": ")[2][:120] for one in tally.failed)
    lists: dict[str, list[str]] = {
        "lost": tally.lost, "open": tally.open, "doubled": tally.doubled, "late": report.late,
        "uncounted": tally.uncounted, "told wrong": tally.contradicted, "ended": report.exits,
        "stray": report.stray, "failed": [f"{n} x {reason}" for reason, n in reasons.items()],
    }  # fmt: skip
    if tally.rows:
        lists |= {"quarantined": tally.rows.quarantined, "at odds": tally.rows.at_odds}
    for name, entries in lists.items():
        for entry in entries[:SHOWN]:
            print(f"  {name}: {entry}")
        if len(entries) > SHOWN:
            print(f"  {name}: … {len(entries) - SHOWN} more")
    verdict = "nothing lost, doubled or late" if report.is_clean else "NOT CLEAN"
    print(f"  verdict: {verdict}" + ("" if report.is_clean else f"; kept {report.folder}"))
