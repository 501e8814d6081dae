"""What a process asks of the kernel about its own end, and that of its children."""

import contextlib
import ctypes
import os
from pathlib import Path

__all__ = ["adopt_orphans", "children", "die_with", "has_children", "kill_group"]

_PR_SET_PDEATHSIG = 1  # <linux/prctl.h>
_PR_SET_CHILD_SUBREAPER = 36
_libc = ctypes.CDLL(None)  # loaded here: between fork and exec is no time for it


def die_with(parent_pid: int, signum: int) -> None:
    """Have the kernel send us `signum` when our parent ends, or end at once if it has."""
    _libc.prctl(_PR_SET_PDEATHSIG, signum)
    if os.getppid() != parent_pid:
        os._exit(1)


def adopt_orphans() -> None:
    """Become the parent of each descendant whose own parent ends, wherever it has moved."""
    _libc.prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def children() -> list[int]:
    """Give the pids of our children; none where the kernel does not tell (CONFIG_PROC_CHILDREN)."""
    me = os.getpid()
    try:
        text = Path(f"/proc/self/task/{me}/children").read_text("ascii")
    except FileNotFoundError:
        return []
    return [pid for pid in map(int, text.split()) if pid > 0]


def has_children() -> bool:
    """Bury the children that have ended; tell whether any live."""
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        return False
    return True


def kill_group(pid: int, signum: int) -> None:
    """Signal a process and all of its group; one that is gone, or not known yet (0), is fine."""
    if pid:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(pid, signum)
