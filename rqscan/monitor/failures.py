"""Failures: the newest failed jobs of each queue, each read once, in groups of the same error."""

import hashlib
import re
import zlib
from collections.abc import Iterable, Mapping
from contextlib import suppress
from datetime import datetime
from functools import lru_cache
from itertools import chain, islice, zip_longest
from typing import Any, NamedTuple

from rqscan.broker import keys
from rqscan.monitor.asking import Answers, Raw, pairs
from rqscan.monitor.figures import read
from rqscan.monitor.records import Failure, Moment

__all__ = [
    "FIELDS", "MAX_TRACEBACK_BYTES", "FailedJob", "FailedJobs", "failed_job", "groups",
    "newest_first",
]  # fmt: skip

FIELDS = ("ended_at", "worker_name", "rqscan_kind", "description", "exc_info")
"""What is read of a failed job: of a plain one the description begins with its function."""

NEWEST = 200
"""Failed jobs of a queue that are read and grouped; `Queue.failed` counts the rest too."""

FEW = 100
"""A queue with no more is listed at each look."""

LATEST = 10
"""So many of a queue with more are listed at each look: its whole list changes rarely."""

TURN = 15
"""Looks after which the whole list of a queue is read in any case."""

MOST_NEW = 1000
"""Jobs that are read in one look; the others have their turn."""

MAX_TRACEBACK_BYTES = 1_000_000
MAX_UNPACKED_BYTES = 16_000_000
"""Of all tracebacks of one look together; a job beyond it is read at the next one."""

FOLDS = {
    r"\b\d+(\.\d+){3}\b|\b[0-9a-fA-F]{1,4}(:[0-9a-fA-F]{0,4}){2,7}": "<ip>",
    r"\b(0x[0-9a-fA-F]+|(?=[a-f]*\d)[0-9a-f]{8,})\b": "<hex>",
    r"\d+": "<n>",
}

FUNCTION = re.compile(r"([A-Za-z_][\w.]*)\(")


class FailedJob(NamedTuple):
    """What is kept of a failed job."""

    ended_at: datetime | None
    worker: str
    error: str
    kind: str


def failed_job(answer: Any) -> tuple[FailedJob, int]:
    """Give a failed job by the values of `FIELDS`, and how many bytes were unpacked for it.

    Args:
        answer: None if its key holds something else.
    """
    ended, worker, kind, description, packed = answer or (None,) * len(FIELDS)
    function = None if kind else FUNCTION.match(_text(description))
    error, size = _last_line(packed or b"")
    job = FailedJob(
        ended_at=read(Moment, _text(ended)),
        worker=_text(worker),
        error=fold(error),
        kind=function[1] if function else _text(kind),
    )
    return job, size


def groups(queue: str, jobs: Mapping[str, FailedJob]) -> list[Failure]:
    """Group a queue's failed jobs, the newest first."""
    found: dict[str, list[tuple[str, FailedJob]]] = {}
    for job_id, job in jobs.items():
        found.setdefault(job.error, []).append((job_id, job))
    return [
        Failure(
            group=hashlib.blake2s(f"{queue}\n{error}".encode(), digest_size=4).hexdigest(),
            error=error,
            count=len(members),
            last_at=members[0][1].ended_at,
            queue=queue,
            workers=sorted({job.worker for _, job in members if job.worker}),
            jobs=[job_id for job_id, _ in members],
            kinds=sorted({job.kind for _, job in members if job.kind}),
        )
        for error, members in found.items()
    ]


def newest_first(found: Iterable[Failure]) -> list[Failure]:
    """Put groups in the order of their newest jobs."""
    return sorted(found, key=lambda group: str(group.last_at or ""), reverse=True)


@lru_cache(4096)
def fold(error: str) -> str:
    """Give an error with numbers and addresses folded."""
    for pattern, word in FOLDS.items():
        error = re.sub(pattern, word, error)
    return error


