"""Arithmetic of address ranges on one line of integers: IPv4 first, IPv6 from `_V6` on.

Merging, cutting and counting know no families; IPv4-mapped IPv6 is IPv4.
"""

import re
from collections import defaultdict
from collections.abc import Collection, Iterable
from contextlib import suppress
from ipaddress import IPv6Address, ip_network
from socket import AF_INET, inet_ntop, inet_pton
from typing import NamedTuple

__all__ = ["Range", "merge", "parse_range", "place", "text"]

_BRACKETS = re.compile(r"\[([0-9a-fA-F:.]+)\]")
_V6 = 2**64  # far beyond IPv4: ranges of the two families never touch


class Range(NamedTuple):
    """Places on the line from first to last, both included."""

    first: int
    last: int


def place(address: str) -> int:
    """Give an address' place on the line.

    Raises:
        ValueError: it is no address.
    """
    with suppress(OSError):
        return int.from_bytes(inet_pton(AF_INET, address))
    parsed = IPv6Address(address)
    mapped = parsed.ipv4_mapped
    return int(mapped) if mapped else int(parsed) + _V6


def text(found: Range) -> str:
    """Write a range as a spec: ``10.0.0.0-10.0.0.63``, or its one address."""
    first = _address(found.first)
    return first if found.first == found.last else f"{first}-{_address(found.last)}"


def _address(at: int) -> str:
    return inet_ntop(AF_INET, at.to_bytes(4)) if at < _V6 else str(IPv6Address(at - _V6))


def parse_range(spec: str) -> Range:
    """Read an address, a CIDR (host bits may be set) or a range.

    Raises:
        ValueError: it is none of these.
    """
    spec = _BRACKETS.sub(r"\1", spec)
    if "%" in spec:
        raise ValueError(spec)
    start, dash, end = spec.partition("-")
    if "/" in spec:
        if not spec.rpartition("/")[2].isdigit():  # ipaddress reads net masks too
            raise ValueError(spec)
        network = ip_network(spec, strict=False)
        start, end = str(network[0]), str(network[-1])
    elif not dash:
        end = start
    elif end.isdigit():
        end = f"{start.rpartition('.')[0]}.{end}"
    first = place(start)
    found = Range(first, first if end == start else place(end))
    if found.last < found.first or (found.first < _V6 <= found.last):
        raise ValueError(spec)
    return found


def merge(ranges: Collection[Range], holes: Iterable[Range] = ()) -> list[Range]:
    """Sort and join ranges that overlap or touch, and cut the holes out."""
    if not ranges:
        return []
    heavy = len(ranges) + 1  # one hole outweighs all ranges
    steps: defaultdict[int, int] = defaultdict(int)
    for weight, group in ((1, ranges), (-heavy, holes)):
        for first, last in group:
            steps[first] += weight
            steps[last + 1] -= weight
    merged: list[Range] = []
    weight = start = 0
    for at in sorted(steps):
        was_inside, weight = weight > 0, weight + steps[at]
        if was_inside and weight <= 0:
            merged.append(Range(start, at - 1))
        elif weight > 0 and not was_inside:
            start = at
    return merged
