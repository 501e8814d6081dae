"""What a process asks of the kernel about its own end."""

import ctypes
import os

__all__ = ["die_with"]

_PR_SET_PDEATHSIG = 1  # <linux/prctl.h>
_libc = ctypes.CDLL(None)  # loaded here: between fork and exec is no time for it


def die_with(parent_pid: int, signum: int) -> None:
    """Have the kernel send us `signum` when our parent ends, or end at once if it has."""
    _libc.prctl(_PR_SET_PDEATHSIG, signum)
    if os.getppid() != parent_pid:
        os._exit(1)