def _last_line(traceback: bytes) -> tuple[str, int]:
    """Give the last line of a traceback, and the length of the whole."""
    with suppress(zlib.error):  # RQ reads plain ones too
        unpacking = zlib.decompressobj()
        traceback = unpacking.decompress(traceback, MAX_TRACEBACK_BYTES)
        if unpacking.unconsumed_tail:
            return "(its traceback is too long to be read)", len(traceback)
    line = traceback.rstrip().rpartition(b"\n")[2][:4096]
    return (_text(line).strip().splitlines() or ["(no error was kept)"])[-1][:300], len(traceback)


def _text(raw: bytes | None) -> str:
    return (raw or b"").decode(errors="replace")


class _Queue:
    """What is known of one queue's failed jobs."""

    def __init__(self) -> None:
        self.is_due = True  # to be listed whole
        self.age = 0  # looks since it was
        self.count: int | None = None
        self.scores: dict[str, str] = {}  # of the newest, as Redis tells them
        self.read: dict[str, tuple[str, FailedJob]] = {}
        self.unread: list[str] = []
        self.groups: list[Failure] | None = None

    @property
    def is_listed_whole(self) -> bool:
        return self.is_due or len(self.scores) <= FEW

    def list(self, newest: dict[str, str]) -> None:
        """Take the newest by name, with their scores: a job that fails again has another."""
        if not self.is_listed_whole and len(newest) == LATEST:
            if list(newest.items()) == list(islice(self.scores.items(), LATEST)):
                return
            older = {name: at for name, at in self.scores.items() if name not in newest}
            newest = dict(islice((newest | older).items(), NEWEST))
        if list(newest.items()) == list(self.scores.items()):
            return
        self.scores, self.groups = newest, None
        self.read = {n: one for n, one in self.read.items() if newest.get(n) == one[0]}
        self.unread = [name for name in newest if name not in self.read]

    def end_look(self, count: int | None) -> None:
        """See by how many there are whether the list has changed."""
        self.age = 0 if self.is_listed_whole else self.age + 1
        self.is_due = count != self.count or self.age >= TURN
        self.count = count


class FailedJobs:
    """The newest failed jobs of all queues, as far as they were read.

    Args:
        most: jobs that are read in one look; None: all that are new.
    """

    def __init__(self, most: int | None = MOST_NEW) -> None:
        self._most = most
        self._queues: dict[str, _Queue] = {}

    def lists(self, names: Iterable[str]) -> Answers:
        """Ask for the newest of each queue."""
        self._queues = {name: self._queues.get(name) or _Queue() for name in names}
        return {
            name: (
                "ZRANGE", keys.registry("failed", name), 0,
                (NEWEST if one.is_listed_whole else LATEST) - 1, "REV", "WITHSCORES",
            )
            for name, one in self._queues.items()
        }  # fmt: skip

    def questions(self, told: Answers) -> Answers:
        """Take the lists; ask for the jobs in them that are new, each queue in its turn."""
        for name, flat in told.items():
            self._queues[name].list(pairs(flat))
        turns = zip_longest(
            *([(name, job) for job in one.unread] for name, one in self._queues.items())
        )
        chosen = islice((one for one in chain.from_iterable(turns) if one), self._most)
        return {(name, job): Raw(("HMGET", keys.job(job), *FIELDS)) for name, job in chosen}  # type: ignore[misc]

    def take(self, told: Mapping[Any, Any], counts: Mapping[str, int | None]) -> None:
        """Take the jobs, and how many there are of each queue."""
        room = MAX_UNPACKED_BYTES
        for (name, job), answer in told.items():
            if room <= 0 and self._most is not None:
                break
            one = self._queues[name]
            found, size = failed_job(answer)
            one.read[job] = one.scores[job], found
            one.groups = None
            room -= size
        for name, one in self._queues.items():
            if one.unread:
                one.unread = [job for job in one.unread if job not in one.read]
            one.end_look(counts.get(name))

    def groups(self) -> list[Failure]:
        """Give the groups of all that was read, the one with the newest job first."""
        for name, one in self._queues.items():
            if one.groups is None:
                one.groups = groups(
                    name, {job: one.read[job][1] for job in one.scores if job in one.read}
                )
        return newest_first(chain.from_iterable(one.groups or () for one in self._queues.values()))
