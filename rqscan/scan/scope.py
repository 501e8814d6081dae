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

__all__ = ["Scope", "Split", "resolve"]

_NEVER = ("0.0.0.0/8", "::", "224.0.0.0/4", "ff00::/8", "255.255.255.255")
"""This network, any address, multicast and broadcast: no single host answers there."""


class Split(NamedTuple):
    """Targets by the scope, and the first that is outside, as written, with the rule."""

    inside: Targets
    outside: Targets
    why: str  # empty when nothing is outside


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
    """Addresses that may be scanned: those in `allow` and not in `deny`.

    Raises:
        ConfigError: an entry is no address, CIDR or range (a name's addresses may change).
    """

    def __init__(
        self,
        allow: Iterable[str],
        deny: Iterable[str],
        *,
        resolve: Callable[[str], Sequence[str]] = resolve,
    ) -> None:
        self._resolve = resolve
        allowed, denied = _parse("allow", allow), _parse("deny", deny)
        self._denied = [(found, f"denied by scope.deny {entry}") for entry, found in denied]
        self._denied += [(parse_range(entry), f"never scanned ({entry})") for entry in _NEVER]
        holes = merge(found for found, _ in self._denied)
        self._inside = subtract(merge(found for _, found in allowed), holes)
        self._firsts = [found.first for found in self._inside]

    def may_dial(self, address: str) -> bool:
        """Tell whether this address may get a packet."""
        at = place(address)
        i = bisect_right(self._firsts, at) - 1
        return i >= 0 and at <= self._inside[i].last

    def check(self, specs: Sequence[str], exclude: Targets | None = None) -> None:
        """Refuse targets, as the user wrote them, when any that is not excluded is outside.

        Raises:
            OutOfScopeError: one is; it is named with the rule, and how many there are.
            UsageError: a spec is not understood, or a name cannot be resolved.
        """
        inside, outside, why = self.split(specs, exclude)
        if outside.count:
            raise OutOfScopeError(
                f"{why}; {outside.count} of {inside.count + outside.count} targets "
                f"{'is' if outside.count == 1 else 'are'}",
                advice="--skip-out-of-scope leaves out what is outside",
            )

    def split(self, specs: Sequence[str], exclude: Targets | None = None) -> Split:
        """Sort targets by the scope, with arithmetic on ranges only.

        Raises:
            UsageError: a spec is not understood, or a name cannot be resolved.
        """
        exclude = exclude or Targets()
        targets = parse_targets(specs).minus(exclude)
        bad: dict[str, str] = {}  # name: its first address outside
        for name in targets.names:
            if at := next((a for a in self._resolve(name) if not self.may_dial(a)), None):
                bad[name] = at
        outside = Targets(tuple(subtract(targets.ranges, self._inside)), tuple(bad))
        why = self._why(specs, exclude, bad) if outside.count else ""
        return Split(targets.minus(outside), outside, why)

    def _why(self, specs: Sequence[str], exclude: Targets, bad: dict[str, str]) -> str:
        for spec in specs:
            one = parse_targets([spec]).minus(exclude)
            if hit := subtract(one.ranges, self._inside):
                return f"target {spec!r} is outside the scope: {self._rule(hit[0].first)}"
            for name in set(one.names) & bad.keys():
                rule = self._rule(place(bad[name]))
                return f"target {spec!r} ({bad[name]}) is outside the scope: {rule}"
        return ""

    def _rule(self, at: int) -> str:
        rules = (rule for found, rule in self._denied if found.first <= at <= found.last)
        return next(rules, f"{text(Range(at, at))} is not in scope.allow")


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
