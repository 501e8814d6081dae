"""Start of a worker's lasting process, by `rqscan.fleet.launch`: the loop, and nothing else.

``python -m rqscan.fleet.worker_start DESCRIPTOR WORDS…``; the words only show in `ps` what it is.
"""

import errno
import os
import sys

from msgspec import msgpack

from rqscan import clock, installed
from rqscan.errors import RqscanError
from rqscan.fleet.launch import Launch
from rqscan.fleet.loop import Loop
from rqscan.logs import configure

__all__ = ["main"]


def main(memory: int) -> int:
    """Run the worker that is told by a file in memory, and give its exit code."""
    with os.fdopen(memory, "rb") as file:
        told = msgpack.decode(file.read(), type=Launch)
    for lock in told.locks:
        os.set_inheritable(lock, False)  # noqa: FBT003 - its own signature
    clock.correct(told.clock_offset_s)
    installed.tell(told.installed)
    configure(told.log_level, as_json=told.log_json)
    try:
        Loop(told.plan).run(burst=told.is_burst)
    except RqscanError as e:
        sys.stderr.write(f"rqscan: error: {e}\n" + (f"{e.advice}\n" if e.advice else ""))
        return e.exit_code
    except OSError as e:  # a full disk under what is kept of ends, say
        if e.filename is None and e.errno != errno.ENOSPC:
            raise
        sys.stderr.write(f"rqscan: error: cannot use {e.filename or 'stderr'}: {e.strerror}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1])))
