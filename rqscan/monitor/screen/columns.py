"""Columns and panes: what the screen's tables are made of, and how figures are written."""

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any, NamedTuple

__all__ = ["Column", "Pane", "age", "ago", "bar", "shown", "spark", "until"]

BAR_CELLS = 20
UNITS = ((86_400, "d", 3600, "h"), (3600, "h", 60, "m"), (60, "m", 1, "s"))
BLOCKS = " ▁▂▃▄▅▆▇█"


def shown(value: Any) -> str:
    """Write a figure or a word."""
    return f"{value:.1f}" if isinstance(value, float) else str(value)


class Column(NamedTuple):
    """A column: its value for an item, None if it is not known, and how that is written."""

    title: str
    value: Callable[[Any], Any]
    show: Callable[[Any], str] = shown


class Pane(NamedTuple):
    """A table: where the screen is narrow, columns go from the right, but for the last one."""

    name: str
    columns: Sequence[Column]
    items: Sequence[Any]
    key: Callable[[Any], str]  # the name of an item
    of: int = 0  # how many there are of what is shown, if more than items
    note: str = ""  # how the items were chosen

    def cells(self, item: Any) -> dict[str, str]:
        """Write one item."""
        values = ((title, show, value(item)) for title, value, show in self.columns)
        return {title: "-" if value is None else show(value) for title, show, value in values}


def age(seconds: float | None) -> str:
    """Write a duration in at most six cells: 0.4s, 12s, 5m31s, 3h02m, 4d07h."""
    if seconds is None:
        return "-"
    for size, unit, part, small in UNITS:
        if seconds >= size:
            return f"{int(seconds // size)}{unit}{int(seconds % size // part):02}{small}"
    return f"{int(seconds)}s" if seconds >= 10 else f"{seconds:.1f}s"  # noqa: PLR2004 - tenths count


def ago(at: datetime, then: datetime | None) -> float | None:
    """Give for how many seconds something is past."""
    return (at - then).total_seconds() if then else None


def until(seconds: float) -> str:
    """Write how long it takes until something, which may be past."""
    return f"-{age(-seconds)}" if seconds < 0 else age(seconds)


def bar(part: float) -> str:
    """Draw a part of one."""
    full = int(min(1.0, part) * BAR_CELLS)
    return f"{part:4.0%} {'█' * full}{'░' * (BAR_CELLS - full)}"


def spark(values: Sequence[float], cells: int = 15) -> str:
    """Draw figures as a row of blocks as high as they are, the largest of each `cells`th part."""
    if not values:
        return ""
    step = -(-len(values) // cells)
    parts = [max(values[max(0, end - step) : end]) for end in range(len(values), 0, -step)][::-1]
    most = max(parts) or 1
    return "".join(BLOCKS[1 + int(-(-part * (len(BLOCKS) - 2) // most))] for part in parts)
