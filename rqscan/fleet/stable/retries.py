"""Retries: whether a failed attempt may be tried again, and when.

A work-horse, or the worker for a horse that it had to end, says how often and how soon; the finish
script counts the failures and decides, by the same rule as `will_retry`. Losses do not count.
"""

from rqscan.chance import chance
from rqscan.errors import FencedError, RefusedError, UsageError
from rqscan.fleet.stable.wire import Assignment

__all__ = ["delay_s", "most", "will_retry"]

CANNOT_SUCCEED = (RefusedError, UsageError, FencedError)
"""Bad parameters, out of scope, a foreign payload, another store: the next time is no better."""

JITTER = 0.2
"""Share of the delay by which it may differ: what failed together is not tried again together."""

MOST_DOUBLINGS = 30


def most(assignment: Assignment, error: BaseException) -> int:
    """Give how many failures of the job are tried again, after this one."""
    return 0 if isinstance(error, CANNOT_SUCCEED) else assignment.retries


def will_retry(assignment: Assignment, error: BaseException) -> bool:
    """Tell whether the job will be tried again after this failure."""
    return assignment.failures < most(assignment, error)


def delay_s(assignment: Assignment) -> float:
    """Give how long to wait after this failure: doubled with each, with jitter, up to the cap."""
    doubled_s: float = assignment.retry_backoff_s * 2.0 ** min(assignment.failures, MOST_DOUBLINGS)
    spread = 1 + JITTER * (2 * chance() - 1)
    return min(doubled_s * spread, assignment.retry_backoff_max_s)
