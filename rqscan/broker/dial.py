"""Dial: from an endpoint to a connected socket, TLS included, while the loop goes on."""

import errno
import os
import selectors
import socket
import ssl
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from rqscan.broker.addresses import Address, Addresses
from rqscan.broker.endpoint import Endpoint

__all__ = ["KEEPALIVE", "Dial"]

KEEPALIVE = {
    socket.TCP_KEEPIDLE: 10,
    socket.TCP_KEEPINTVL: 3,
    socket.TCP_KEEPCNT: 3,
    socket.TCP_USER_TIMEOUT: 15_000,  # ms: a dropped link is noticed while data waits as well
}

CONNECT_S = 0.7
"""A try that got no answer for so long is given up for a fresh one.

The kernel repeats a lost SYN after 1 s, which is too late to notice a recovery within 1 s.
"""

LEAST_S = 0.2
"""Shortest share of `CONNECT_S` for one of many addresses: a round trip to the other continent."""

HANDSHAKE_S = 1.5
"""Longest TLS handshake; the kernel repeats what was lost of it at shorter intervals."""


class Dial:
    """Tries to connect, one address after the other.

    Args:
        endpoint: what to connect to.
        selector: where the sockets are registered, with a callback as their data.
        on_open: gets the non-blocking socket, which is the caller's from then on.
        on_failed: gets the reason when no address is left to try.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        selector: selectors.BaseSelector,
        on_open: Callable[[socket.socket], None],
        on_failed: Callable[[str], None],
    ) -> None:
        self._where, self._tls = endpoint.where, endpoint.tls
        self._selector = selector
        self._on_open, self._on_failed = on_open, on_failed
        self._addresses = Addresses(self._where, selector, self._on_news)
        self._left: list[Address] = []
        self._socket: socket.socket | None = None
        self._is_asking = self._has_failed = False
        self._context: ssl.SSLContext | None = None
        self._stamp: list[int] = []
        with suppress(OSError, ValueError):  # told by the first try
            self._read_certificates()
        self.deadline = float("inf")

    def start(self) -> None:
        """Begin to connect."""
        self.cancel()
        self._left = list(self._addresses.known)
        self._share_s = max(CONNECT_S / max(len(self._left), 1), LEAST_S)
        self._is_asking = not self._left
        self.deadline = time.monotonic() + CONNECT_S
        if self._left:
            self._go_on("")
        if self._is_asking or self._has_failed:
            self._addresses.ask()

    def check(self) -> None:
        """Give the address up that has not answered until `deadline`."""
        if time.monotonic() >= self.deadline:
            of_name = self._addresses.error or "no answer from DNS"
            self._go_on(of_name if self._is_asking else "no answer")

    def cancel(self) -> None:
        """Give the try up without telling anybody."""
        self.deadline = float("inf")
        self._is_asking = False
        if self._socket is not None:
            self._selector.unregister(self._socket)
            self._socket.close()
            self._socket = None

    def close(self) -> None:
        """Give the try up and leave no child behind."""
        self.cancel()
        self._addresses.close()

    def _on_news(self) -> None:
        if self._is_asking:
            self.start()

    def _go_on(self, reason: str) -> None:
        """Try the next address; fail with the reason of the last one if there is none."""
        self.cancel()
        while self._left:
            try:
                self._connect(*self._left.pop(0))
            except OSError as e:
                reason = e.strerror or str(e)
            else:
                return
        self._has_failed = True
        self._on_failed(f"cannot connect to {self._name}: {reason}")

    @property
    def _name(self) -> str:
        return self._where if isinstance(self._where, str) else "{}:{}".format(*self._where)

    def _connect(self, family: socket.AddressFamily, address: Any) -> None:
        sock = socket.socket(family, socket.SOCK_STREAM)
        try:
            sock.settimeout(0)
            if family != socket.AF_UNIX:
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
                for option, value in KEEPALIVE.items():
                    sock.setsockopt(socket.IPPROTO_TCP, option, value)
            error = sock.connect_ex(address)
            _raise_if(0 if error == errno.EINPROGRESS else error)
        except OSError:
            sock.close()
            raise
        self._watch(sock, selectors.EVENT_WRITE, self._on_connected, self._share_s)

    def _watch(
        self, sock: socket.socket, events: int, then: Callable[[int], None], limit_s: float
    ) -> None:
        self._selector.register(sock, events, then)
        self._socket = sock
        self.deadline = time.monotonic() + limit_s

    def _on_connected(self, _: int) -> None:
        if self._socket is None:  # given up in this very turn
            return
        try:
            _raise_if(self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR))
            if self._socket.getsockname() == self._socket.getpeername():
                # TCP connects to itself if the kernel has given us the absent server's port
                _raise_if(errno.ECONNREFUSED)
            self._read_certificates()
            if self._context is None:
                self._open()
                return
            self._selector.unregister(self._socket)
            plain, self._socket = self._socket, None
            with plain:  # which is empty once its descriptor has passed on
                sock = self._context.wrap_socket(
                    plain, server_hostname=self._where[0], do_handshake_on_connect=False
                )
        except (OSError, ValueError) as e:
            self._go_on(getattr(e, "strerror", None) or str(e))
            return
        self._watch(sock, selectors.EVENT_WRITE, self._on_handshake, HANDSHAKE_S)

    def _on_handshake(self, _: int) -> None:
        if not isinstance(self._socket, ssl.SSLSocket):  # given up in this very turn
            return
        try:
            self._socket.do_handshake()
        except ssl.SSLWantReadError:
            self._selector.modify(self._socket, selectors.EVENT_READ, self._on_handshake)
        except ssl.SSLWantWriteError:
            self._selector.modify(self._socket, selectors.EVENT_WRITE, self._on_handshake)
        except (OSError, ValueError) as e:
            self._go_on(getattr(e, "strerror", None) or str(e))
        else:
            self._open()

    def _open(self) -> None:
        sock, self._socket = self._socket, None
        assert sock is not None
        self._selector.unregister(sock)
        self.cancel()
        self._has_failed = False
        self._addresses.hush()
        self._on_open(sock)

    def _read_certificates(self) -> None:
        """Make the TLS settings, and anew when a file of theirs is."""
        if self._tls is None:
            return
        stamp = [Path(file).stat().st_mtime_ns for file in self._tls.files]
        if self._context is None or stamp != self._stamp:
            self._context, self._stamp = self._tls.context(), stamp


def _raise_if(error: int) -> None:
    if error:
        raise OSError(error, os.strerror(error))
