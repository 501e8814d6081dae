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
from rqscan.scan.ranges import Range, merge, parse_range, text

__all__ = ["Targets", "parse_targets", "read_targets"]

_LABEL = r"(?!-)[a-z0-9-]{1,63}(?<!-)"  # this and the length of a name: RFC 1123, RFC 1035
_NUMBER = r"(?:[0-9-]+|0x[0-9a-f]*)\Z"  # as last label: a mistyped address or range, and
# resolvers read some as an address
_NAME = re.compile(rf"(?=.{{1,253}}\Z)(?:{_LABEL}\.)*(?!{_NUMBER}){_LABEL}")


class Targets(Struct, frozen=True, dict=True):  # dict: for the cached property
    """Merged, sorted ranges of addresses and sorted names; none is in it twice."""

    ranges: tuple[Range, ...] = ()
    names: tuple[str, ...] = ()

    @cached_property
    def _ends(self) -> list[int]:
        return list(accumulate(r.last - r.first + 1 for r in self.ranges))

    @property
    def count(self) -> int:
        """Number of targets, of any size; a name is one."""
        return (self._ends[-1] if self.ranges else 0) + len(self.names)

    def slice(self, start: int, count: int) -> list[str]:
        """Give targets start … start + count - 1 as few compact specs; names come last."""
        specs: list[str] = []
        before = self.count - len(self.names)
        at, stop = start, min(start + count, before)
        for i in range(bisect_right(self._ends, start), len(self.ranges)):
            if at >= stop:
                break
            to_place = self.ranges[i].last + 1 - self._ends[i]  # from index to place
            end = min(stop, self._ends[i])
            specs.append(text(Range(at + to_place, end - 1 + to_place)))
            at = end
        return specs + list(self.names[max(0, start - before) : max(0, start + count - before)])

    def minus(self, exclude: "Targets") -> "Targets":
        """Leave out what is in `exclude`: addresses by arithmetic, names by name."""
        if not exclude.ranges and not exclude.names:
            return self
        names = sorted(set(self.names) - set(exclude.names))
        return Targets(tuple(merge(self.ranges, exclude.ranges)), tuple(names))

    def addresses(self) -> Iterator[str]:
        """Give each address; names are not among them."""
        for first, last in self.ranges:
            yield from (text(Range(at, at)) for at in range(first, last + 1))


def parse_targets(specs: Iterable[str]) -> Targets:
    """Read targets as the user wrote them.

    Raises:
        UsageError: one is not understood.
    """
    parsed = [_parse(spec) for spec in specs]
    if not parsed:  # of most chunks' exclusions
        return Targets()
    names = sorted({one for one in parsed if isinstance(one, str)})
    return Targets(tuple(merge([r for r in parsed if not isinstance(r, str)])), tuple(names))


def read_targets(path: str, stdin: TextIO) -> list[str]:
    """Read specs from a file, or from stdin when the path is ``-``; ``#`` starts a comment.

    Raises:
        UsageError: the file cannot be read.
    """
    try:
        lines = (stdin.read() if path == "-" else Path(path).read_text("utf-8")).splitlines()
    except (OSError, UnicodeError) as error:
        raise UsageError(f"targets in {path!r} cannot be read: {error}") from error
    return [spec for line in lines for spec in line.partition("#")[0].split()]


def _parse(spec: str) -> Range | str:
    try:
        return parse_range(spec)
    except ValueError:
        name = spec.lower().removesuffix(".")
    if _NAME.fullmatch(name):
        return name
    raise UsageError(
        f"target {spec!r} is no address (without a zone), CIDR (10.0.0.0/24), "
        "range (10.0.0.5-20 or 10.0.0.1-10.0.1.9) or host name"
    )
