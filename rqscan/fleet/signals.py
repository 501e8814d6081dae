"""Signals that ask a long-lived process to stop, made visible to the loop that it waits in."""

import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager

__all__ = ["STOPS", "stop_signals"]

STOPS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


@contextmanager
def stop_signals(on_signal: Callable[[str], object]) -> Iterator[socket.socket]:
    """Call back with the name of each SIGTERM, SIGINT and SIGHUP inside the block.

    A SIGHUP that is ignored stays so: nohup asks for that.

    Yields:
        A non-blocking socket that becomes readable with each, to end a wait in select.
    """
    woken, wake = socket.socketpair()
    with woken, wake:
        woken.settimeout(0)
        wake.settimeout(0)
        old_wakeup = signal.set_wakeup_fd(wake.fileno(), warn_on_full_buffer=False)
        old = {
            number: signal.signal(number, lambda n, _: on_signal(signal.Signals(n).name))
            for number in STOPS
            if signal.getsignal(number) is not signal.SIG_IGN
        }
        try:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPS)  # those that came during an exec
            yield woken
        finally:
            for number, handler in old.items():
                signal.signal(number, handler)
            signal.set_wakeup_fd(old_wakeup)
