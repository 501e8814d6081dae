"""What long-lived processes say: a fixed list of events, as readable lines or as JSON lines.

`configure` is called once by a worker or a scheduler; RQ's own records take the same way out.
The template process of the work-horses never imports this module: structlog is slow to load.
"""

import logging
import sys
from datetime import datetime
from enum import StrEnum
from typing import Any, TextIO

import structlog
from structlog.typing import EventDict

from rqscan.clock import iso, now

__all__ = ["Event", "configure", "log", "set_level"]


class Event(StrEnum):
    """Every event there is: what is not in the list cannot be logged."""

    WORKER_STARTED = "worker_started"
    WORKER_STOPPED = "worker_stopped"
    STOP_REQUESTED = "stop_requested"
    JOB_STARTED = "job_started"
    JOB_FINISHED = "job_finished"
    JOB_FAILED = "job_failed"
    JOB_REFUSED = "job_refused"
    JOB_LOST = "job_lost"
    JOB_GIVEN_BACK = "job_given_back"
    JOB_RETRIED = "job_retried"
    JOB_STOPPED = "job_stopped"
    HORSE_DIED = "horse_died"
    FOLLOW_UP_FAILED = "follow_up_failed"
    COMMAND_TAKEN = "command_taken"
    WORKERS_LOST = "workers_lost"
    REDIS_LOST = "redis_lost"
    REDIS_BACK = "redis_back"
    REDIS_REFUSED = "redis_refused"
    MISMATCHED = "mismatched"
    CLOCK_OFF = "clock_off"
    ERRAND_FAILED = "errand_failed"
    ENDS_UNREADABLE = "ends_unreadable"
    SCHEDULER_STARTED = "scheduler_started"
    SCHEDULER_STOPPED = "scheduler_stopped"
    LEADER_TAKEN = "leader_taken"
    LEADER_LOST = "leader_lost"
    RUN_FIRED = "run_fired"
    RUN_SKIPPED = "run_skipped"
    RUN_REFUSED = "run_refused"
    RUN_WAITING = "run_waiting"
    RUN_FAILED = "run_failed"
    ENTRY_INVALID = "entry_invalid"
    RUNNING_AS_ROOT = "running_as_root"
    SETTING_WITHOUT_EFFECT = "setting_without_effect"


_WARNINGS = {
    Event.JOB_FAILED, Event.JOB_RETRIED, Event.JOB_REFUSED, Event.JOB_LOST, Event.HORSE_DIED,
    Event.WORKERS_LOST, Event.REDIS_LOST, Event.REDIS_REFUSED, Event.MISMATCHED,
    Event.CLOCK_OFF, Event.ERRAND_FAILED, Event.ENDS_UNREADABLE,
    Event.SETTING_WITHOUT_EFFECT, Event.LEADER_LOST, Event.RUN_REFUSED,
    Event.RUN_WAITING, Event.RUN_FAILED, Event.ENTRY_INVALID, Event.RUNNING_AS_ROOT,
}  # fmt: skip


def configure(level: str, *, as_json: bool, stream: TextIO = sys.stderr) -> None:
    """Send all records of this process, from `level` up, to the stream."""
    last: list[Any] = [
        _defuse,
        structlog.dev.ConsoleRenderer(
            colors=stream.isatty(),
            timestamp_key="at",
            exception_formatter=structlog.dev.plain_traceback,
        ),
    ]
    if as_json:
        json_lines = structlog.processors.JSONRenderer(default=_plain)
        last = [structlog.processors.format_exc_info, json_lines]
    to_stdlib = structlog.stdlib.ProcessorFormatter
    out = logging.StreamHandler(stream)
    processors = [to_stdlib.remove_processors_meta, *last]
    out.setFormatter(to_stdlib(foreign_pre_chain=[_stamp], processors=processors))
    logging.basicConfig(handlers=[out], level=level.upper(), force=True)
    structlog.configure(
        processors=[structlog.stdlib.filter_by_level, _stamp, to_stdlib.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
    )


def set_level(level: str) -> None:
    """Log from another level up; `configure` has set the first.

    Raises:
        ValueError: there is no such level.
    """
    logging.getLogger().setLevel(level)


def log(event: Event, **fields: Any) -> None:
    """Log an event with its fields; `exc_info` takes an exception.

    Raises:
        ValueError: the event is not in the list.
    """
    level = logging.WARNING if Event(event) in _WARNINGS else logging.INFO
    if logging.getLogger("rqscan").isEnabledFor(level):  # what nobody sees costs next to nothing
        structlog.get_logger("rqscan").log(level, str(event), **fields)


def _stamp(_logger: Any, method: str, fields: EventDict) -> EventDict:
    """Put time, level and event first."""
    return {"at": iso(now()), "level": method, "event": fields.pop("event"), **fields}


def _defuse(_logger: Any, _method: str, fields: EventDict) -> EventDict:
    """Blank what a terminal would obey, such as a banner's escape codes."""
    for key, value in fields.items():
        if isinstance(value, str):
            fields[key] = "".join(c if c.isprintable() else " " for c in value)
    return fields


def _plain(value: Any) -> str:
    return iso(value) if isinstance(value, datetime) else repr(value)
