"""A scan's chunks as Redis has them: the states of their jobs, and the counts of their ends."""

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any, NamedTuple, Protocol

from redis import Redis

from rqscan.batches import batches
from rqscan.broker import keys, scripts
from rqscan.broker.payload import PROTOCOL, job_id
from rqscan.clock import iso
from rqscan.model import Scan

__all__ = [
    "JobState",
    "Place",
    "begin",
    "cancel",
    "count_ended",
    "forget",
    "job_states",
    "purge",
    "take_fleet",
]

BATCH = 200
"""Chunks a script: a few milliseconds of the server."""

STRETCH = 2_000
"""Ids of a queue that one script looks at when a scan's are cleared away."""

STOPPED_TTL_S = 3600
"""How long the hash of a job that is stopped stays, so that RQ's tools can tell what it was."""


class Numbered(Protocol):
    """A chunk's place in the plan."""

    @property
    def number(self) -> int: ...
    @property
    def generation(self) -> int: ...


class Place(NamedTuple):
    """Only the place of a chunk in the plan."""

    number: int
    generation: int


class JobState(NamedTuple):
    """What Redis knows of a chunk."""

    status: str | None  # RQ's word for its job; None: no such job
    is_counted: bool  # its end is counted in the progress

    @property
    def is_live(self) -> bool:
        """Tell whether the job waits or runs, or will."""
        return self.status not in {None, "finished", "failed", "stopped", "canceled"}


def take_fleet(client: Redis, store_id: str, *, by_force: bool) -> str | None:
    """Say which store the fleet's plan is in; where another one stands only `by_force`.

    Returns:
        The id of the other store that stands there, or stood there.
    """
    with client.pipeline() as pipeline:
        pipeline.hget(keys.STORE, "store_id")
        put = pipeline.hset if by_force else pipeline.hsetnx
        for name, value in (("store_id", store_id), ("protocol", str(PROTOCOL))):
            put(keys.STORE, name, value)
        former = (pipeline.execute()[0] or b"").decode(errors="replace")
    return former if former not in {"", store_id} else None


def begin(
    client: Redis, scan: Scan, *, anew: bool = False, started_at: datetime | None = None
) -> None:
    """Open a scan's progress where there is none, or `anew`."""
    progress = keys.progress(scan.scan_id)
    with client.pipeline() as pipeline:
        if anew:
            pipeline.delete(progress, keys.ended(scan.scan_id))
            pipeline.persist(keys.generations(scan.scan_id))
        pipeline.hsetnx(progress, "total", str(scan.chunks))
        if started_at:
            pipeline.hsetnx(progress, "started_at", iso(started_at))
        pipeline.zadd(keys.SCANS, {scan.scan_id: scan.requested_at.timestamp()}, nx=True)
        pipeline.execute()


def job_states(client: Redis, scan_id: str, chunks: Iterable[Numbered]) -> list[JobState]:
    """Tell what Redis knows of each chunk, in their order."""
    found: list[Any] = []
    for batch in batches(chunks, BATCH):
        flat = [part for chunk in batch for part in (chunk.number, chunk.generation)]
        found += _run(client, scripts.KNOWN, [], scan_id, *flat)
    return [
        JobState(None if status is None else status.decode(errors="replace"), bool(bit))
        for status, bit in zip(found[::2], found[1::2], strict=True)
    ]


def count_ended(client: Redis, scan_id: str, ended: Iterable[tuple[int, str, int, int]]) -> None:
    """Count ends by the store's word: number, how (done, failed), observations and probes."""
    for batch in batches(ended, BATCH):
        flat = [part for chunk in batch for part in chunk]
        _run(client, scripts.COUNT, [], scan_id, *flat)


def cancel(client: Redis, scan: Scan, chunks: Iterable[Numbered]) -> tuple[int, int]:
    """Take the jobs of cancelled chunks away and have those that run stopped.

    Returns:
        How many of the chunks were not running, and how many were, of those that had not ended.
    """
    waiting = running = 0
    for batch in batches(chunks, BATCH):
        flat = [part for chunk in batch for part in (chunk.number, chunk.generation)]
        args = (scan.scan_id, scan.queue, STOPPED_TTL_S, *flat)
        counts = _run(client, scripts.CANCEL, [], *args)
        waiting, running = waiting + counts[0], running + counts[1]
    return waiting, running


def purge(client: Redis, scan: Scan) -> None:
    """Clear the queue of the ids of a scan's jobs that are gone, stretch by stretch."""
    looked, passed = STRETCH, 0
    while looked == STRETCH:
        own = [keys.queue(scan.queue)]
        looked, removed = _run(client, scripts.PURGE, own, scan.scan_id, passed, STRETCH)
        passed += looked - removed


def forget(client: Redis, scan: Scan, chunks: Sequence[Numbered]) -> None:
    """Drop the jobs of chunks that are to be done again under a new generation."""
    with client.pipeline(transaction=False) as pipeline:
        for chunk in chunks:
            name = job_id(scan.scan_id, chunk.number, chunk.generation)
            pipeline.zrem(keys.registry("failed", scan.queue), name)
            pipeline.delete(keys.job(name), keys.results(name))
        pipeline.execute()


def _run(client: Redis, script: scripts.Script, own: list[str], *args: Any) -> Any:
    with client.pipeline(transaction=False) as pipeline:
        pipeline.script_load(script.text)  # a server that began anew has lost it
        pipeline.evalsha(script.sha, len(own), *own, *args)
        return pipeline.execute()[1]
