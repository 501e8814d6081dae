"""What long-lived processes say: a fixed list of events, as readable lines or as JSON lines.

`configure` is called once by a worker or a scheduler; RQ's own records take the same way out.
"""

import json
import logging
import sys
from datetime import datetime
from enum import StrEnum
from typing import Any, TextIO

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
    STORE_LOST = "store_lost"
    STORE_BACK = "store_back"
    STREAM_LOST = "stream_lost"
    STREAM_BACK = "stream_back"
    CLAIMS_HELD = "claims_held"
    CLAIMS_RESUMED = "claims_resumed"
    SPOOL_BROKEN = "spool_broken"
    ROWS_QUARANTINED = "rows_quarantined"
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
    RUN_MISSED = "run_missed"
    RUN_REFUSED = "run_refused"
    RUN_WAITING = "run_waiting"
    RUN_FAILED = "run_failed"
    ENTRY_INVALID = "entry_invalid"
    METRICS_STARTED = "metrics_started"
    METRICS_STOPPED = "metrics_stopped"
    RUNNING_AS_ROOT = "running_as_root"


_WARNINGS = {
    Event.JOB_FAILED, Event.JOB_RETRIED, Event.JOB_REFUSED, Event.JOB_LOST, Event.HORSE_DIED,
    Event.WORKERS_LOST, Event.REDIS_LOST, Event.REDIS_REFUSED, Event.STORE_LOST, Event.CLAIMS_HELD,
    Event.STREAM_LOST, Event.SPOOL_BROKEN, Event.ROWS_QUARANTINED, Event.MISMATCHED,
    Event.CLOCK_OFF, Event.ERRAND_FAILED, Event.ENDS_UNREADABLE,
    Event.LEADER_LOST, Event.RUN_MISSED, Event.RUN_REFUSED,
    Event.RUN_WAITING, Event.RUN_FAILED, Event.ENTRY_INVALID, Event.RUNNING_AS_ROOT,
}  # fmt: skip

_logger = logging.getLogger("rqscan")
_COLOURS = {"warning": 33, "error": 31, "critical": 31}  # of a terminal; others are green


def configure(level: str, *, as_json: bool, stream: TextIO = sys.stderr) -> None:
    """Send all records of this process, from `level` up, to the stream."""
    out = logging.StreamHandler(stream)
    out.setFormatter(_Json() if as_json else _Readable(in_colour=stream.isatty()))
    logging.basicConfig(handlers=[out], level=level.upper(), force=True)


def set_level(level: str) -> None:
    """Log from another level up; `configure` has set the first.

    Raises:
        ValueError: there is no such level.
    """
    logging.getLogger().setLevel(level)


def log(event: Event, **fields: Any) -> None:
    """Log an event with its fields; `exc_info` takes an exception.

    Raises:
        ValueError: it is to be told, and not in the list.
    """
    level = logging.WARNING if event in _WARNINGS else logging.INFO
    if not _logger.isEnabledFor(level):  # told twice a job
        return
    Event(event)
    error = fields.pop("exc_info", None)
    _logger.log(level, str(event), exc_info=error, extra={"fields": fields})


def _fields(record: logging.LogRecord) -> dict[str, Any]:
    """Put time, level and event first; a record of RQ has no more."""
    begin = {"at": iso(now()), "level": record.levelname.lower(), "event": record.getMessage()}
    return begin | getattr(record, "fields", {})


class _Json(logging.Formatter):
    """One object a line; an exception's traceback is a field."""

    def format(self, record: logging.LogRecord) -> str:
        fields = _fields(record)
        if record.exc_info:
            fields["exception"] = self.formatException(record.exc_info)
        return json.dumps(fields, default=_plain)


class _Readable(logging.Formatter):
    """Time, level and event in columns, then the fields by name; a traceback follows the line."""

    def __init__(self, *, in_colour: bool) -> None:
        super().__init__()
        self._paint = "\x1b[{}m{}\x1b[0m".format if in_colour else "{1}".format

    def format(self, record: logging.LogRecord) -> str:
        paint = self._paint
        fields = {key: _defuse(value) for key, value in _fields(record).items()}
        at, level, event = (fields.pop(key) for key in ("at", "level", "event"))
        mark = paint(f"{_COLOURS.get(level, 32)};1", f"{level:9}")
        parts = [paint(2, at), f"[{mark}]", paint(1, f"{event:30}")]
        parts += [f"{paint(36, key)}={paint(35, _quote(fields[key]))}" for key in sorted(fields)]
        line = " ".join(parts).rstrip(" ")
        return f"{line}\n{self.formatException(record.exc_info)}" if record.exc_info else line


def _defuse(value: Any) -> Any:
    """Blank what a terminal would obey, such as a banner's escape codes."""
    if isinstance(value, str):
        return "".join(c if c.isprintable() else " " for c in value)
    return value


def _quote(value: Any) -> str:
    return value if isinstance(value, str) and not set(value) & set(" ='\"") else repr(value)


def _plain(value: Any) -> str:
    return iso(value) if isinstance(value, datetime) else repr(value)
