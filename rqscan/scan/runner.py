"""The runner: run one chunk and record its rows.

payload → checked → kind → observations → outbox. This is the second place where the scope is
checked, with this worker's own settings: a payload that was altered in Redis widens nothing.
"""

import contextlib
import socket
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any, NamedTuple

import msgspec

from rqscan import clock
from rqscan.broker.payload import job_id
from rqscan.errors import FencedError, RefusedPayloadError, ServiceUnavailable, UsageError
from rqscan.model import COVERAGE, Chunk, ChunkRecord, Observation
from rqscan.scan.kinds import Kind, Run, check_params, get_kind, load_kinds
from rqscan.scan.scope import Scope
from rqscan.settings import Settings
from rqscan.states import ChunkState
from rqscan.store.outbox import Kept, Outbox

__all__ = ["Attempt", "Runner"]


class Attempt(NamedTuple):
    """Which attempt of a chunk this is, by whom, under which limit, and whom to tell of it."""

    number: int = 1
    worker: str = socket.gethostname()
    report: Callable[[float], None] = lambda _progress: None  # how far it is, 0 to 1
    job_id: str | None = None  # what the payload must agree with
    announce: Callable[[Kind], None] = lambda _kind: None  # before the kind begins
    limit: AbstractContextManager[None] = nullcontext()  # around the kind's work, not its record
    on_recorded: Callable[[], None] = lambda: None  # the store knows of a failure
    will_retry: Callable[[BaseException], bool] = lambda _error: False


class Runner:
    """Runs chunks under one deployment's settings, of its kinds and those of installed packages."""

    def __init__(self, settings: Settings, plugins: Iterable[str] = ()) -> None:
        self.kinds = load_kinds(settings.jobs.path, plugins)
        self._scope = Scope(settings.scope.allow, settings.scope.deny)
        self._outbox = Outbox(settings)

    def run(self, payload: dict[str, Any], attempt: Attempt) -> dict[str, int]:
        """Run one chunk and record how it ended; returns its observations and probes, counted.

        With `spooled` among them those observations are on this host's disk, not in the store yet.

        Where the store has it finished by another attempt, that one's end is this one's too: Redis
        may have been set back behind it.

        Raises:
            RefusedPayloadError: the payload is no chunk.
            OutOfScopeError: it names a target that this worker may not touch.
            ServiceUnavailable: its rows could neither be recorded nor kept on this host's disk.
        """
        try:
            chunk = msgspec.convert(payload, Chunk)
        except msgspec.ValidationError as e:
            raise RefusedPayloadError(f"the payload is no chunk of a scan: {e}") from e
        name = job_id(chunk.scan_id, chunk.chunk, chunk.generation)
        if attempt.job_id not in {None, name}:
            raise RefusedPayloadError(
                f"the payload is of chunk {name}, but its job is {attempt.job_id}"
            )
        record = partial(
            ChunkRecord,
            scan_id=chunk.scan_id, chunk=chunk.chunk, generation=chunk.generation,
            attempt=attempt.number, kind=chunk.kind, worker=attempt.worker, started_at=clock.now(),
        )  # fmt: skip
        try:
            with attempt.limit:
                rows, probes = self._observe(chunk, attempt)
        except BaseException as e:  # a soft time-out is none of Exception
            error = f"{type(e).__name__}: {e}"
            # A chunk that will be tried again has not ended: its scan goes on.
            state = ChunkState.PLANNED if attempt.will_retry(e) else ChunkState.FAILED
            failed = record(state=state, finished_at=clock.now(), error=error)
            with contextlib.suppress(ServiceUnavailable):  # the cause matters more than its record
                is_refused = self._record(failed) is Kept.REFUSED
                if is_refused and (counts := self._counts(failed)):
                    return counts
                attempt.on_recorded()
            raise
        finished = record(
            state=ChunkState.FINISHED, finished_at=clock.now(), probes=probes, observations=rows
        )
        kept = self._record(finished)
        if kept is Kept.REFUSED:
            if counts := self._counts(finished):
                return counts
            raise FencedError(
                f"the rows of chunk {name} were not taken: it is cancelled, has a newer "
                "attempt, or is not in this store (is it the one that the scan was planned in?)"
            )
        count = sum(row.state != COVERAGE for row in rows)
        spooled = {"spooled": count} if kept is Kept.SPOOLED else {}
        return {"observations": count, "probes": probes} | spooled

    def _observe(self, chunk: Chunk, attempt: Attempt) -> tuple[list[Observation], int]:
        try:
            kind = self._kind(chunk.kind)
            params = check_params(kind, chunk.params)
        except UsageError as e:
            raise RefusedPayloadError(f"the payload asks for what is not here: {e}") from e
        attempt.announce(kind)
        scope = self._scope.afresh(chunk.exclude)
        targets = scope.check(chunk.targets)
        named = (scope.resolve(name)[0] for name in targets.names)
        addresses = list(dict.fromkeys([*targets.addresses(), *named]))
        planned = max(1, len(addresses) * kind.probes_per_host(params))
        probes = 0

        def advance(count: int) -> None:
            nonlocal probes
            probes += count
            if count:
                attempt.report(min(1.0, probes / planned))

        return list(kind.function(addresses, params, Run(scope.may_dial, advance))), probes

    def _kind(self, name: str) -> Kind:
        return get_kind(name)

    def _record(self, record: ChunkRecord) -> Kept:
        return self._outbox.record(record)

    def _counts(self, refused: ChunkRecord) -> dict[str, int] | None:
        found = self._outbox.finished(refused)
        return found and dict(zip(("observations", "probes"), found, strict=True))

    def foresee(self) -> None:
        """Load, in the process that is about to be forked, what the fork will need to record."""
        self._outbox.foresee()

    def close(self) -> None:
        """Close what was opened to record."""
        self._outbox.close()
