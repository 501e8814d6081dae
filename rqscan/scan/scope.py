"""The scope: what may be touched. Deny wins; a name is as good as the worst of its addresses.

Checked when a scan is asked for (`Scope.check`, `Scope.split`) and before each dial
(`Scope.may_dial`); it comes from this process' own settings, never from a payload.
"""

import socket
from bisect import bisect_right
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from rqscan.errors import ConfigError, OutOfScopeError, UsageError
from rqscan.scan.ranges import Range, merge, parse_range, place, subtract, text
from rqscan.scan.targets import Targets, parse_targets

__all__ = ["Scope", "resolve"]

_NEVER = ("0.0.0.0/8", "::/128", "224.0.0.0/4", "ff00::/8", "255.255.255.255")
"""This network, any address, multicast and broadcast: no single host answers there."""


class _Split(NamedTuple):
    inside: Targets
    outside: Targets
    why: str  # the first target outside, as written, with the rule


def resolve(name: str) -> list[str]:
    """Give the addresses of a name.

    Raises:
        UsageError: it has none, or cannot be looked up.
    """
    try:
        found = socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise UsageError(f"target {name!r} cannot be resolved: {error}") from error
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


class Scope:
    """Addresses that may be scanned: those in `allow` and not in `deny`.

    Raises:
        ConfigError: an entry is no address, CIDR or range (a name's addresses may change).
    """

    def __init__(self, allow: Iterable[str], deny: Iterable[str]) -> None:
        allowed = [found for found, _ in _entries("allow", allow)]
        self._denied = [(found, f"denied by scope.deny {e}") for found, e in _entries("deny", deny)]
        self._denied += [(parse_range(entry), f"never scanned ({entry})") for entry in _NEVER]
        self._inside = subtract(merge(allowed), merge(found for found, _ in self._denied))
        self._firsts = [found.first for found in self._inside]

    def may_dial(self, address: str) -> bool:
        """Tell whether this address may get a packet."""
        at = place(address)
        i = bisect_right(self._firsts, at) - 1
        return i >= 0 and at <= self._inside[i].last

    def check(
        self,
        specs: Sequence[str],
        exclude: Targets = Targets(),  # noqa: B008 - frozen
        *,
        resolve: Callable[[str], Sequence[str]] = resolve,
    ) -> None:
        """Refuse targets, as the user wrote them, of which any is outside.

        Raises:
            OutOfScopeError: one is; it is named with the rule, and how many there are.
            UsageError: a spec is not understood, or a name cannot be resolved.
        """
        found = self._split(specs, exclude, resolve)
        if found.outside.count:
            total = found.inside.count + found.outside.count
            are = "is" if found.outside.count == 1 else "are"
            raise OutOfScopeError(
                f"{found.why}; {found.outside.count} of {total} targets {are}",
                advice="--skip-out-of-scope leaves them out; scope.allow in rqscan.toml says "
                "what may be scanned",
            )

    def split(
        self,
        specs: Sequence[str],
        exclude: Targets = Targets(),  # noqa: B008 - frozen
        *,
        resolve: Callable[[str], Sequence[str]] = resolve,
    ) -> tuple[Targets, int]:
        """Give the targets inside, and how many were left out.

        Raises:
            UsageError: a spec is not understood, or a name cannot be resolved.
        """
        found = self._split(specs, exclude, resolve)
        return found.inside, found.outside.count

    def _split(
        self, specs: Sequence[str], exclude: Targets, resolve: Callable[[str], Sequence[str]]
    ) -> _Split:
        targets = parse_targets(specs).minus(exclude)
        bad_names = {name: at for name in targets.names if (at := self._bad(resolve(name)))}
        outside = Targets(tuple(subtract(targets.ranges, self._inside)), tuple(bad_names))
        inside = targets.minus(outside)
        return _Split(inside, outside, self._why(specs, outside, bad_names))

    def _bad(self, addresses: Sequence[str]) -> str | None:
        return next((a for a in addresses if not self.may_dial(a)), None)

    def _why(self, specs: Sequence[str], outside: Targets, bad_names: dict[str, str]) -> str:
        for spec in specs:
            one = parse_targets([spec])
            for name in one.names:
                if at := bad_names.get(name):
                    rule = self._rule(place(at))
                    return f"target {spec!r} is outside the scope: its address {at} is {rule}"
            hit = subtract(one.ranges, subtract(one.ranges, outside.ranges))
            if hit:
                rule = self._rule(hit[0].first)
                return f"target {spec!r} is outside the scope: {rule}"
        return ""

    def _rule(self, at: int) -> str:
        for found, rule in self._denied:
            if found.first <= at <= found.last:
                return rule
        return f"{text(Range(at, at))} is not in scope.allow"


def _entries(setting: str, entries: Iterable[str]) -> list[tuple[Range, str]]:
    found, wrong = [], []
    for entry in entries:
        try:
            found.append((parse_range(entry), entry))
        except ValueError:
            wrong.append(f"scope.{setting}: {entry!r} is no address, CIDR or range")
    if wrong:
        raise ConfigError("; ".join(wrong))
    return found
