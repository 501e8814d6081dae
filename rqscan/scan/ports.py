"""Ports: ``22,80,8000-8100``, ``top-100``, ``-`` (all) → numbers."""

import re
from collections.abc import Iterable
from functools import cache
from pathlib import Path

from rqscan.errors import UsageError

__all__ = ["parse_ports"]

_MAX = 65_535
_RANGE = re.compile(r"([0-9]{1,5})(?:-([0-9]{1,5}))?")
_TOP = re.compile(r"top-([0-9]{1,4})")


def parse_ports(text: str) -> list[int]:
    """Read what a user wrote behind ``-p``: port numbers, sorted, none twice.

    Raises:
        UsageError: a part is not understood, or lies outside 1-65535.
    """
    numbers: set[int] = set()
    for part in text.replace(" ", "").split(","):
        numbers.update(_parse(f"1-{_MAX}" if part == "-" else part))
    return sorted(numbers)


def _parse(part: str) -> Iterable[int]:
    ranked = _ranked()
    if found := _RANGE.fullmatch(part):
        first, last = int(found[1]), int(found[2] or found[1])
        if 1 <= first <= last <= _MAX:
            return range(first, last + 1)
    elif (top := _TOP.fullmatch(part)) and 1 <= int(top[1]) <= len(ranked):
        return ranked[: int(top[1])]
    raise UsageError(
        f"ports {part!r} are no port or range (8000-8100) within 1-{_MAX}, "
        f"top-1 to top-{len(ranked)}, or -"
    )


@cache
def _ranked() -> tuple[int, ...]:
    """Read the shipped list, most interesting first."""
    lines = Path(__file__).with_name("top_ports.txt").read_text("ascii").splitlines()
    return tuple(int(word) for line in lines for word in line.partition("#")[0].split())
