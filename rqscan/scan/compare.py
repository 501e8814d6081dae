"""Compare the plan with Redis: what is unfinished and has no job there is enqueued, once.

The plan in the store is the truth. Redis may have come back empty, or without its last second; a
scan may have been planned while it was away, or its submitter have died. Any number of comparers
may be at work: a lost chunk's generation is raised where it still is what they saw, its job is put
under a name with that generation, and a job's name is taken once.
"""

import secrets
import zlib
from collections import defaultdict
from contextlib import suppress
from datetime import timedelta
from typing import Any, NamedTuple

import redis

from rqscan import clock
from rqscan.broker import chunks as jobs
from rqscan.broker import keys
from rqscan.broker.connect import outage
from rqscan.broker.payload import job_id
from rqscan.broker.queues import ScanQueue
from rqscan.errors import FailedError, UsageError
from rqscan.model import ChunkRecord, Scan
from rqscan.probe.order import Permutation
from rqscan.scan.plan import plan_of, queue_settings
from rqscan.settings import Settings
from rqscan.states import ChunkState
from rqscan.store.chunks import Chunks, PlannedChunk
from rqscan.store.database import Database
from rqscan.store.migrate import open_current
from rqscan.store.repository import Repository

__all__ = ["Compared", "Comparison", "compare"]

LOOK_MS = 60_000
"""How long no other looks at the plan of a store; beat.lua has the same."""

ENDED = {"failed", "stopped", "canceled"}
"""RQ's words for jobs that run no more, where the store may not know it; one that has finished was
recorded before Redis was told."""


class Compared(NamedTuple):
    """What a comparison looked at, and what it did."""

    scans: int
    enqueued: int  # jobs that were put
    former_store: str | None = None  # id of another store that Redis knew as the fleet's


def compare(
    settings: Settings,
    client: redis.Redis,
    *,
    scan_id: str | None = None,
    unenqueued_for_s: float | None = None,
    by_force: bool = True,
) -> Compared:
    """Compare one scan, or all that have not ended, with Redis.

    After all of them `keys.MARKER` holds the server's run id for this store, if that server was
    neither replaced nor flushed meanwhile.

    Args:
        settings: say where the store is, and how the queues' jobs are kept.
        client: of the Redis to compare with.
        scan_id: the one scan.
        unenqueued_for_s: only scans that were asked for so long ago and never wholly enqueued, and
            those that have ended in the store or by Redis' count, and not in both.
        by_force: make this store the fleet's also where another one is; a person may.

    Raises:
        UsageError: there is no such scan.
        FailedError: another store is the fleet's.
        StoreUnavailable, RedisUnavailable: away; comparing again goes on.
    """
    with open_current(settings) as database, outage():
        comparison = Comparison(settings, client, database, by_force=by_force)
        if scan_id is not None:
            comparison.look_at(scan_id)
        elif unenqueued_for_s is not None:
            asked_before = clock.now() - timedelta(seconds=unenqueued_for_s)
            for name in comparison.chunks.unenqueued_scans(asked_before):
                comparison.look_at(name)
            _look_at_half_ended(comparison, client)
        else:
            _compare_all(comparison, client)
        return comparison.result


def _compare_all(comparison: "Comparison", client: Any) -> None:
    run_id = client.info("server").get("run_id", "")
    token = f"comparing {secrets.token_hex(8)}"
    client.hset(keys.MARKER, comparison.store_id, token)
    comparison.is_alone = True
    unfinished = comparison.chunks.unfinished_scans()
    for scan_id in unfinished:
        comparison.look_at(scan_id)
    _look_at_counting(comparison, client, unfinished)
    with client.pipeline() as pipeline, suppress(redis.WatchError):
        pipeline.watch(keys.MARKER)
        # Else the server was begun anew or flushed, or another one compares and marks.
        if pipeline.hget(keys.MARKER, comparison.store_id) == token.encode():
            pipeline.multi()
            pipeline.hset(keys.MARKER, comparison.store_id, run_id)
            pipeline.execute()


