"""Launch: the worker's process goes on without Redis' library, RQ and the command line.

These are half of an idle worker's memory, and what they are for is done once it may begin. To all
others it stays the same process: pid, parent, files, locks and signals. What it has to know goes
through a file in memory, since there are passwords in it.
"""

import os
import signal
import sys
from typing import NoReturn

from msgspec import Struct, msgpack

from rqscan import clock
from rqscan.broker import embedded
from rqscan.fleet.plan import Plan
from rqscan.fleet.signals import STOPS
from rqscan.installed import Installed, plugins, versions

__all__ = ["Launch", "launch"]


class Launch(Struct, frozen=True, kw_only=True):
    """What `rqscan.fleet.worker_start` is told."""

    plan: Plan
    is_burst: bool
    log_level: str
    log_json: bool
    clock_offset_s: float
    installed: Installed
    locks: list[int]  # of the embedded server, which ends when nobody holds them


def launch(plan: Plan, *, is_burst: bool, log_level: str, log_json: bool) -> NoReturn:
    """Run the worker in this process, in place of all that is in it now."""
    told = Launch(
        plan=plan, is_burst=is_burst, log_level=log_level, log_json=log_json,
        clock_offset_s=clock.offset_s(), installed=Installed(versions(), plugins()),
        locks=embedded.hand_on(),
    )  # fmt: skip
    memory = os.memfd_create("worker", 0)  # passes exec
    os.write(memory, msgpack.encode(told))
    os.lseek(memory, 0, os.SEEK_SET)
    # One that comes from now on waits for its handler: see `rqscan.fleet.signals`.
    signal.pthread_sigmask(signal.SIG_BLOCK, STOPS)
    start = [sys.executable, "-m", "rqscan.fleet.worker_start", str(memory)]
    os.execv(start[0], [*start, *sys.orig_argv[1:]])  # noqa: S606 - the words are for `ps`
