"""A worker's drain, in a child of its own: it loads no more than the store.

``python -m rqscan.fleet.drain_chore drain PARENT`` takes (settings, whether to drain) as msgpack on
stdin, and prints a `Drainage` as one JSON line; without draining it tells how the spool stands.
"""

import signal
import sys
import time

from msgspec import json, msgpack

from rqscan.errors import RqscanError, StoreUnavailable
from rqscan.process import die_with
from rqscan.settings import Settings
from rqscan.store.breaker import Breaker
from rqscan.store.drain import Held, drain
from rqscan.store.spool import Spool
from rqscan.tally import Drainage, Moved

__all__ = ["main"]

DRAIN_S = 20.0
"""Then it tells how far it is; the worker has it go on."""


def main(parent_pid: int) -> int:
    """Drain for a while; gives the exit code."""
    die_with(parent_pid, signal.SIGKILL)
    settings, may_drain = msgpack.decode(sys.stdin.buffer.read(), type=tuple[Settings, bool])
    began, moved = time.monotonic(), Moved()
    away, is_elsewhere = None, False
    try:
        try:
            if may_drain:
                drain(settings, moved, until=began + DRAIN_S)
        except Held:
            is_elsewhere = True
        except StoreUnavailable as error:
            away = str(error)
        backlog = Spool(settings).status()
    except RqscanError as error:
        sys.stdout.write(f"{error}\n")
        return error.exit_code
    known = Breaker(settings.home).away()
    answer = Drainage(
        backlog=backlog,
        moved=moved,
        worked_s=time.monotonic() - began,
        away=known.reason if known else away,
        again_in_s=max(0.0, known.until - time.monotonic()) if known else None,
        is_elsewhere=is_elsewhere,
    )
    sys.stdout.buffer.write(json.encode(answer))
    return 0


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[2])))
