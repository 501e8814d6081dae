"""The plan: what a scan will probe, cut into chunks, the same each time it is made.

A chunk is a run of consecutive targets with all ports, so that a host ends in one chunk and its
payload is a line. Chunks are enqueued in a shuffled order, and a kind shuffles inside its chunk:
neither a subnet nor a host gets its probes in a row. Nothing is expanded in memory: chunk *i* is
computed from the scan's row alone, so a /8 costs no more to hold than an address.
"""

import re
import secrets
from collections.abc import Iterator, Sequence
from datetime import datetime
from functools import lru_cache
from math import ceil

from msgspec import Struct, structs

from rqscan import clock
from rqscan.broker.queues import declared
from rqscan.errors import UsageError
from rqscan.model import Chunk, Scan
from rqscan.probe.order import Permutation
from rqscan.probe.timing import ANSWERED_S, MAX_WINDOW
from rqscan.scan.kinds import check_params, get_kind
from rqscan.scan.scope import Scope, resolve
from rqscan.scan.targets import Targets, parse_targets
from rqscan.settings import QueueSettings, Settings

__all__ = ["Plan", "check_asked", "make_plan", "plan_of", "queue_settings"]

PROBES_PER_CHUNK = 65_536
"""All ports of one host: one to two seconds of a work-horse where hosts answer."""

HOSTS_PER_CHUNK = 4_096
"""Most targets of a chunk, so that a lost one costs little to run again."""

MAX_TARGETS = 2**32
"""Most targets of one scan: all of IPv4; more could never be finished."""

CHUNKS_PER_SCAN = 10_000
"""Larger scans get larger chunks instead of more jobs than Redis should hold."""

_NAME = re.compile(r"[A-Za-z0-9_-]{1,64}")


class Plan(Struct, frozen=True):
    """A scan and its targets, ready to be cut."""

    scan: Scan
    targets: Targets
    left_out: int = 0  # targets outside the scope, where that was asked for

    def chunk_kinds(self) -> Iterator[tuple[int, str]]:
        """Give each chunk's number and kind, in order: what the store keeps of it."""
        return ((number, self._at(number)[0]) for number in range(self.scan.chunks))

    def chunk(self, number: int, generation: int = 1) -> Chunk:
        """Compute one chunk."""
        kind, block = self._at(number)
        size = self.scan.hosts_per_chunk[kind]
        return Chunk(
            scan_id=self.scan.scan_id,
            chunk=number,
            generation=generation,
            kind=kind,
            targets=self.targets.slice(block * size, size),
            exclude=self.scan.exclude,
            params=self.scan.params[kind],
        )

    def chunks(self) -> Iterator[Chunk]:
        """Give every chunk once, in the shuffled order that the scan's seed makes."""
        return map(self.chunk, Permutation(self.scan.chunks, self.scan.seed))

    def estimate_s(self) -> tuple[float, float]:
        """Give the seconds that one work-horse needs: if all probes are answered, if none is."""
        silent = 0.0
        for name, size in self.scan.hosts_per_chunk.items():
            kind = get_kind(name)
            params = check_params(kind, self.scan.params[name])
            chunks, rest = divmod(self.targets.count, size)
            per_host = kind.probes_per_host(params)
            windows = chunks * ceil(size * per_host / MAX_WINDOW) + ceil(
                rest * per_host / MAX_WINDOW
            )
            silent += windows * kind.silent_s(params)
        answered = self.scan.probes * ANSWERED_S
        return answered, max(answered, silent)

    def _at(self, number: int) -> tuple[str, int]:
        """Tell a chunk's kind, and which block of the targets it has."""
        for kind in self.scan.kinds[:-1]:
            blocks = ceil(self.targets.count / self.scan.hosts_per_chunk[kind])
            if number < blocks:
                return kind, number
            number -= blocks
        return self.scan.kinds[-1], number


@lru_cache(1)  # who makes a scan a second would read the same ranges each time
def _scope(allow: tuple[str, ...], deny: tuple[str, ...]) -> Scope:
    return Scope(allow, deny)


