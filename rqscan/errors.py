"""Every error that rqscan raises on purpose, and the exit code each one becomes.

::

    RqscanError                    exit
     ├─ UsageError                   2   bad input: target, port, kind, queue, scan, platform
     │   └─ ConfigError              2   bad setting in rqscan.toml or the environment
     ├─ ServiceUnavailable           3   retryable: the same call may work later
     │   ├─ RedisUnavailable
     │   ├─ StoreUnavailable
     │   └─ HomeUnavailable              RQSCAN_HOME can't be made or written
     ├─ RefusedError                 4
     │   ├─ OutOfScopeError
     │   └─ RefusedPayloadError
     └─ FailedError                  1   asked for and not achieved: a held name, a failed scan
         └─ FencedError              done too late, or for nobody: the store did not take it

A message is one sentence that names what failed, the object, the value got and what to do; it
never holds a password. `advice` is the one more line that the command line may print.
"""

from enum import StrEnum
from typing import ClassVar

__all__ = [
    "ConfigError",
    "FailedError",
    "Fault",
    "FencedError",
    "HomeUnavailable",
    "OutOfScopeError",
    "RedisUnavailable",
    "RefusedError",
    "RefusedPayloadError",
    "RqscanError",
    "ServiceUnavailable",
    "StoreUnavailable",
    "UsageError",
]


class RqscanError(Exception):
    """Base of all: a sentence for the user, with an exit code."""

    exit_code: ClassVar[int] = 1

    def __init__(self, message: str, *, advice: str | None = None) -> None:
        super().__init__(message)
        self.advice = advice


class UsageError(RqscanError):
    """The user asked for something that makes no sense here."""

    exit_code = 2


class ConfigError(UsageError):
    """A setting is unknown or wrong; the message lists every one that is."""


class ServiceUnavailable(RqscanError):  # noqa: N818 - a state of the world, not a mistake
    """A server or disk is away or refuses us; the same call may work later."""

    exit_code = 3


class RedisUnavailable(ServiceUnavailable):
    """Redis cannot be reached, refuses us, or has no binary to start."""


class Fault(StrEnum):
    """What keeps the store from taking what it is given: how soon to try again depends on it."""

    AWAY = "away"  # not reached, or lost on the way
    BUSY = "busy"  # others are in the way
    FULL = "full"  # its disk
    REFUSED = "refused"  # account, rights, schema, read-only: somebody must see to it


class StoreUnavailable(ServiceUnavailable):
    """The database cannot be reached, refuses us, or cannot be written."""

    def __init__(
        self, message: str, *, advice: str | None = None, fault: Fault = Fault.AWAY
    ) -> None:
        super().__init__(message, advice=advice)
        self.fault = fault


class HomeUnavailable(ServiceUnavailable):
    """The state folder cannot be made or written."""


class RefusedError(RqscanError):
    """Refused on purpose, for safety; asking again changes nothing."""

    exit_code = 4


class OutOfScopeError(RefusedError):
    """A target lies outside what may be scanned."""


class RefusedPayloadError(RefusedError):
    """A job's payload is not ours, or names what may not be called."""


class FailedError(RqscanError):
    """What was asked for was tried and did not come out."""


class FencedError(FailedError):
    """A chunk's rows were not taken: trying again changes nothing."""
