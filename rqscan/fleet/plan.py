"""Plan: all that a worker is told before it begins."""

from typing import Any

from msgspec import Struct

from rqscan.broker.endpoint import Endpoint
from rqscan.settings import Settings

__all__ = ["Plan"]


class Plan(Struct, frozen=True, kw_only=True):
    """What one worker is to do, and as whom."""

    name: str
    queues: list[str]  # in order of priority
    settings: Settings
    endpoint: Endpoint
    concurrency: int
    stop_timeout_s: float  # how long running jobs may go on after the first signal
    max_jobs: int | None = None  # the end after so many
    rq_fields: dict[str, Any]  # of the worker's hash as RQ writes it, without what changes
