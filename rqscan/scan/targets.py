"""Targets: what the user wrote → merged address ranges and names, never expanded."""

import re
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from functools import cached_property
from itertools import accumulate
from pathlib import Path
from typing import TextIO

from msgspec import Struct

from rqscan.errors import UsageError
from rqscan.scan.ranges import Range, merge, parse_range, subtract, text

__all__ = ["MAX_TARGETS", "Targets", "expand", "parse_targets", "read_targets"]

MAX_TARGETS = 2**32
"""Most targets of one scan: all of IPv4; more could never be finished."""

_LABEL = re.compile(r"(?!-)[a-z0-9-]{1,63}(?<!-)")  # RFC 1123
_NUMBER = re.compile(r"[0-9-]+|0x[0-9a-f]*")  # as last label: a mistyped address or range, and
# resolvers read some as an address
_MAX_NAME = 253  # RFC 1035
_ACCEPTED = "no address, CIDR (10.0.0.0/24), range (10.0.0.5-20 or 10.0.0.1-10.0.1.9) or host name"


class Targets(Struct, frozen=True, dict=True):  # dict: for the cached property
    """Merged, sorted ranges of addresses and sorted names; none is in it twice."""

    ranges: tuple[Range, ...] = ()
    names: tuple[str, ...] = ()

    @cached_property
    def _ends(self) -> list[int]:
        return list(accumulate(r.last - r.first + 1 for r in self.ranges))

    @property
    def addresses(self) -> int:
        """Number of addresses, of any size."""
        return self._ends[-1] if self._ends else 0

    @property
    def count(self) -> int:
        """Number of targets, of any size; a name is one."""
        return self.addresses + len(self.names)

    def slice(self, start: int, count: int) -> list[str]:
        """Give targets start … start + count - 1 as few compact specs; names come last."""
        specs: list[str] = []
        at, stop = start, min(start + count, self.addresses)
        for i in range(bisect_right(self._ends, start), len(self.ranges)):
            if at >= stop:
                break
            to_place = self.ranges[i].last + 1 - self._ends[i]  # from index to place
            end = min(stop, self._ends[i])
            specs.append(text(Range(at + to_place, end - 1 + to_place)))
            at = end
        before = self.addresses
        return specs + list(self.names[max(0, start - before) : max(0, start + count - before)])

    def minus(self, exclude: "Targets") -> "Targets":
        """Leave out what is in `exclude`: addresses by arithmetic, names by name."""
        names = sorted(set(self.names) - set(exclude.names))
        return Targets(tuple(subtract(self.ranges, exclude.ranges)), tuple(names))


def parse_targets(specs: Iterable[str], *, limit: int | None = MAX_TARGETS) -> Targets:
    """Read targets as the user wrote them; excludes are read with no limit.

    Raises:
        UsageError: one is not understood, or they are more than `limit`.
    """
    parsed = [_parse(spec) for spec in specs]
    names = sorted({one for one in parsed if isinstance(one, str)})
    targets = Targets(tuple(merge(r for r in parsed if not isinstance(r, str))), tuple(names))
    if limit is not None and targets.count > limit:
        raise UsageError(
            f"{targets.count} targets are more than the {limit} that one scan may have; "
            "name smaller networks"
        )
    return targets


def read_targets(path: str, stdin: TextIO) -> list[str]:
    """Read specs from a file, or from stdin when the path is ``-``; ``#`` starts a comment.

    Raises:
        UsageError: the file cannot be read, or a spec (its line is named) is not understood.
    """
    source = "standard input" if path == "-" else path
    try:
        lines = (stdin.read() if path == "-" else Path(path).read_text("utf-8")).splitlines()
    except (OSError, UnicodeError) as error:
        raise UsageError(f"targets in {source!r} cannot be read: {error}") from error
    specs: list[str] = []
    for number, line in enumerate(lines, start=1):
        for spec in line.partition("#")[0].split():
            try:
                _parse(spec)
            except UsageError as error:
                raise UsageError(f"{source}, line {number}: {error}") from error
            specs.append(spec)
    return specs


def expand(specs: Iterable[str]) -> Iterator[str]:
    """Give each address, then each name, of the specs of one chunk."""
    targets = parse_targets(specs)
    for first, last in targets.ranges:
        yield from (text(Range(at, at)) for at in range(first, last + 1))
    yield from targets.names


def _parse(spec: str) -> Range | str:
    if "%" in spec:
        raise UsageError(f"target {spec!r} has a zone, which only one host knows; leave it out")
    try:
        return parse_range(spec)
    except ValueError:
        name = spec.lower().removesuffix(".")
    labels = name.split(".")
    if (
        len(name) <= _MAX_NAME
        and all(_LABEL.fullmatch(label) for label in labels)
        and not _NUMBER.fullmatch(labels[-1])
    ):
        return name
    raise UsageError(f"target {spec!r} is {_ACCEPTED}")
