"""Link: one Redis connection that never makes the worker's loop wait for an answer.

Commands are packed, written once a turn, and each answer is handed to its callback in order. An
answer that is overdue means that the server or the way to it is gone: the link goes down, tells
every caller `LOST`, and tries again at least every `SLOWEST_S`, however long that takes:

    down ─ check ─▶ dialing (`rqscan.broker.dial`) ─▶ greeting (log in, load the scripts) ─▶ up
"""

import re
import selectors
import socket
import ssl
import time
from collections import deque
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, Final

import hiredis

from rqscan.broker.dial import Dial
from rqscan.broker.endpoint import Endpoint
from rqscan.broker.scripts import Script

__all__ = ["LOST", "Link", "NoAnswer"]

FASTEST_S, SLOWEST_S = 0.02, 0.5
"""Time from one try to the next: the first, doubled each time up to the last."""

GREETING_S = 1.5
"""The same as `ANSWER_S` for a connection that has just been made; short for the sake of a try
whose packets get lost, which the kernel repeats ever more seldom."""

STEADY_S = 1.0
"""A link that was up for so long was no failure: the next try is at once."""

AT_ONCE_BYTES = 65_536
"""Room for one read: more would be mapped and unmapped each time."""

ANSWER_S = 2.0
"""An answer that takes longer means a frozen server: nothing that we send computes that long."""

DOWN = ("NOSCRIPT", "LOADING", "READONLY", "MASTERDOWN")
"""Errors that mean another server, or the same one begun anew: connect again."""


class NoAnswer(Exception):  # noqa: N818 - a value that callbacks get, never raised
    """What a callback gets in place of an answer: `LOST`, or a `Refusal`."""


class Refusal(NoAnswer):
    """An error of the server, in its own words."""


LOST: Final = NoAnswer("the link went down before the answer came")

Callback = Callable[[Any], None]


