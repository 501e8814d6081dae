"""How an attempt ended, in the words of RQ's records."""

import base64
import traceback
import zlib
from typing import Any

import msgspec
from msgspec import structs

from rqscan import clock
from rqscan.errors import FailedError, RefusedError
from rqscan.fleet.stable import retries
from rqscan.fleet.stable.wire import Assignment, Outcome

__all__ = ["failure", "lost", "success"]


def success(assignment: Assignment, value: Any, worked_s: float) -> Outcome:
    """Describe a finished job: RQ's result entry with the value as JSON."""
    counts = value if isinstance(value, dict) else {}
    value_field = base64.b64encode(msgspec.json.encode(value)).decode()
    return Outcome(
        disposition="finished",
        worked_s=worked_s,
        result_ttl_s=assignment.result_ttl_s,
        observations=counts.get("observations", 0),
        probes=counts.get("probes", 0),
        spooled=counts.get("spooled", 0),
        result=_entry(assignment, 1, worked_s) | {"return_value": value_field},
    )


def failure(
    assignment: Assignment, error: BaseException, worked_s: float, stacks: str = ""
) -> Outcome:
    """Describe a failed job: RQ's result entry and job field with the traceback.

    `stacks` is what a job was doing that had to be stopped; the error stays the last line.
    """
    text = stacks + "".join(traceback.format_exception(error))
    packed = zlib.compress(text.encode(errors="backslashreplace"))
    return Outcome(
        disposition="failed",
        worked_s=worked_s,
        failure_ttl_s=assignment.failure_ttl_s,
        retries=retries.most(assignment, error),
        retry_delay_s=retries.delay_s(assignment),
        is_refused=isinstance(error, RefusedError),
        error=_last_line(error),
        fields={"exc_info": packed},
        result=_entry(assignment, 2, worked_s) | {"exc_string": base64.b64encode(packed).decode()},
    )


def lost(
    assignment: Assignment, how: str, worked_s: float, most: int, *, with_others: bool = False
) -> Outcome:
    """Describe a job whose horse died, alone or `with_others`: their template, and all of them.

    The script counts, and fails the job at the death `most`.
    """
    whose = "its worker, host or template" if with_others else "the job's own horse"
    poison = FailedError(f"{how}; {whose} died {most} times")
    end = failure(assignment, poison, worked_s)
    end.fields["rqscan_loss"] = how
    return structs.replace(
        end,
        disposition="displaced" if with_others else "lost",
        error=how,
        poison=end.error,
        is_recorded=False,
    )


def _last_line(error: BaseException) -> str:
    line = "".join(traceback.format_exception_only(error)).strip().splitlines()[-1]
    return line.encode(errors="backslashreplace").decode()


def _entry(assignment: Assignment, kind: int, worked_s: float) -> dict[str, Any]:
    """Give the fields that `rq.results.Result.serialize` writes; a test holds them against it."""
    ended = clock.now().timestamp()
    return {
        "type": kind,
        "worker_name": assignment.worker,
        "execution_id": assignment.token,
        "execution_started_at": ended - worked_s,
        "execution_ended_at": ended,
    }
