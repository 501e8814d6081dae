"""Judging: thresholds and words that the doctor and the monitor share, without heavy imports."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Protocol

__all__ = [
    "CLOCK_FAIL_S",
    "CLOCK_WARN_S",
    "MEMORY_SHARE",
    "SET_CLOCK",
    "SHOWN",
    "clocks_off",
    "lasting",
    "size",
    "some",
    "unlike_versions",
]

CLOCK_WARN_S, CLOCK_FAIL_S = 1.0, 30.0
"""A host's clock that is so far off: times are shown wrong; certificates and logs mislead."""

SET_CLOCK = "set the clock of {} by chrony or ntp (timedatectl set-ntp true)"

MEMORY_SHARE = 0.9

SHOWN = 5
"""So many of a kind are named, the others counted."""

UNITS = ((172_800, 86_400, "d"), (7200, 3600, "h"), (600, 60, "min"))
"""From how many seconds on, seconds in one, name."""


class _Worker(Protocol):
    @property
    def name(self) -> str: ...
    @property
    def host(self) -> str | None: ...
    @property
    def versions(self) -> dict[str, str]: ...


def unlike_versions(living: Iterable[_Worker]) -> Iterator[tuple[str, str, list[str]]]:
    """Give for each package that differs the version on most, and who has another, in words."""
    told = [one for one in living if one.versions]
    if len({tuple(one.versions.items()) for one in told}) < 2:  # noqa: PLR2004 - one is no difference
        return
    for package in sorted({package for one in told for package in one.versions}):
        found = Counter(one.versions.get(package, "none") for one in told)
        (most, _), *others = found.most_common()
        if others:
            yield (
                package,
                most,
                [
                    f"{one.name} on {one.host} has {version}"
                    for one in told
                    if (version := one.versions.get(package, "none")) != most
                ],
            )


def clocks_off(offsets: Iterable[tuple[str, float | None]]) -> Mapping[str, float]:
    """Give by host how far its clock is ahead (s).

    Args:
        offsets: host, and Redis' clock minus the host's as one worker there has measured it.
    """
    known: dict[str, float] = {}
    for host, offset_s in offsets:
        known[host] = max(known.get(host, 0.0), -(offset_s or 0.0), key=abs)
    return known


def some(texts: list[str], shown: int = SHOWN) -> str:
    """Name the first few, and count the others."""
    more = len(texts) - shown
    return ", ".join(texts[:shown]) + (f" and {more} more" if more > 0 else "")


def size(count: int | None) -> str:
    """Give bytes in words."""
    left = float(count or 0)
    for unit in ("B", "KiB", "MiB"):
        if left < 1024:  # noqa: PLR2004 - that is what the units mean
            return f"{left:.0f} {unit}"
        left /= 1024
    return f"{left:.1f} GiB"


def lasting(seconds: float) -> str:
    """Give a time in words: seconds below ten minutes, minutes below two hours, and so on."""
    for least, length, unit in UNITS:
        if seconds >= least:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} s"
