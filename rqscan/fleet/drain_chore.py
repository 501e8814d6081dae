"""A worker's drain, in a child of its own: it loads no more than the store.

``python -m rqscan.fleet.drain_chore drain PARENT`` takes (settings, `Go`) as msgpack on stdin, and
prints a `Drainage` as one JSON line; where it is to wait it only tells how the spool stands. A
drain of idle times ends when there is traffic that is not its own. In the mode redis_stream it
waits for what comes, without the home's right to drain. While the store is away, and may not be
tried, it stays with a large spool open: work-horses append to it faster then.
"""

import signal
import sys
import time

from msgspec import json, msgpack

from rqscan.errors import RqscanError, StoreUnavailable
from rqscan.idle import Traffic
from rqscan.interfaces import find_link
from rqscan.process import die_with
from rqscan.settings import Settings
from rqscan.store.breaker import Breaker
from rqscan.store.drain import Held, backlog, drain, stream_of
from rqscan.store.spool import Spool
from rqscan.tally import Drainage, Go, Link, Moved

__all__ = ["main"]

DRAIN_S = 20.0
"""Then it tells how far it is; the worker has it go on."""

WAIT_S = 60.0
"""The same where nothing has come."""

STAY_S, LOOK_S = 5.0, 0.2
"""Longest stay while the store is away, and how often it is looked whether it is back."""

LEAST_BYTES = 100_000_000
"""Of a smaller spool its log, which an open one lets grow to some 4 MB, would be a part that tells:
claims are held, and records refused, by the size of both."""


def main(parent_pid: int) -> int:
    """Drain for a while; gives the exit code."""
    die_with(parent_pid, signal.SIGKILL)
    settings, go = msgpack.decode(sys.stdin.buffer.read(), type=tuple[Settings, Go])
    breaker = Breaker(settings.home)
    try:
        if go is Go.NOW and settings.spool.max_bytes >= LEAST_BYTES and breaker.away():
            with Spool(settings).file.kept_open():
                _stay(breaker)
        answer = _drain(settings, go, breaker)
    except RqscanError as error:
        sys.stdout.write(f"{error}\n")
        return error.exit_code
    sys.stdout.buffer.write(json.encode(answer))
    return 0


def _stay(breaker: Breaker) -> None:
    """Wait until the store may be tried or is back, but not for so long that the worker wonders."""
    until = time.monotonic() + STAY_S
    while (away := breaker.away()) and (left_s := min(away.until, until) - time.monotonic()) > 0:
        time.sleep(min(left_s, LOOK_S))


def _drain(settings: Settings, go: Go, breaker: Breaker) -> Drainage:
    link = find_link(settings) if settings.spool.mode == "spool_first" else None
    began, waited_s, moved = time.monotonic(), 0.0, Moved()
    away, is_elsewhere, may_drain = None, False, go is not Go.WAIT
    is_watched = go is Go.WHILE_IDLE and link is not None
    traffic = Traffic(link or Link(), settings.idle.for_s, is_idle=is_watched)
    stream = stream_of(settings) if settings.spool.mode == "redis_stream" else None
    late = began + DRAIN_S

    def goes_on(own_bytes: int) -> bool:
        if is_watched and not traffic.look(own_bytes=own_bytes):
            return False
        # However long it took to connect, something must come of it.
        return moved == Moved() or time.monotonic() < late

    try:
        while may_drain:
            # what is back, or is not, is told before anything is waited for
            is_well = stream is not None and not (breaker.away() or stream.away)
            late = time.monotonic() + DRAIN_S
            drain(settings, moved, goes_on=goes_on)
            at, until = time.monotonic(), began + (DRAIN_S if moved.rows else WAIT_S)
            may_drain = stream is not None and is_well and at < until and stream.wait()
            waited_s += time.monotonic() - at
    except Held:
        is_elsewhere = True
    except StoreUnavailable as error:
        away = str(error)
    kept, known = backlog(settings), breaker.away()
    return Drainage(
        backlog=kept,
        moved=moved,
        worked_s=time.monotonic() - began - waited_s,
        away=known.reason if known else away,
        again_in_s=max(0.0, known.until - time.monotonic()) if known else None,
        is_elsewhere=is_elsewhere,
        link=link,
        is_idle=traffic.is_idle,
    )


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[2])))
