"""ScanJob: RQ's job with a JSON payload, whose names are checked before they are imported."""

from collections.abc import Callable
from typing import Any, ClassVar

from redis import Redis
from rq.job import Job
from rq.serializers import resolve_serializer

from rqscan.broker.payload import RUN_CHUNK, JsonSerializer, check_name, job_id, read
from rqscan.model import Chunk
from rqscan.settings import QueueSettings

__all__ = ["ScanJob", "chunk_fields"]


class ScanJob(Job):
    """RQ's job; the payload is JSON and names `run_chunk` or an allowed function.

    The allow-list covers callbacks too, since RQ imports them by name as well.
    """

    allow_functions: ClassVar[frozenset[str]] = frozenset()
    """Names that the operator added (worker.allow_functions); set once at start."""

    def __init__(
        self,
        id: str | None = None,  # noqa: A002 - RQ's name
        connection: Redis | None = None,
        serializer: Any = None,
    ) -> None:
        super().__init__(id, connection, resolve_serializer(serializer or JsonSerializer))

    @property
    def func(self) -> Callable[..., Any] | None:
        """The function to call.

        Raises:
            RefusedPayloadError: the payload is not ours or names what is not allowed.
        """
        read(self.data, self.allow_functions)
        return super().func  # type: ignore[no-any-return]

    def check_callbacks(self) -> None:
        """See that every callback is allowed, before anything of the job runs.

        Raises:
            RefusedPayloadError: one is not.
        """
        for name in (
            self._success_callback_name, self._failure_callback_name, self._stopped_callback_name,
        ):  # fmt: skip
            self._check(name)

    @property
    def success_callback(self) -> Any:
        """As in RQ, if its name is allowed."""
        self._check(self._success_callback_name)
        return super().success_callback

    @property
    def failure_callback(self) -> Any:
        """As in RQ, if its name is allowed."""
        self._check(self._failure_callback_name)
        return super().failure_callback

    @property
    def stopped_callback(self) -> Any:
        """As in RQ, if its name is allowed."""
        self._check(self._stopped_callback_name)
        return super().stopped_callback

    def _check(self, name: str | None) -> None:
        if name:
            check_name(name, self.allow_functions)


def chunk_fields(
    chunk: Chunk, queue_name: str, queue: QueueSettings, connection: Redis
) -> dict[str, Any]:
    """Give the hash of a chunk's job as RQ would write it, plus the scan that it counts for."""
    kwargs = {name: getattr(chunk, name) for name in chunk.__struct_fields__}
    job = ScanJob.create(
        RUN_CHUNK,
        kwargs=kwargs,
        connection=connection,
        id=job_id(chunk.scan_id, chunk.chunk, chunk.generation),
        origin=queue_name,
        timeout=queue.timeout_s,
        result_ttl=queue.result_ttl_s,
        failure_ttl=queue.failure_ttl_s,
        description=f"{chunk.kind} {' '.join(chunk.targets)[:200]}",
    )
    return {**job.to_dict(), "rqscan_scan": chunk.scan_id, "rqscan_kind": chunk.kind}
