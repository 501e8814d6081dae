"""Kinds that touch no address; and, where `BENCH_STORE` is off, a write path that writes nothing.

The template loads its kinds before it makes the outbox, so a module of the jobs folder can stand
another class in for it and every other line of the product runs as it is.
"""

import os
from collections.abc import Iterator, Sequence

import plain
from msgspec import Struct

from rqscan.model import ChunkRecord, Observation
from rqscan.scan import runner
from rqscan.scan.kinds import Run, kind
from rqscan.settings import Settings
from rqscan.store.outbox import Kept

# Not from rqscan.scan.plan: what a kind imports, the template carries, and that knows RQ.
PROBES_PER_CHUNK = 65_536


class Nothing(Struct, frozen=True, forbid_unknown_fields=True):
    """No parameters."""


class NoOutbox:
    """Takes every record and keeps none."""

    def __init__(self, _settings: Settings) -> None: ...

    def record(self, _record: ChunkRecord) -> Kept:
        return Kept.STORED

    def foresee(self) -> None: ...

    def close(self) -> None: ...


# As many probes as a chunk may have: each address is a chunk, and so a job, of its own.
@kind("noop", params=Nothing, probes_per_host=lambda _: PROBES_PER_CHUNK)
def noop(_addresses: Sequence[str], _params: Nothing, _run: Run) -> Iterator[Observation]:
    """Do nothing."""
    return iter(())


@kind("stamp", params=Nothing, probes_per_host=lambda _: 1)
def stamp(_addresses: Sequence[str], _params: Nothing, _run: Run) -> Iterator[Observation]:
    """Tell when this job started."""
    plain.stamp()
    return iter(())


if os.environ.get("BENCH_STORE") == "off":
    runner.Outbox = NoOutbox
