"""What is told of the spool and of its drain, to those who load no database."""

from datetime import datetime

from msgspec import Struct, field

__all__ = ["Backlog", "Drainage", "Moved"]


class Backlog(Struct, frozen=True, kw_only=True):
    """What a home's spool holds, and its stream."""

    records: int = 0
    rows: int = 0
    bytes: int = 0  # that it takes on the disk, and in the stream's Redis
    oldest_at: datetime | None = None
    quarantined: int = 0  # entries
    stream_away: str | None = None  # why the stream is not counted


class Moved(Struct, kw_only=True):
    """What a drain has moved so far."""

    rows: int = 0  # to the store
    fenced: int = 0  # rows that the store does not want any more
    quarantined: int = 0  # entries
    salvaged: list[tuple[str, int]] = field(default_factory=list)  # file, records read of it


class Drainage(Struct, frozen=True, kw_only=True):
    """What a drain has done, and how the spool stands after it."""

    backlog: Backlog
    moved: Moved
    worked_s: float
    away: str | None = None  # why the store took nothing
    again_in_s: float | None = None  # until it may be tried again
    is_elsewhere: bool = False  # another process drains
