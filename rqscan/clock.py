"""The one source of wall time: UTC, corrected by the measured offset to Redis.

Law: wall time is for storage and display, ``time.monotonic()`` for durations, and whatever is
compared across hosts uses Redis' own clock. A host's clock decides nothing: long-lived processes
call `correct` with the offset that they measured, so that even stored times agree in a fleet.
"""

from datetime import UTC, datetime, timedelta

__all__ = ["correct", "from_iso", "iso", "now", "offset_s"]

_offset = timedelta(0)


def now() -> datetime:
    """Give the time as Redis would tell it, aware and in UTC."""
    return datetime.now(UTC) + _offset  # noqa: TID251 - this is the place the rule points to


def correct(offset_s: float) -> None:
    """Set the offset that `now` adds: Redis' clock minus this host's, in seconds."""
    global _offset  # noqa: PLW0603 - one clock a process, by nature
    _offset = timedelta(seconds=offset_s)


def offset_s() -> float:
    """Give the offset in force: Redis' clock minus this host's, in seconds."""
    return _offset.total_seconds()


def iso(at: datetime) -> str:
    """Write a time as ISO 8601 UTC with microseconds and a Z."""
    return at.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def from_iso(text: str) -> datetime:
    """Read what `iso` wrote; a text without a zone is UTC.

    Raises:
        ValueError: the text is no ISO 8601 time.
    """
    at = datetime.fromisoformat(text)
    return at.replace(tzinfo=UTC) if at.tzinfo is None else at.astimezone(UTC)
