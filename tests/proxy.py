"""A slow link to a real server: bytes pass unchanged, and late."""

import contextlib
import socket
import threading
from typing import Self

__all__ = ["SlowLink"]


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
