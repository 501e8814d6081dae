"""ScanQueue: RQ's queue that rings a bell, so that one idle worker wakes for each job."""

from collections.abc import Iterable, Iterator
from typing import Any

from redis import Redis
from redis.client import Pipeline
from rq.job import Job
from rq.queue import Queue

from rqscan.batches import batches
from rqscan.broker import keys, scripts
from rqscan.broker.jobs import ScanJob, chunk_fields
from rqscan.broker.payload import JsonSerializer, job_id
from rqscan.errors import UsageError
from rqscan.model import Chunk
from rqscan.settings import QueueSettings, Settings

__all__ = ["ScanQueue", "declared", "ring"]

BATCH = 500
"""Jobs a round trip when a scan is enqueued: about 0.5 MB, and no other client waits long."""


class ScanQueue(Queue):
    """RQ's queue with JSON payloads, `ScanJob` and a bell; the constructor takes what RQ's does."""

    job_class = ScanJob

    def __init__(
        self,
        name: str = "default",
        connection: Redis | None = None,
        *args: Any,
        **kwargs: Any,
    ) -> None:
        kwargs["serializer"] = kwargs.get("serializer") or JsonSerializer
        super().__init__(name, connection, *args, **kwargs)

    def push_job_id(
        self,
        job_id: str,
        pipeline: Pipeline | None = None,
        at_front: bool = False,  # noqa: FBT001, FBT002 - RQ's signature
    ) -> Any:
        """Push as RQ does, and ring the queue's bell."""
        connection = pipeline if pipeline is not None else self.connection
        result = super().push_job_id(job_id, pipeline=pipeline, at_front=at_front)
        ring(connection, self.name)
        return result

    def _enqueue_async_job(
        self,
        job: Job,
        pipeline: Pipeline | None = None,
        at_front: bool = False,  # noqa: FBT001, FBT002 - RQ's signature
        unique: bool = False,  # noqa: FBT001, FBT002 - RQ's signature
    ) -> Any:
        result = super()._enqueue_async_job(job, pipeline, at_front, unique)
        if unique:  # by a script of RQ's, past `push_job_id`
            ring(self.connection, self.name)
        return result

    def _enqueue_rate_limited_job(
        self,
        job: Job,
        pipeline: Pipeline | None = None,
        at_front: bool = False,  # noqa: FBT001, FBT002 - RQ's signature
    ) -> Any:
        result = super()._enqueue_rate_limited_job(job, pipeline, at_front)
        ring(pipeline if pipeline is not None else self.connection, self.name)
        return result

    def enqueue_ready_jobs_by_queue(self, job_ids_by_queue_name: dict[str, list[str]]) -> None:
        """Enqueue dependents as RQ does, and ring the bells of their queues."""
        super().enqueue_ready_jobs_by_queue(job_ids_by_queue_name)
        for name in job_ids_by_queue_name:
            ring(self.connection, name)

    def pause(self) -> None:
        """Let nothing be claimed from this queue, from now on and by nobody."""
        self.connection.sadd(keys.PAUSED, self.name)

    def resume(self) -> bool:
        """Let jobs be claimed from this queue again; tells whether it was paused."""
        own = [keys.PAUSED, self.key, keys.bell(self.name)]
        self.connection.script_load(scripts.RESUME.text)
        return bool(self.connection.evalsha(scripts.RESUME.sha, len(own), *own, self.name))

    def enqueue_chunks(
        self, chunks: Iterable[Chunk], settings: QueueSettings
    ) -> Iterator[tuple[int, bool]]:
        """Put each chunk's job once, in batches.

        A job that Redis knows already is left alone, and so is a chunk that has ended.

        Yields:
            Each chunk's number, and whether its job was put, once Redis has answered for it.
        """
        self.connection.script_load(scripts.ENQUEUE.text)
        for batch in batches(chunks, BATCH):
            with self.connection.pipeline(transaction=False) as pipeline:
                for chunk in batch:
                    self._put(pipeline, chunk, settings)
                answers = pipeline.execute()
            yield from ((c.chunk, bool(put)) for c, put in zip(batch, answers, strict=True))

    def _put(self, pipeline: Pipeline, chunk: Chunk, settings: QueueSettings) -> None:
        fields = chunk_fields(chunk, self.name, settings, self.connection)
        flat = [part for pair in fields.items() for part in pair]
        name = job_id(chunk.scan_id, chunk.chunk, chunk.generation)
        pipeline.evalsha(
            scripts.ENQUEUE.sha, 6, keys.job(name), self.key, keys.QUEUES, keys.bell(self.name),
            keys.ended(chunk.scan_id), keys.generations(chunk.scan_id),
            name, self.name, chunk.chunk, chunk.generation, *flat,
        )  # fmt: skip


def ring(connection: Redis | Pipeline, queue_name: str) -> None:
    """Ring a queue's bell: one idle worker looks what there is."""
    connection.lpush(keys.bell(queue_name), "1")
    connection.ltrim(keys.bell(queue_name), 0, 0)


def declared(settings: Settings, name: str) -> QueueSettings:
    """Give a declared queue's settings.

    Raises:
        UsageError: no such queue in the settings; names those that are.
    """
    try:
        return settings.queues[name]
    except KeyError:
        known = ", ".join(repr(queue) for queue in sorted(settings.queues))
        raise UsageError(
            f"queue {name!r} is not declared (declared: {known}); "
            f"add [queues.{name}] to rqscan.toml or check the spelling"
        ) from None
