"""Counts what clients ask of Redis: a unix socket in front of the server's, which passes all on.

A request is one command that a client sends (a script's own commands are none). A round trip
begins with the first byte that a client sends on a connection after an answer: requests that
leave together, or before the last answer came, are one.
"""

import contextlib
import selectors
import socket
import threading
import time
from collections import Counter
from pathlib import Path
from typing import Self

import hiredis

__all__ = ["RequestCounter"]


class _Way:
    """One direction of a connection."""

    def __init__(self, to: socket.socket, requests: hiredis.Reader | None) -> None:
        self.to, self.requests = to, requests


class RequestCounter:
    """Listens on `path`; `requests` counts by command's name, `trips` counts round trips.

    With `delay_s` each round trip takes so much longer, half of it before anything is passed on:
    a long pipeline that a client sends piece by piece is one then, however soon Redis answers.
    """

    def __init__(self, path: Path, server: Path, delay_s: float = 0.0) -> None:
        self.path, self._server, self._delay_s = path, server, delay_s
        self.requests: Counter[str] = Counter()
        self.trips = 0
        self._selector = selectors.DefaultSelector()
        self._asking: set[socket.socket] = set()  # clients whose last bytes were not answered yet
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listener.bind(str(path))
        self._listener.listen(64)
        self._selector.register(self._listener, selectors.EVENT_READ, None)
        self._closing = False
        self._thread = threading.Thread(target=self._serve)

    @property
    def url(self) -> str:
        return f"unix://{self.path}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._closing = True
        self._thread.join()
        for key in list(self._selector.get_map().values()):
            key.fileobj.close()
        self._selector.close()
        self.path.unlink()

    def snapshot(self) -> tuple[Counter[str], int]:
        return self.requests.copy(), self.trips

    def _serve(self) -> None:
        while not self._closing:
            for key, _ in self._selector.select(0.1):
                if key.data is None:
                    self._accept()
                elif key.fileobj.fileno() != -1:
                    self._pass_on(key.fileobj, key.data)

    def _accept(self) -> None:
        near, _ = self._listener.accept()
        far = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        far.connect(str(self._server))
        self._selector.register(near, selectors.EVENT_READ, _Way(far, hiredis.Reader()))
        self._selector.register(far, selectors.EVENT_READ, _Way(near, None))

    def _pass_on(self, sock: socket.socket, way: _Way) -> None:
        data = b""
        with contextlib.suppress(OSError):
            data = sock.recv(262_144)
            if self._delay_s and data:
                data += self._late(sock, way)
            way.to.sendall(data)
        if not data:
            for end in (sock, way.to):
                self._selector.unregister(end)
                end.close()
            self._asking -= {sock, way.to}
        elif way.requests is None:
            self._asking.discard(way.to)
        else:
            self.trips += sock not in self._asking
            self._asking.add(sock)
            way.requests.feed(data)
            while (command := way.requests.gets()) is not False:
                self.requests[command[0].decode().upper()] += 1

    def _late(self, sock: socket.socket, way: _Way) -> bytes:
        """Wait, and give what a client has sent meanwhile."""
        more = b""
        if way.requests is not None or way.to in self._asking:  # or the first of an answer
            time.sleep(self._delay_s / 2)
        with contextlib.suppress(BlockingIOError):
            while way.requests is not None and (next_ := sock.recv(262_144, socket.MSG_DONTWAIT)):
                more += next_
                time.sleep(self._delay_s / 2)
        return more
