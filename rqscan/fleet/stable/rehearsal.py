"""The rehearsal: jobs that do nothing, run in the template, so that its horses know their way.

The first calls of anything build tables, import lazily and have the interpreter rewrite its code.
In a horse each of them is a page that must be copied from the template, job after job.
"""

import socket
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Any, Protocol

import msgspec
from msgspec import Struct

from rqscan.broker.payload import RUN_CHUNK, job_id
from rqscan.errors import UsageError
from rqscan.fleet.stable import wire
from rqscan.fleet.stable.wire import Assignment, Outcome, Report
from rqscan.model import Chunk, ChunkRecord, Observation
from rqscan.process import adopt_orphans, has_children, retitle
from rqscan.scan.kinds import Kind, Run, check_params
from rqscan.scan.runner import Runner
from rqscan.store.outbox import Kept

__all__ = ["rehearse"]

TIMES = 20
"""Enough for the interpreter: it rewrites a function that was called eight times."""


class _Play(Protocol):
    def __call__(self, assignment: Assignment, runner: Runner, sock: socket.socket) -> Outcome: ...


class _Nothing(Struct, frozen=True):
    pass


class _Stage(Runner):
    """A runner with one kind, which does nothing; what it records is kept nowhere."""

    def __init__(self, runner: Runner) -> None:
        self._scope = runner._scope  # noqa: SLF001 - of its own class

    def _kind(self, name: str) -> Kind:
        return Kind(name, _do_nothing, _Nothing, lambda _: 1, lambda _: 0.0)

    def _record(self, _record: ChunkRecord) -> Kept:
        return Kept.STORED


def _do_nothing(_addresses: Sequence[str], _params: Any, run: Run) -> Iterator[Observation]:
    run.advance(1)
    return iter(())


def rehearse(runner: Runner, play: _Play) -> None:
    """Have jobs succeed and be refused, and do all that a horse does around them."""
    stage = _Stage(runner)
    for kind in runner.kinds.values():
        with suppress(UsageError):  # one without a default; its record is known from now on
            check_params(kind, {})
    for number in range(TIMES):
        chunk = Chunk(
            scan_id="rehearsal", chunk=number, kind="none", targets=["127.0.0.1"], params={}
        )
        call = [RUN_CHUNK, None, [], msgspec.to_builtins(chunk)]
        data = b"" if number % 4 == 0 else msgspec.json.encode(call)  # some are refused
        ours, theirs = socket.socketpair()
        with ours, theirs:
            wire.send(ours, _assignment(job_id(chunk.scan_id, number, 1), data))
            adopt_orphans()
            assignment = wire.receive(theirs)
            assert assignment
            retitle(f"rqscan horse {assignment.job_id}")
            wire.send(theirs, Report(0))
            wire.send(theirs, play(assignment, stage, theirs))
            has_children()


def _assignment(name: str, data: bytes) -> Assignment:
    return Assignment(
        queue="", job_id=name, token="", attempt=1, data=data, worker="", clock_offset_s=0.0,
        timeout_s=1, result_ttl_s=0, failure_ttl_s=0,
    )  # fmt: skip
