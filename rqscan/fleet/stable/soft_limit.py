"""The soft limit of a job: an exception in it when its time is over."""

import signal
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext

__all__ = ["SoftTimeout", "soft_limit"]


class SoftTimeout(BaseException):
    """The soft limit has passed; no `except Exception` in a job may swallow it."""


def soft_limit(seconds: float, error: BaseException | None = None) -> AbstractContextManager[None]:
    """Raise `error` (`SoftTimeout` by default) in the block once it has run so long; 0: never.

    An alarm that comes as the block ends is either raised inside of it or not at all.
    """
    return _alarm(seconds, error) if seconds else nullcontext()


@contextmanager
def _alarm(seconds: float, error: BaseException | None) -> Iterator[None]:
    error = error or SoftTimeout(f"the job ran longer than its soft limit of {seconds:g} s")
    is_armed = True

    def expire(_signum: int, _frame: object) -> None:
        nonlocal is_armed
        if is_armed:
            is_armed = False  # once: this may cut the block's end short
            raise error

    signal.signal(signal.SIGALRM, expire)
    try:
        signal.setitimer(signal.ITIMER_REAL, seconds)
        yield
    finally:
        is_armed = False  # Python runs the handler of a signal later than the signal comes
        signal.setitimer(signal.ITIMER_REAL, 0)
