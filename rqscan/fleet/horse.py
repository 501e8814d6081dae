"""The work-horse: a fresh process that runs one job and tells how it ended.

Nothing here knows Redis: `run_chunk` writes its rows through the outbox, and its result goes to
the worker as the arguments of the finish script. Only a plain function of RQ's own API (its name
allowed by the operator) makes a horse load RQ, in `rqscan.fleet.horse_rq`.
"""

import importlib
import os
import resource
import signal
import socket
import time
from collections.abc import Callable

from setproctitle import setproctitle

from rqscan import clock
from rqscan.broker.payload import RUN_CHUNK, decode
from rqscan.config import Settings
from rqscan.fleet import wire
from rqscan.fleet.outcomes import failure, success
from rqscan.fleet.wire import Assignment, Outcome, Report
from rqscan.process import die_with
from rqscan.scan.execute import Attempt, Runner

__all__ = ["main", "prepare"]

REPORT_S = 1.0
"""Shortest time between two reports of progress."""


class SoftTimeout(BaseException):
    """The soft limit has passed; no `except Exception` in a kind may swallow it."""


def prepare(settings: Settings) -> Runner:
    """Load in the template what every horse would load again: kinds, drivers, lazy imports."""
    runner = Runner(settings)
    assignment = Assignment(
        queue="", job_id="", token="", attempt=1, data=b"[]", worker="", clock_offset_s=0,
        timeout_s=1, result_ttl_s=0, failure_ttl_s=0,
    )  # fmt: skip
    failure(assignment, ValueError("warm-up"), 0.0)
    success(assignment, {}, 0.0)
    return runner


def main(sock: socket.socket, template_pid: int, settings: Settings, runner: Runner) -> None:
    """Run jobs from `sock` until there are no more, then exit; never returns."""
    die_with(template_pid, signal.SIGKILL)
    os.setpgid(0, 0)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    if limit := settings.worker.memory_limit_bytes:
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    left = settings.worker.max_jobs_per_horse or -1
    while left and (assignment := wire.receive(sock)):
        setproctitle(f"rqscan horse {assignment.job_id}")
        outcome = run(assignment, settings, runner, sock)
        wire.send(sock, outcome)
        if outcome.disposition != "finished":  # a failure may have left anything behind
            break
        left -= 1
    runner.close()  # a database counts clients that went without a word
    os._exit(0)


def run(assignment: Assignment, settings: Settings, runner: Runner, sock: socket.socket) -> Outcome:
    """Run one job and say how it ended; whatever the job does, this returns."""
    clock.correct(assignment.clock_offset_s)
    began = time.monotonic()
    _set_soft_timeout(assignment.soft_timeout_s)
    try:
        call = decode(assignment.data, settings.worker.allow_functions)
        if call.function == RUN_CHUNK:
            attempt = Attempt(
                assignment.attempt, assignment.worker, _reporter(sock), assignment.job_id
            )
            counts = runner.run(call.kwargs, attempt)
            return success(assignment, counts, time.monotonic() - began)
        horse_rq = importlib.import_module("rqscan.fleet.horse_rq")
        outcome: Outcome = horse_rq.run(assignment, settings, began)
    except BaseException as e:  # noqa: BLE001 - a job may raise anything; its record is the answer
        return failure(assignment, e, time.monotonic() - began)
    else:
        return outcome
    finally:
        _set_soft_timeout(0)


def _reporter(sock: socket.socket) -> Callable[[float], None]:
    last = time.monotonic()

    def report(progress: float) -> None:
        nonlocal last
        if time.monotonic() - last >= REPORT_S:
            last = time.monotonic()
            wire.send(sock, Report(progress))

    return report


def _set_soft_timeout(seconds: float) -> None:
    def expire(_signum: int, _frame: object) -> None:
        raise SoftTimeout(f"the job ran longer than its soft limit of {seconds:g} s")

    signal.signal(signal.SIGALRM, expire)
    signal.setitimer(signal.ITIMER_REAL, seconds)