def _look_at_half_ended(comparison: "Comparison", client: Any) -> None:
    """Look at the scans that have ended in Redis or in the store only.

    Who should have told the store died; or Redis could not be told that they are cancelled.
    """
    unfinished = comparison.chunks.unfinished_scans()
    with client.pipeline(transaction=False) as pipeline:
        for scan_id in unfinished:
            pipeline.hexists(keys.progress(scan_id), "finished_at")
        found = pipeline.execute()
    for scan_id, has_ended in zip(unfinished, found, strict=True):
        if has_ended:
            comparison.look_at(scan_id)
    _look_at_counting(comparison, client, unfinished)


def _look_at_counting(comparison: "Comparison", client: Any, unfinished: list[str]) -> None:
    """Look at the scans that Redis counts on, but for the `unfinished` ones of the store."""
    counting = {name.decode(errors="replace") for name in client.zrange(keys.SCANS, 0, -1)}
    # The newest first: what waits is taken away before the end of what runs makes room for it.
    for scan_id in sorted(counting.difference(unfinished), reverse=True):
        with suppress(UsageError):  # of another store
            comparison.look_at(scan_id)


class Comparison:
    """One comparison at work; `result` tells what it has done so far.

    While it `is_alone`, no worker of this store is told to compare as well.
    """

    is_alone = False

    def __init__(
        self,
        settings: Settings,
        client: redis.Redis,
        database: Database,
        *,
        by_force: bool = True,
    ) -> None:
        self._settings, self._by_force = settings, by_force
        self._client: Any = client  # redis-py's answers have no one type
        self._repository = Repository(database)
        self.store_id = self._repository.store_id()
        self.chunks = Chunks(database)
        self.result = Compared(0, 0)

    def look_at(self, scan_id: str, *, anew: bool = False) -> None:
        """Bring Redis in line with the plan of one scan; `anew` counts its progress again.

        Raises:
            UsageError: there is no such scan.
        """
        scan = self._repository.scan(scan_id)
        stored = self._repository.progress(scan_id)
        names = ("total", "finished_at", "started_at")
        total, finished_at, started_at = self._client.hmget(keys.progress(scan_id), *names)
        if stored.is_ended and (finished_at or not total):
            return
        self._take_fleet()
        anew = anew or not total
        if anew or not finished_at:  # else all is counted, and the store is yet to be told
            since = clock.from_iso(started_at.decode()) if started_at else stored.started_at
            jobs.begin(self._client, scan, anew=anew, started_at=since)
        if not self._reconcile(scan, anew=anew) and not anew:
            self.look_at(scan_id, anew=True)
            return
        put = self._enqueue(scan)
        self.result = self.result._replace(
            scans=self.result.scans + 1, enqueued=self.result.enqueued + put
        )

    def _take_fleet(self) -> None:
        former = jobs.take_fleet(self._client, self.store_id, by_force=self._by_force)
        if former and not self._by_force:
            raise FailedError(
                f"the fleet's store is {former}, and this host's database has {self.store_id}: "
                "nothing of its plan is enqueued",
                advice="check database.url (RQSCAN_DATABASE_URL); rqscan resume takes the fleet",
            )
        self.result = self.result._replace(former_store=self.result.former_store or former)

    def _keep_alone(self) -> None:
        if self.is_alone:
            self._client.set(keys.look(self.store_id), "", px=LOOK_MS)

    def _reconcile(self, scan: Scan, *, anew: bool) -> bool:
        """Make plan and Redis agree on what has ended, and plan anew what Redis has lost.

        Returns:
            Whether the progress can be right; False: it is to be counted anew.
        """
        is_purge_due = False
        for page in self.chunks.pages(scan.scan_id):
            self._keep_alone()
            fates = defaultdict(list)
            for chunk, job in zip(page, self._ask(scan, page), strict=True):
                is_over = job.status in ENDED or (
                    job.status is None and job.is_counted and chunk.is_enqueued and not anew
                )
                is_unrecorded = chunk.state == ChunkState.PLANNED and is_over
                known = self._recorded(scan, chunk) if is_unrecorded else chunk
                fates[_fate(known, job)].append(known)
            if fates["uncounted"]:
                return False
            self.chunks.raise_generation(scan.scan_id, fates["lost"])
            jobs.count_ended(self._client, scan.scan_id, map(_end, fates["ended"]))
            jobs.cancel(self._client, scan, fates["cancelled"])
            is_purge_due |= bool(fates["cancelled"])
        if is_purge_due:
            jobs.purge(self._client, scan)
        return True

    def _ask(self, scan: Scan, page: list[PlannedChunk]) -> list[jobs.JobState]:
        return jobs.job_states(self._client, scan.scan_id, page)

    def _recorded(self, scan: Scan, chunk: PlannedChunk) -> PlannedChunk:
        """Record what ended in Redis and not in the store: its worker died before it could."""
        names = ("status", "rqscan_attempt", "worker_name", "exc_info", "started_at", "ended_at")
        key = keys.job(job_id(scan.scan_id, chunk.number, chunk.generation))
        status, attempt, worker, trace, *times = self._client.hmget(key, *names)
        state = ChunkState.CANCELLED if status == b"canceled" else ChunkState.FAILED
        began, ended = (clock.from_iso(at.decode()) if at else clock.now() for at in times)
        record = ChunkRecord(
            scan_id=scan.scan_id, chunk=chunk.number, generation=chunk.generation,
            attempt=max(chunk.attempt, int(attempt) if (attempt or b"").isdigit() else 0),
            kind="", state=state,
            worker=(worker or b"").decode(errors="replace"), started_at=began, finished_at=ended,
            error=_last_line(trace or b""),
        )  # fmt: skip
        is_taken = self._repository.record(record)
        return chunk._replace(state=state) if is_taken else chunk  # it has ended since it was read

    def _enqueue(self, scan: Scan) -> int:
        """Put what is planned and not marked as enqueued; tells how many jobs were put."""
        plan = plan_of(scan)
        queue = ScanQueue(scan.queue, connection=self._client)
        settings = queue_settings(scan, self._settings)
        count = 0
        for page in self.chunks.unenqueued(scan.scan_id):
            self._keep_alone()
            shuffled = (page[i] for i in Permutation(len(page), scan.seed))
            put = dict(queue.enqueue_chunks((plan.chunk(*pair) for pair in shuffled), settings))
            for generation in {generation for _, generation in page}:
                numbers = [number for number, its in page if its == generation]
                self.chunks.mark_enqueued(scan.scan_id, numbers, generation)
            count += sum(put.values())
        return count


def _fate(chunk: PlannedChunk, job: jobs.JobState) -> str | None:
    """Say what is to be done about a chunk; None: nothing."""
    if chunk.state == ChunkState.PLANNED:
        if job.status is None and not job.is_counted and chunk.is_enqueued:
            return "lost"
        # Planned again, and whoever did that died before the progress was counted anew.
        is_odd = job.is_counted and not chunk.is_enqueued and chunk.generation > 1
        return "uncounted" if is_odd else None
    if chunk.state == ChunkState.CANCELLED:
        is_gone = job.status in {None, "canceled"} and job.is_counted
        return None if is_gone else "cancelled"
    return None if job.is_counted or job.is_live else "ended"


def _end(chunk: PlannedChunk) -> tuple[int, str, int, int]:
    how = "done" if chunk.state == ChunkState.FINISHED else "failed"
    return chunk.number, how, chunk.observations, chunk.probes


def _last_line(trace: bytes) -> str:
    with suppress(zlib.error):
        trace = zlib.decompress(trace)
    return (trace.decode(errors="replace").strip().splitlines() or ["it ended without a word"])[-1]
