"""Ports: ``22,80,8000-8100``, ``top-100``, ``-`` (all) → numbers."""

import re
from collections.abc import Iterable
from functools import cache
from pathlib import Path

from rqscan.errors import UsageError

__all__ = ["parse_ports"]

_MAX = 65_535

_PART = re.compile(r"([0-9]{1,9})(?:-([0-9]{1,9}))?")
_TOP = re.compile(r"top-([0-9]{1,9})")


def parse_ports(text: str) -> list[int]:
    """Read what a user wrote behind ``-p``: port numbers, sorted, none twice.

    Raises:
        UsageError: a part is not understood, or lies outside 1-65535.
    """
    numbers: set[int] = set()
    for part in text.replace(" ", "").split(","):
        numbers.update(_parse(part))
    return sorted(numbers)


def _parse(part: str) -> Iterable[int]:
    if part == "-":
        return range(1, _MAX + 1)
    if top := _TOP.fullmatch(part):
        ranked = _ranked()
        if not 1 <= int(top[1]) <= len(ranked):
            raise UsageError(f"ports {part!r}: give top-1 to top-{len(ranked)}")
        return ranked[: int(top[1])]
    found = _PART.fullmatch(part)
    if not found:
        raise UsageError(f"ports {part!r} are no port, range (8000-8100), top-100, top-1000 or -")
    first, last = int(found[1]), int(found[2] or found[1])
    for port in (first, last):
        if not 1 <= port <= _MAX:
            raise UsageError(f"port {port} is outside 1-{_MAX}")
    if last < first:
        raise UsageError(f"ports {part!r} end before they start; write {last}-{first}")
    return range(first, last + 1)


@cache
def _ranked() -> tuple[int, ...]:
    """Read the shipped list, most interesting first."""
    lines = Path(__file__).with_name("top_ports.txt").read_text("ascii").splitlines()
    return tuple(int(word) for line in lines for word in line.partition("#")[0].split())
