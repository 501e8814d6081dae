"""The work-horse: a fresh process that runs one job and tells how it ended.

Nothing here knows Redis: `run_chunk` writes its rows through the outbox, and its result goes to
the worker as the arguments of the finish script. A plain function of RQ's own API (its name allowed
by the operator) goes to a horse of the full template, where `fleet.stable.horse_rq` is loaded.
"""

import gc
import os
import resource
import signal
import socket
import time
from collections.abc import Callable
from typing import Protocol

from msgspec import structs

from rqscan import clock
from rqscan.broker.payload import RUN_CHUNK, decode
from rqscan.errors import RefusedPayloadError
from rqscan.fleet.stable import wire
from rqscan.fleet.stable.outcomes import failure, success
from rqscan.fleet.stable.rehearsal import rehearse
from rqscan.fleet.stable.retries import will_retry
from rqscan.fleet.stable.soft_limit import soft_limit
from rqscan.fleet.stable.wire import REPORT_S, Assignment, Outcome, Report, Terms
from rqscan.process import adopt_orphans, die_with, has_children, retitle
from rqscan.scan.kinds import Kind
from rqscan.scan.runner import Attempt, Runner
from rqscan.settings import Settings

__all__ = ["Plain", "main", "prepare"]


class Plain(Protocol):
    """What a horse of the full template can do besides (`rqscan.fleet.stable.horse_rq`)."""

    def run(self, assignment: Assignment, began: float) -> Outcome:
        """Run a plain function that began at monotonic time `began`."""

    def follow_up(self, assignment: Assignment) -> Outcome:
        """Do what the end of a job entails."""


def prepare(settings: Settings, plugins: list[str]) -> Runner:
    """Load in the template what every horse would load again: kinds, drivers, lazy imports."""
    runner = Runner(settings, plugins)
    rehearse(runner, lambda assignment, stage, sock: run(assignment, settings, stage, None, sock))
    return runner


def main(
    sock: socket.socket, template_pid: int, settings: Settings, runner: Runner, plain: Plain | None
) -> None:
    """Run jobs from `sock` until there are no more, then exit; never returns."""
    die_with(template_pid, signal.SIGKILL)
    adopt_orphans()  # what a job has started is ours until we end, and the template's then
    os.setpgid(0, 0)
    if limit := settings.worker.memory_limit_bytes:
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    left = settings.worker.max_jobs_per_horse or -1
    if left != 1:  # else its end takes all away, at less cost
        gc.enable()
    while left and (assignment := wire.receive(sock)):
        retitle(f"rqscan horse {assignment.job_id}")
        outcome = run(assignment, settings, runner, plain, sock)
        left -= 1
        # A failure may have left anything behind, and what runs on belongs to its job alone.
        if not left or outcome.disposition != "finished" or has_children():
            wire.send(sock, outcome)
            break
        wire.send(sock, structs.replace(outcome, is_going_on=True))
    runner.close()  # a database counts clients that went without a word
    os._exit(has_children())  # 0 tells the template that nothing is left to end


def run(
    assignment: Assignment,
    settings: Settings,
    runner: Runner,
    plain: Plain | None,
    sock: socket.socket,
) -> Outcome:
    """Run one job and say how it ended; whatever the job does, this returns."""
    clock.correct(assignment.clock_offset_s)
    began = time.monotonic()
    is_recorded = False

    def note() -> None:
        nonlocal is_recorded
        is_recorded = True

    def announce(kind: Kind) -> None:
        nonlocal assignment
        if kind.stall_timeout_s or kind.retries is not None:
            terms = Terms(stall_timeout_s=kind.stall_timeout_s, retries=kind.retries)
            assignment = terms.apply(assignment)
            wire.send(sock, terms)

    try:
        if assignment.after and plain:
            return plain.follow_up(assignment)
        call = decode(assignment.data, settings.worker.allow_functions)
        if call.function == RUN_CHUNK:
            attempt = Attempt(
                number=assignment.attempt,
                worker=assignment.worker,
                report=_reporter(sock),
                job_id=assignment.job_id,
                announce=announce,
                limit=soft_limit(assignment.soft_timeout_s),
                on_recorded=note,
                will_retry=lambda error: will_retry(assignment, error),
            )
            counts = runner.run(call.kwargs, attempt)
            return success(assignment, counts, time.monotonic() - began)
        return _full(plain, assignment, call.function).run(assignment, began)
    except BaseException as e:  # noqa: BLE001 - a job may raise anything; its record is the answer
        outcome = failure(assignment, e, time.monotonic() - began)
        return structs.replace(outcome, is_recorded=is_recorded)


def _full(plain: Plain | None, assignment: Assignment, function: str) -> Plain:
    if plain:
        return plain
    raise RefusedPayloadError(
        f"the job is of the scan kind {assignment.kind!r}, but its payload names {function!r}; "
        "refused and kept for inspection"
    )


def _reporter(sock: socket.socket) -> Callable[[float], None]:
    last = time.monotonic()

    def report(progress: float) -> None:
        nonlocal last
        if time.monotonic() - last >= REPORT_S:
            last = time.monotonic()
            wire.send(sock, Report(progress))

    return report
