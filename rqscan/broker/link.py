"""Link: one Redis connection that never makes the worker's loop wait for an answer.

redis-py opens and authenticates the connection (the one step that blocks, bounded by
`CONNECT_S`); from then on the socket is ours: commands are packed, written once a turn, and
each answer is handed to its callback in order. An answer that is overdue means that the server
or the way to it is gone: the link goes down, tells every caller `LOST`, and tries again.
"""

import selectors
import socket
import ssl
import time
from collections import deque
from collections.abc import Callable
from typing import Any, Final

import hiredis
import redis

from rqscan.broker.scripts import SCRIPTS

__all__ = ["LOST", "Link"]

CONNECT_S = 1.0
"""Longest stall of the loop while a frozen server accepts and does not answer."""

ANSWER_S = 2.0
"""An answer that takes longer means a frozen server: nothing that we send computes that long."""

DOWN = ("NOSCRIPT", "LOADING", "READONLY", "MASTERDOWN")
"""Errors that mean another server, or the same one begun anew: connect again."""

LOST: Final = redis.ConnectionError("the link went down before the answer came")

Callback = Callable[[Any], None]


class Link:
    """A connection in a selector's loop.

    Args:
        client: whose connection settings to use.
        selector: where the socket is registered, with a callback as its data.
        on_up: called once connected, before any command.
        on_down: called with the reason each time the link goes down, or can't come up.
        blocking_s: longest time that a command of this link may block in the server.
        name: of the connection, as CLIENT LIST tells it; ids begin anew with the server.
    """

    def __init__(
        self,
        client: redis.Redis,
        selector: selectors.BaseSelector,
        on_up: Callable[[], None],
        on_down: Callable[[str], None],
        *,
        blocking_s: float = 0,
        name: str = "rqscan",
    ) -> None:
        self._pool = client.connection_pool
        self._selector = selector
        self._on_up, self._on_down = on_up, on_down
        self._overdue_s = ANSWER_S + blocking_s
        self._name = name
        self._socket: socket.socket | None = None
        self._waiting: deque[tuple[Callback | None, float]] = deque()
        self._out = bytearray()
        self._delay = 0.05
        self.client_id = 0
        self.retry_at = 0.0

    @property
    def is_up(self) -> bool:
        """Tell whether commands can be sent."""
        return self._socket is not None

    @property
    def is_waiting(self) -> bool:
        """Tell whether an answer is still to come."""
        return bool(self._waiting)

    @property
    def deadline(self) -> float:
        """Monotonic time at which `check` has something to do."""
        if not self.is_up:
            return self.retry_at
        return self._waiting[0][1] + self._overdue_s if self._waiting else float("inf")

    def check(self) -> None:
        """Connect if it is time to, or go down if an answer is overdue."""
        if time.monotonic() < self.deadline:
            return
        if self.is_up:
            self._fail(f"no answer for {self._overdue_s:g} s")
        else:
            self._connect()

    def send(self, *command: Any, then: Callback | None = None) -> None:
        """Queue a command for the next `flush`; `then` gets its answer, an error, or `LOST`."""
        if not self.is_up:
            if then:
                then(LOST)
            return
        self._out += hiredis.pack_command(command)
        self._waiting.append((then, time.monotonic()))

    def flush(self) -> None:
        """Write what was queued, as much as the socket takes: one packet for one turn."""
        if not self._out or self._socket is None:
            return
        try:
            sent = self._socket.send(self._out)
        except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
            sent = 0
        except OSError as e:
            self._fail(str(e))
            return
        del self._out[:sent]
        events = selectors.EVENT_READ | (selectors.EVENT_WRITE if self._out else 0)
        self._selector.modify(self._socket, events, self._on_ready)

    def reset(self) -> None:
        """Go down, and connect again: what else is known of the server says that this is dead."""
        if self.is_up:
            self._fail("the other connection is gone")

    def close(self) -> None:
        """Close without telling anybody."""
        if self._socket is not None:
            self._selector.unregister(self._socket)
            self._connection.disconnect()
            self._socket = None

    def _connect(self) -> None:
        options = dict(self._pool.connection_kwargs)
        options |= {"socket_connect_timeout": CONNECT_S, "socket_timeout": CONNECT_S}
        options |= {"retry": None, "health_check_interval": 0, "protocol": 2}
        options["client_name"] = self._name
        connection = self._pool.connection_class(**options)
        try:
            connection.connect()
            connection.send_command("CLIENT", "ID")
            self.client_id = int(connection.read_response())
            for script in SCRIPTS:
                connection.send_command("SCRIPT", "LOAD", script.text)
                connection.read_response()
        except (redis.RedisError, OSError) as e:
            connection.disconnect()
            self.retry_at = time.monotonic() + self._delay
            self._delay = min(self._delay * 2, 1.0)
            self._on_down(str(e))
            return
        self._connection, self._delay = connection, 0.05
        self._socket = connection._sock  # noqa: SLF001 - redis-py has no public way to hand it over
        assert self._socket is not None
        self._socket.settimeout(0)
        self._reader = hiredis.Reader(replyError=redis.ResponseError)
        self._out.clear()
        self._selector.register(self._socket, selectors.EVENT_READ, self._on_ready)
        self._on_up()

    def _on_ready(self, events: int) -> None:
        if events & selectors.EVENT_WRITE:
            self.flush()
        while self._socket is not None:  # TLS may hold more than the selector knows
            try:
                data = self._socket.recv(262_144)
            except (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError):
                return
            except OSError as e:
                self._fail(str(e))
                return
            if not data:
                self._fail("the server closed the connection")
                return
            self._reader.feed(data)
            self._deliver()

    def _deliver(self) -> None:
        while self._waiting:
            answer = self._reader.gets()
            if answer is False:  # hiredis' word for "not whole yet"
                return
            if isinstance(answer, redis.ResponseError) and str(answer).startswith(DOWN):
                self._fail(str(answer))
                return
            then, _ = self._waiting.popleft()
            if then:
                then(answer)

    def _fail(self, reason: str) -> None:
        self.close()
        self.retry_at = time.monotonic() + 0.02
        lost, self._waiting = self._waiting, deque()
        self._on_down(reason)
        for then, _ in lost:
            if then:
                then(LOST)
