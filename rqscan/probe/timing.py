"""How many sockets may be in flight, and what to do when this host runs short of something.

The window starts as large as the process' descriptors allow, shrinks when the kernel refuses us
a resource, and grows back with every answer. Shortness is our own: it is never a verdict.
"""

import resource
import time

__all__ = ["ANSWERED_S", "MAX_WINDOW", "PATIENCE_S", "RETRY_S", "Pace"]

MAX_WINDOW = 4000
"""Most sockets in flight: at 1 s of silence per port this many ports/s; measured, more gains
nothing on a LAN."""

ANSWERED_S = 30e-6
"""What a probe costs that is answered at once: `bench/ports.py`, all ports of loopback in about
2 s on 2 shared cores of 2026."""

PATIENCE_S = 30.0
"""Without any progress for so long, a shortage becomes the verdict ``unknown``."""

RETRY_S = 0.05
"""How long the probe that ran short waits; the others only for `_PAUSE_S`, since the shortage may
be of one destination (local ports)."""

_PAUSE_S = 0.005
_RESERVE = 64  # descriptors left to the rest of the process


def _most_sockets() -> int:
    """Raise the soft limit of descriptors to the hard one; tell how many sockets it allows."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    if hard == resource.RLIM_INFINITY:
        return MAX_WINDOW
    return max(1, min(MAX_WINDOW, hard - _RESERVE))


class Pace:
    """The window, and the pauses taken when something runs short."""

    def __init__(self) -> None:
        self.window = self._most = _most_sockets()
        self.resume_at = 0.0  # monotonic; nothing is dialled before
        self._short_since: float | None = None

    def progress(self) -> None:
        """Take note of a verdict or a time-out: what was short is back."""
        self._short_since = None
        self.window = min(self._most, self.window + 1)

    def back_off(self, in_flight: int) -> bool:
        """Shrink the window and pause; tell whether it is worth trying again.

        It always is while probes are in flight: they hold some of what is short.
        """
        now = time.monotonic()
        self._short_since = self._short_since or now
        if not in_flight and now - self._short_since >= PATIENCE_S:
            return False
        self.window = max(1, min(self.window, in_flight * 7 // 10))
        self.resume_at = now + _PAUSE_S
        return True
