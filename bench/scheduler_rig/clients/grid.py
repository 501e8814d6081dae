"""Which entries there are and when they are due: the same for every scheduler.

Entry n is due at anchor + n * every // entries and every so many seconds from then on: on whole
seconds, as cron is, and as many in each.
"""

import os
from typing import Any

ANCHOR = "bench:anchor"
LEAD_S = 3
"""From all entries being known to the first due time: a scheduler still has to start."""

ENTRIES = int(os.environ.get("BENCH_ENTRIES", "0"))
EVERY_S = int(os.environ.get("BENCH_EVERY_S", "0"))


def noop(_number: int) -> None:
    """Be what all schedulers but ours enqueue; nobody runs it."""


def first_dues(anchor: int, entries: int = ENTRIES, every_s: int = EVERY_S) -> list[int]:
    """Give the first due time of each entry, Unix seconds."""
    return [anchor + number * every_s // entries for number in range(entries)]


def begin(client: Any) -> list[int]:
    """Tell the bench that all entries are known; gives the first due time of each."""
    anchor = int(client.time()[0]) + LEAD_S
    client.set(ANCHOR, anchor)
    return first_dues(anchor)
