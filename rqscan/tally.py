"""What is told of the spool and of its drain, to those who load no database."""

from datetime import datetime
from enum import StrEnum

from msgspec import Struct, field

__all__ = ["Backlog", "Drainage", "Go", "Idleness", "Link", "Moved"]


class Go(StrEnum):
    """Whether rows may go to the store."""

    WAIT = "wait"
    WHILE_IDLE = "while_idle"  # of the network on the way there
    NOW = "now"


class Link(Struct, frozen=True, kw_only=True):
    """The network on the way to the store."""

    interfaces: list[str] = field(default_factory=list)  # none: the store is on this host
    below_bits_per_s: float = 0  # of all of them together: calm
    note: str = ""  # on how that was found
    fault: str = ""  # why the way is not known


class Idleness(Struct, frozen=True, kw_only=True):
    """Whether the network is idle, for rows that wait for it."""

    is_idle: bool | None  # None: not measured
    reason: str
    forced_at: datetime | None = None  # when they go in any case


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
    link: Link | None = None  # that rows wait for, in the mode in which they do
    is_idle: bool = False  # it was to the end of a drain that wanted it so
