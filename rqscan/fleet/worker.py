"""ScanWorker: RQ's worker on the outside; inside is a loop that never waits (`fleet.loop`)."""

import os
import socket
from contextlib import suppress
from typing import Any

import redis
from rq.worker import Worker

from rqscan import clock, config
from rqscan.broker.connect import endpoint_of
from rqscan.broker.jobs import ScanJob
from rqscan.broker.payload import JsonSerializer
from rqscan.broker.queues import ScanQueue
from rqscan.fleet.plan import Plan
from rqscan.fleet.roster import refuse_living_namesake
from rqscan.settings import Settings

__all__ = ["ScanWorker"]


class ScanWorker(Worker):
    """A worker for scan queues; the constructor takes what RQ's takes.

    Args:
        queues: names or queues, in order of priority.
        name: unique in the fleet; HOST.PID by default.
        settings: those in force; read from file and environment by default.
        concurrency: jobs at once; the CPU count by default.
    """

    job_class = ScanJob
    queue_class = ScanQueue

    def __init__(
        self,
        queues: Any,
        name: str | None = None,
        *args: Any,
        settings: Settings | None = None,
        concurrency: int | None = None,
        **kwargs: Any,
    ) -> None:
        kwargs["serializer"] = kwargs.get("serializer") or JsonSerializer
        super().__init__(queues, name or f"{socket.gethostname()}.{os.getpid()}", *args, **kwargs)
        if not kwargs.get("prepare_for_work", True):
            return  # RQ's readers make workers of hashes
        self.connection.connection_pool.disconnect()  # RQ's set-up leaves one open
        self.settings = settings or config.load()
        self.concurrency = concurrency or os.cpu_count() or 1

    def _set_ip_address(self, connection: redis.Redis) -> None:
        try:
            super()._set_ip_address(connection)
        # redis-py cannot read a socket path with a space; an outage that begins now is waited for
        except (ValueError, redis.ConnectionError, redis.TimeoutError):
            self.ip_address = "unknown"

    def work(
        self,
        burst: bool = False,  # noqa: FBT001, FBT002 - RQ's signature
        *_: Any,
        max_jobs: int | None = None,
        stop_timeout_s: float | None = None,
        **__: Any,
    ) -> bool:
        """Run jobs until a signal ends it; tell whether any ran. RQ's other arguments mean nothing.

        Args:
            burst: end once there is nothing left to claim.
            max_jobs: end once so many have run.
            stop_timeout_s: how long running jobs may go on after the first signal.

        Raises:
            FailedError: another worker has this name.
        """
        from rqscan.fleet.loop import Loop  # noqa: PLC0415 - `rqscan worker` has it loaded elsewhere

        plan = self.plan(max_jobs=max_jobs, stop_timeout_s=stop_timeout_s)
        return Loop(plan).run(burst=burst)

    def plan(self, *, max_jobs: int | None = None, stop_timeout_s: float | None = None) -> Plan:
        """Give what `rqscan.fleet.loop` is to do, once nobody else does it under this name.

        Raises:
            FailedError: another worker has this name.
            ConfigError: the loop cannot make connections of this client's kind.
        """
        with suppress(redis.ConnectionError, redis.TimeoutError):  # told at the first beat, then
            refuse_living_namesake(self.connection, self.name)
        self.birth_date = self.last_heartbeat = clock.now()
        worker = self.settings.worker
        # The script writes the heartbeat, by Redis' clock.
        fields = {k: v or "" for k, v in self.serialize().items() if k != "last_heartbeat"}
        return Plan(
            name=self.name, queues=self.queue_names(), settings=self.settings,
            endpoint=endpoint_of(self.connection), concurrency=self.concurrency,
            stop_timeout_s=worker.stop_timeout_s if stop_timeout_s is None else stop_timeout_s,
            max_jobs=max_jobs, rq_fields=fields,
        )  # fmt: skip