class Link:
    """A connection in a selector's loop.

    Args:
        endpoint: what to connect to.
        selector: where the socket is registered, with a callback as its data.
        on_up: called once connected, before any command.
        on_down: called with the reason each time the link goes down, or can't come up.
        blocking_s: longest time that a command of this link may block in the server.
        name: of the connection, as CLIENT LIST tells it; ids begin anew with the server.
        scripts: those that are called on this link.
        on_push: called with channel and text of each message of a subscription.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        selector: selectors.BaseSelector,
        on_up: Callable[[], None],
        on_down: Callable[[str], None],
        *,
        blocking_s: float = 0,
        name: str = "rqscan",
        scripts: Iterable[Script] = (),
        on_push: Callable[[bytes, bytes], None] | None = None,
    ) -> None:
        self._dial = Dial(endpoint, selector, self._on_open, self._on_failed)
        self._endpoint, self._selector = endpoint, selector
        self._on_up, self._on_down = on_up, on_down
        self._overdue_s = ANSWER_S + blocking_s
        self._name, self._scripts, self._on_push = name, scripts, on_push
        self._socket: socket.socket | None = None
        self._waiting: deque[tuple[Callback | None, float]] = deque()
        self._out = bytearray()
        self._is_full = False  # the socket takes no more now
        self._delay = FASTEST_S
        self._began = 0.0
        self._up_at: float | None = None
        self.client_id = 0
        self.run_id = ""
        """Of the server, new each time that it starts; empty if it does not tell."""
        self.retry_at = 0.0

    @property
    def is_up(self) -> bool:
        """Tell whether commands can be sent."""
        return self._up_at is not None

    @property
    def is_waiting(self) -> bool:
        """Tell whether an answer is still to come."""
        return self.is_up and bool(self._waiting)

    @property
    def deadline(self) -> float:
        """Monotonic time at which `check` has something to do."""
        if self._socket is None:
            return min(self.retry_at, self._dial.deadline)
        limit_s = self._overdue_s if self.is_up else GREETING_S
        return self._waiting[0][1] + limit_s if self._waiting else float("inf")

    def check(self) -> None:
        """Connect if it is time to, or go down if an answer is overdue."""
        now = time.monotonic()
        if now < self.deadline:
            return
        if self._socket is not None:
            self._fail(f"no answer for {now - self._waiting[0][1]:.1f} s")
        elif now < self.retry_at:
            self._dial.check()
        else:
            self._began, self.retry_at = now, float("inf")
            self._dial.start()

    def send(self, *command: Any, then: Callback | None = None) -> None:
        """Queue a command for the next `flush`; `then` gets its answer or a `NoAnswer`."""
        if not self.is_up:
            if then:
                then(LOST)
            return
        self._queue(command, then)

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
        if bool(self._out) != self._is_full:
            self._is_full = bool(self._out)
            events = selectors.EVENT_READ | (selectors.EVENT_WRITE if self._is_full else 0)
            self._selector.modify(self._socket, events, self._on_ready)

    def reset(self) -> None:
        """Go down, and connect again: what else is known of the server says that this is dead."""
        if self.is_up:
            self._fail("the other connection is gone")

    def close(self) -> None:
        """Close for good, without telling anybody."""
        self._hang_up()
        self._up_at, self.retry_at = None, float("inf")
        self._dial.close()

    def _hang_up(self) -> None:
        self._dial.cancel()
        if self._socket is not None:
            self._selector.unregister(self._socket)
            self._socket.close()
            self._socket = None

    def _on_failed(self, reason: str) -> None:
        self.retry_at = max(time.monotonic() + FASTEST_S, self._began + self._delay)
        self._delay = min(self._delay * 2, SLOWEST_S)
        self._on_down(reason)

    def _on_open(self, sock: socket.socket) -> None:
        self._socket = sock
        self._reader = hiredis.Reader(replyError=Refusal)
        self._out.clear()
        self._is_full = False
        self._selector.register(sock, selectors.EVENT_READ, self._on_ready)
        try:
            greeting = self._greeting()
        except OSError as e:  # of a provider of credentials
            self._fail(str(e))
            return
        for command in greeting:
            self._queue(command, partial(self._on_greeted, command[:2]))
        self.flush()

    def _greeting(self) -> list[tuple[Any, ...]]:
        login, db = self._endpoint.credentials(), self._endpoint.db
        return [
            *([("AUTH", *login)] if login else []),
            *([("SELECT", db)] if db else []),
            ("CLIENT", "SETNAME", self._name),
            ("CLIENT", "ID"),
            *(("SCRIPT", "LOAD", script.text) for script in self._scripts),
            ("INFO", "server"),
        ]

    def _on_greeted(self, command: tuple[str, ...], answer: Any) -> None:
        if answer is LOST:
            return
        if isinstance(answer, Refusal):
            # The server may quote what it does not know, and AUTH has the password.
            words = str(answer).partition(", with args")[0]
            self._fail(f"{command[0]} was refused: {words}")
        elif command == ("CLIENT", "ID") and isinstance(answer, int):
            self.client_id = answer
        elif command == ("INFO", "server") and isinstance(answer, bytes):
            found = re.search(rb"^run_id:(\w+)", answer, re.MULTILINE)
            self.run_id = found[1].decode() if found else ""
            self._up_at = time.monotonic()
            self._on_up()
        elif not isinstance(answer, bytes):
            self._fail(f"{command[0]} was answered as no Redis does")

    def _queue(self, command: tuple[Any, ...], then: Callback | None) -> None:
        self._out += hiredis.pack_command(command)
        self._waiting.append((then, time.monotonic()))

    def _on_ready(self, events: int) -> None:
        if events & selectors.EVENT_WRITE:
            self.flush()
        while self._socket is not None:  # TLS may hold more than the selector knows
            try:
                data = self._socket.recv(AT_ONCE_BYTES)
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
            if len(data) < AT_ONCE_BYTES and not isinstance(self._socket, ssl.SSLSocket):
                return  # that was all

    def _deliver(self) -> None:
        while self._waiting or self._on_push:
            try:
                answer = self._reader.gets()
            except hiredis.ProtocolError as e:  # no Redis, or bytes that got lost
                self._fail(str(e))
                return
            if answer is False:  # hiredis' word for "not whole yet"
                return
            if self._on_push and isinstance(answer, list) and answer[0] == b"message":
                self._on_push(*answer[1:])
                continue
            if isinstance(answer, Refusal) and str(answer).startswith(DOWN):
                self._fail(str(answer))
                return
            if not self._waiting:
                self._fail("an answer came that nobody waits for")
                return
            then, _ = self._waiting.popleft()
            if then:
                then(answer)

    def _fail(self, reason: str) -> None:
        self._hang_up()
        if self._up_at is not None and time.monotonic() - self._up_at > STEADY_S:
            self._delay = FASTEST_S
        self._up_at = None
        lost, self._waiting = self._waiting, deque()
        self._on_failed(reason)
        for then, _ in lost:
            if then:
                then(LOST)