def make_plan(
    *,
    settings: Settings,
    targets: list[str],
    kinds: list[str],
    queue: str = "default",
    name: str = "adhoc",
    scan_id: str | None = None,
    exclude: Sequence[str] = (),
    ports: str | None = None,
    skip_out_of_scope: bool = False,
    schedule: str | None = None,
    due_at: datetime | None = None,
    result_ttl_s: int | None = None,
    failure_ttl_s: int | None = None,
) -> Plan:
    """Check what is asked for and plan it; nothing is sent, stored or enqueued.

    `name` groups the scans that can be compared; `exclude` travels with every chunk; `ports` goes
    to the kinds that have ports. `skip_out_of_scope` leaves out what the scope refuses, instead of
    refusing the whole. `schedule` is the entry that asks, `due_at` the time it asks for. The two
    TTLs take the place of the queue's.

    Raises:
        UsageError: a target, port, kind, name or queue makes no sense, or nothing is left.
        OutOfScopeError: a target is outside the scope.
    """
    if not _NAME.fullmatch(name):
        raise UsageError(
            f"scan name {name!r} is not 1 to 64 letters, digits, _ or -; choose another"
        )
    declared(settings, queue)
    # An excluded name stands for its addresses, wherever they come up among the targets.
    exclude = [*exclude, *(at for name in parse_targets(exclude).names for at in resolve(name))]
    scope = _scope(tuple(settings.scope.allow), tuple(settings.scope.deny)).afresh(exclude)
    if skip_out_of_scope:
        wanted, outside = scope.split(targets)
    else:
        wanted, outside = scope.check(targets), Targets()
    if not 1 <= wanted.count <= MAX_TARGETS:
        raise UsageError(
            f"{wanted.count} targets are left to scan, after what was excluded or is out of scope; "
            f"name 1 to {MAX_TARGETS}"
        )
    params, per_host = check_asked(kinds, ports)
    probes = wanted.count * sum(per_host.values())
    cut = max(PROBES_PER_CHUNK, probes // CHUNKS_PER_SCAN)
    most = max(HOSTS_PER_CHUNK, wanted.count // CHUNKS_PER_SCAN)
    sizes = {kind: min(most, max(1, cut // max(1, count))) for kind, count in per_host.items()}
    requested_at = clock.now()
    scan = Scan(
        scan_id=scan_id or f"{name}-{requested_at:%Y%m%dT%H%M%SZ}-{secrets.token_hex(2)}",
        name=name,
        queue=queue,
        kinds=list(per_host),
        targets=wanted.slice(0, wanted.count) if outside.count else targets,
        exclude=[*exclude],
        params=params,
        seed=secrets.randbits(63),
        hosts_per_chunk=sizes,
        chunks=sum(ceil(wanted.count / size) for size in sizes.values()),
        probes=probes,
        schedule=schedule,
        due_at=due_at,
        requested_at=requested_at,
        result_ttl_s=result_ttl_s,
        failure_ttl_s=failure_ttl_s,
    )
    return Plan(scan, wanted, outside.count)


def check_asked(
    kinds: Sequence[str], ports: str | None
) -> tuple[dict[str, dict[str, str]], dict[str, int]]:
    """Check kinds and ports; give each kind's parameters, and its probes for a host.

    Raises:
        UsageError: a kind is unknown, or does not take these ports.
    """
    if not kinds:
        raise UsageError("no kind is given; `rqscan kinds` lists them")
    params: dict[str, dict[str, str]] = {}
    per_host = {}
    for found in map(get_kind, dict.fromkeys(kinds)):
        takes_ports = "ports" in found.params.__struct_fields__
        params[found.name] = {"ports": ports} if takes_ports and ports is not None else {}
        per_host[found.name] = found.probes_per_host(check_params(found, params[found.name]))
    return params, per_host


def plan_of(scan: Scan) -> Plan:
    """Make the plan of a stored scan again: the same chunks under the same numbers."""
    return Plan(scan, parse_targets(scan.targets).minus(parse_targets(scan.exclude)))


def queue_settings(scan: Scan, settings: Settings) -> QueueSettings:
    """Give the settings of a scan's queue, with what the scan asks for instead.

    A queue that is not declared on this host has the defaults.
    """
    own = {"result_ttl_s": scan.result_ttl_s, "failure_ttl_s": scan.failure_ttl_s}
    asked = {name: value for name, value in own.items() if value is not None}
    return structs.replace(settings.queues.get(scan.queue) or QueueSettings(), **asked)
