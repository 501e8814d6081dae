"""Links to a real server that do harm: one passes bytes late, one is cut at the worst moment."""

import contextlib
import selectors
import socket
import threading
from pathlib import Path
from typing import Self

__all__ = ["CutLink", "SlowLink"]


class SlowLink:
    """Forwards a loopback port to a server's port; what comes back is held for `delay_s`."""

    def __init__(self, port: int, delay_s: float) -> None:
        self._to, self._delay_s = port, delay_s
        self._closing = threading.Event()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._sockets: list[socket.socket] = [self._listener]
        self.port = self._listener.getsockname()[1]
        self._threads = [threading.Thread(target=self._accept)]

    def __enter__(self) -> Self:
        self._threads[0].start()
        return self

    def __exit__(self, *_: object) -> None:
        self._closing.set()
        for sock in self._sockets:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
            sock.close()
        for thread in self._threads:
            thread.join(10)

    def _accept(self) -> None:
        while not self._closing.is_set():
            with contextlib.suppress(OSError):
                near, _ = self._listener.accept()
                far = socket.create_connection(("127.0.0.1", self._to))
                self._sockets += [near, far]
                for pair, delay_s in (((near, far), 0.0), ((far, near), self._delay_s)):
                    thread = threading.Thread(target=self._pump, args=(*pair, delay_s))
                    self._threads.append(thread)
                    thread.start()

    def _pump(self, source: socket.socket, sink: socket.socket, delay_s: float) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65_536):
                self._closing.wait(delay_s)
                sink.sendall(data)
            sink.shutdown(socket.SHUT_WR)


class CutLink:
    """A socket file in front of a server's, that is cut when a client sends certain bytes.

    Each of the first `cuts` times the connection ends before the server gets them, or, with
    `is_late`, after it has answered and before the client hears of it.
    """

    def __init__(self, near: Path, far: Path, at: bytes, *, cuts: int, is_late: bool) -> None:
        self._far, self._at, self._is_late = far, at, is_late
        self.left = cuts
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(near))
        self._listener.listen(8)
        self._thread = threading.Thread(target=self._accept)
        self._open: set[socket.socket] = set()

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        for sock in (self._listener, *self._open):
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
        self._thread.join(10)
        self._listener.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                with near, socket.socket(socket.AF_UNIX) as far:
                    far.connect(str(self._far))
                    self._open = {near, far}
                    self._pass(near, far)

    def _pass(self, near: socket.socket, far: socket.socket) -> None:
        """Forward both ways until one end closes, or it is time to cut."""
        other = {near: far, far: near}
        with selectors.DefaultSelector() as ready, contextlib.suppress(OSError):
            for sock in other:
                ready.register(sock, selectors.EVENT_READ)
            while True:
                for key, _ in ready.select():
                    source: socket.socket = key.fileobj  # type: ignore[assignment]
                    data = source.recv(65_536)
                    is_cut = source is near and self.left > 0 and data.endswith(self._at)
                    if is_cut and self._is_late:
                        far.sendall(data)
                        far.recv(65_536)
                    if is_cut or not data:
                        self.left -= is_cut
                        return
                    other[source].sendall(data)
