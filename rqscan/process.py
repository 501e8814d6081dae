"""What a process asks of the kernel about its name, its own end, and that of its children."""

import contextlib
import ctypes
import os
from pathlib import Path

__all__ = [
    "adopt_orphans", "children", "die_with", "forget_handler", "has_children", "kill_group",
    "retitle",
]  # fmt: skip

_PR_SET_PDEATHSIG = 1  # <linux/prctl.h>
_PR_SET_CHILD_SUBREAPER = 36
_libc = ctypes.CDLL(None)  # loaded here: between fork and exec is no time for it
_prctl, _signal = _libc.prctl, _libc.signal
_stat = Path("/proc/self/stat").read_text("ascii", "replace").rpartition(") ")[2].split()
_title, _title_end = (int(field) for field in _stat[45:47])  # arg_start, arg_end: see proc(5)


def retitle(title: str) -> None:
    """Show `title` in place of our command line, in as much room as that had."""
    room = _title_end - _title
    text = title.encode(errors="backslashreplace")[: max(0, room - 1)]
    ctypes.memmove(_title, text.ljust(room, b"\0"), room)


def die_with(parent_pid: int, signum: int) -> None:
    """Have the kernel send us `signum` when our parent ends, or end at once if it has."""
    _prctl(_PR_SET_PDEATHSIG, signum)
    if os.getppid() != parent_pid:
        os._exit(1)


def adopt_orphans() -> None:
    """Become the parent of each descendant whose own parent ends, wherever it has moved."""
    _prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def forget_handler(signum: int) -> None:
    """Have a signal do what it does by default, in a process that has just been forked.

    Python's own function makes enumerations of what it is given and gives back: pages to copy.
    """
    _signal(signum, 0)


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
