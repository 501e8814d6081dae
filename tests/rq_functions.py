"""Plain functions and callbacks that the tests of RQ's features enqueue by name."""

import os
from threading import Event

from rq import Retry, get_current_job

NOTES = "notes"


def note(*words):
    """Write down, in order, that something was done."""
    get_current_job().connection.rpush(NOTES, " ".join(map(str, words)))


def echo(value):
    return value


def fail(text="as asked"):
    raise ValueError(text)


def fail_while_retries_are_left():
    note("try")
    if get_current_job().retries_left:
        raise ValueError("not yet")


def ask_again(most):
    note("try")
    return Retry(max=most)


def keep_meta():
    job = get_current_job()
    job.meta["seen_as"] = os.environ["RQ_JOB_ID"]
    job.save_meta()


def hold(name=""):
    """Say that it has begun, and end once `go` says so."""
    job = get_current_job()
    note("begun", name)
    job.connection.blpop(f"go:{name}", 60)
    note("ended", name)


def never_end():
    Event().wait()


def succeeded(job, connection, result):
    connection.rpush(NOTES, f"succeeded {result} {job.get_status(refresh=False).value}")


def failed(job, connection, kind, error, trace):
    connection.rpush(NOTES, f"failed {kind.__name__} {error}")


def stopped(job, connection):
    connection.rpush(NOTES, "stopped")
