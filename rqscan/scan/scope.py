"""The scope: what may be touched. Deny wins; a name is as good as the worst of its addresses.

Checked when a scan is asked for (`Scope.check`, `Scope.split`) and before each dial
(`Scope.may_dial`); it comes from this process' own settings, never from a payload, which can
only exclude more.
"""

import socket
from bisect import bisect_right
from collections.abc import Callable, Iterable, Sequence

from rqscan.errors import ConfigError, OutOfScopeError, UsageError
from rqscan.scan.ranges import Range, merge, parse_range, place, text
from rqscan.scan.targets import Targets, parse_targets

__all__ = ["Scope", "resolve"]

_NEVER = ("0.0.0.0/8", "::", "224.0.0.0/4", "ff00::/8", "255.255.255.255")
"""This network, any address, multicast and broadcast: no single host answers there."""


def resolve(name: str) -> list[str]:
    """Give the addresses of a name.

    Raises:
        UsageError: it has none, or cannot be looked up.
    """
    try:
        found = socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)
    except OSError as error:
        raise UsageError(f"target {name!r} cannot be resolved: {error}") from error
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


class Scope:
    """Addresses that may be scanned: those in `allow` that are neither in `deny` nor in `exclude`.

    `look_up` gives the addresses of a name, or raises a `UsageError` if it has none.

    Raises:
        ConfigError: an entry is no address, CIDR or range (a name's addresses may change).
        UsageError: an excluded target is not understood.
    """

    def __init__(
        self,
        allow: Iterable[str],
        deny: Iterable[str],
        exclude: Iterable[str] = (),
        *,
        look_up: Callable[[str], Sequence[str]] = resolve,
    ) -> None:
        self._look_up = look_up
        self._denied = [
            *((found, f"denied by scope.deny {entry}") for entry, found in _parse("deny", deny)),
            *((parse_range(entry), f"never scanned ({entry})") for entry in _NEVER),
        ]
        allowed = [found for _, found in _parse("allow", allow)]
        self._inside = merge(allowed, [found for found, _ in self._denied])
        self._begin(exclude)

    def _begin(self, exclude: Iterable[str]) -> None:
        self._addresses: dict[str, Sequence[str]] = {}
        self._excluded = parse_targets(exclude)
        if ranges := self._excluded.ranges:
            self._denied = [*self._denied, *((r, f"excluded ({text(r)})") for r in ranges)]
            self._inside = merge(self._inside, ranges)

    def afresh(self, exclude: Iterable[str]) -> "Scope":
        """Give the same scope for other work: names are looked up anew, and `exclude` is left out.

        Raises:
            UsageError: an excluded target is not understood.
        """
        scope = object.__new__(Scope)
        vars(scope).update(vars(self))  # in a new process `copy` costs more than the rest of this
        scope._begin(exclude)
        return scope

    def resolve(self, name: str) -> Sequence[str]:
        """Give the addresses of a name, looked up once: what was checked is what is dialled.

        Raises:
            UsageError: it has none.
        """
        if name not in self._addresses:
            self._addresses[name] = self._look_up(name)
        return self._addresses[name]

    def may_dial(self, address: str) -> bool:
        """Tell whether this address may get a packet."""
        at = place(address)
        return self._covers(Range(at, at))

    def _covers(self, found: Range) -> bool:
        i = bisect_right(self._inside, found.first, key=lambda inside: inside.first) - 1
        return i >= 0 and found.last <= self._inside[i].last

    def check(self, specs: Sequence[str]) -> Targets:
        """Give what is left of targets, as the user wrote them, without what is excluded.

        Raises:
            OutOfScopeError: one is outside; it is named with the rule, and how many there are.
            UsageError: a spec is not understood, or a name cannot be resolved.
        """
        inside, outside = self.split(specs)
        if outside.count:
            why = next(why for spec in specs if (why := self._why_not(spec)))
            raise OutOfScopeError(
                f"{why}; {outside.count} of {inside.count + outside.count} targets "
                f"{'is' if outside.count == 1 else 'are'}",
                advice="--skip-out-of-scope leaves out what is outside",
            )
        return inside

    def split(self, specs: Iterable[str]) -> tuple[Targets, Targets]:
        """Sort targets into those inside and those outside, without what is excluded.

        Raises:
            UsageError: a spec is not understood, or a name cannot be resolved.
        """
        targets = parse_targets(specs).minus(self._excluded)
        names = tuple(name for name in targets.names if self._outside(name))
        doubtful = [found for found in targets.ranges if not self._covers(found)]
        outside = Targets(tuple(merge(doubtful, self._inside)), names)
        return targets.minus(outside), outside

    def _outside(self, name: str) -> list[str]:
        return [address for address in self.resolve(name) if not self.may_dial(address)]

    def _why_not(self, spec: str) -> str | None:
        _, outside = self.split([spec])
        places = [found.first for found in outside.ranges]
        places += [place(address) for name in outside.names for address in self._outside(name)]
        if not places:
            return None
        at = places[0]
        rules = (rule for found, rule in self._denied if found.first <= at <= found.last)
        rule = next(rules, "not in scope.allow")
        return f"target {spec!r} is outside the scope: {text(Range(at, at))} is {rule}"


def _parse(setting: str, entries: Iterable[str]) -> list[tuple[str, Range]]:
    found = []
    for entry in entries:
        try:
            found.append((entry, parse_range(entry)))
        except ValueError as error:
            raise ConfigError(
                f"scope.{setting}: {entry!r} is no address, CIDR or range; give addresses, no names"
            ) from error
    return found
