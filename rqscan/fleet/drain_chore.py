"""A worker's drain, in a child of its own: it loads no more than the store.

``python -m rqscan.fleet.drain_chore drain PARENT`` takes (settings, whether to drain) as msgpack on
stdin, and prints a `Drainage` as one JSON line; without draining it tells how the spool stands. In
the mode redis_stream it waits for what comes, without the home's right to drain.
"""

import signal
import sys
import time

from msgspec import json, msgpack

from rqscan.errors import RqscanError, StoreUnavailable
from rqscan.process import die_with
from rqscan.settings import Settings
from rqscan.store.breaker import Breaker
from rqscan.store.drain import Held, backlog, drain, stream_of
from rqscan.tally import Drainage, Moved

__all__ = ["main"]

DRAIN_S = 20.0
"""Then it tells how far it is; the worker has it go on."""

WAIT_S = 60.0
"""The same where nothing has come."""


def main(parent_pid: int) -> int:
    """Drain for a while; gives the exit code."""
    die_with(parent_pid, signal.SIGKILL)
    settings, may_drain = msgpack.decode(sys.stdin.buffer.read(), type=tuple[Settings, bool])
    began, waited_s, moved = time.monotonic(), 0.0, Moved()
    away, is_elsewhere = None, False
    breaker = Breaker(settings.home)
    stream = stream_of(settings) if settings.spool.mode == "redis_stream" else None
    try:
        try:
            while may_drain:
                # what is back, or is not, is told before anything is waited for
                is_well = stream is not None and not (breaker.away() or stream.away)
                drain(settings, moved, until=time.monotonic() + DRAIN_S)
                at, until = time.monotonic(), began + (DRAIN_S if moved.rows else WAIT_S)
                may_drain = stream is not None and is_well and at < until and stream.wait()
                waited_s += time.monotonic() - at
        except Held:
            is_elsewhere = True
        except StoreUnavailable as error:
            away = str(error)
        kept = backlog(settings)
    except RqscanError as error:
        sys.stdout.write(f"{error}\n")
        return error.exit_code
    known = breaker.away()
    answer = Drainage(
        backlog=kept,
        moved=moved,
        worked_s=time.monotonic() - began - waited_s,
        away=known.reason if known else away,
        again_in_s=max(0.0, known.until - time.monotonic()) if known else None,
        is_elsewhere=is_elsewhere,
    )
    sys.stdout.buffer.write(json.encode(answer))
    return 0


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[2])))
