"""Addresses: where a server is, without a turn of the loop that waits for DNS.

A name is asked for by a short-lived child process; its last good answer is used until there is
a better one, so a name that no longer resolves stops nobody.
"""

import os
import selectors
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Final, NamedTuple

__all__ = ["Address", "Addresses"]

EVERY_S = 0.7
"""Time from one question to the next: a DNS server that is back is noticed within a second."""

PATIENCE_S = 2.5
"""Longest life of a child; later ones ask beside it meanwhile."""

PROGRAM: Final = Path(__file__).with_name("resolve.py")

RES_OPTIONS = "timeout:1 attempts:2"
"""For the C library: ask the next DNS server after 1 s rather than 5."""

Address = tuple[socket.AddressFamily, Any]

_KNOWN: dict[tuple[str, int], list[Address]] = {}
"""The last good addresses of each name, for all links of this process."""


class _Child(NamedTuple):
    process: subprocess.Popen[bytes]
    began: float
    output: bytearray


class Addresses:
    """The addresses of one server.

    Args:
        where: the path of a unix socket, or a host and a port.
        selector: where the children's pipes are registered, with a callback as their data.
        on_news: called when a child has found something.
    """

    def __init__(
        self,
        where: str | tuple[str, int],
        selector: selectors.BaseSelector,
        on_news: Callable[[], None],
    ) -> None:
        self._selector, self._on_news = selector, on_news
        self._fixed: list[Address] = []
        self._children: list[_Child] = []
        self._ask_at = 0.0
        self.error = ""
        """Why the last question found nothing; empty as long as it has no answer."""
        if isinstance(where, str):
            self._fixed = [(socket.AF_UNIX, where)]
            return
        self._name = where
        try:
            self._fixed = _numeric(*where)
        except (OSError, UnicodeError):  # a name
            return

    @property
    def known(self) -> list[Address]:
        """What is known by now; empty for a name that has not been found yet."""
        return self._fixed or _KNOWN.get(self._name, [])

    def ask(self) -> None:
        """Look again, if that can bring anything and was not begun just now."""
        now = time.monotonic()
        for child in self._children:
            if now > child.began + PATIENCE_S:
                child.process.kill()
        if self._fixed or now < self._ask_at:
            return
        self._ask_at, self.error = now + EVERY_S, ""
        try:
            process = subprocess.Popen(
                [sys.executable, "-I", "-S", PROGRAM, self._name[0]],
                env={"RES_OPTIONS": RES_OPTIONS} | os.environ,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
            )
        except OSError as e:  # no memory, no process left
            self.error = f"cannot start a resolver: {e.strerror}"
            return
        child = _Child(process, now, bytearray())
        self._children.append(child)
        self._selector.register(_pipe(child), selectors.EVENT_READ, partial(self._on_output, child))

    def hush(self) -> None:
        """Ask no longer; the loop will see the children end."""
        for child in self._children:
            child.process.kill()

    def close(self) -> None:
        """End the children, and see them ended."""
        self.hush()
        while self._children:
            self._reap(self._children[0])

    def _on_output(self, child: _Child, _: int) -> None:
        if child not in self._children:  # ended in this very turn
            return
        if data := os.read(_pipe(child), 65_536):
            child.output.extend(data)
            return
        code = self._reap(child)
        lines = child.output.decode(errors="replace").split("\n")
        if code == 0:
            _KNOWN[self._name] = [
                a for line in lines if line for a in _numeric(line, self._name[1])
            ]
            self.hush()
            self._on_news()
        elif code > 0:
            self.error = lines[-2] if len(lines) > 1 else "the resolver failed"

    def _reap(self, child: _Child) -> int:
        # Its end of the pipe is closed, or it was killed: the wait is as good as over.
        assert child.process.stdout
        self._children.remove(child)
        self._selector.unregister(_pipe(child))
        child.process.stdout.close()
        return child.process.wait()


def _pipe(child: _Child) -> int:
    assert child.process.stdout
    return child.process.stdout.fileno()


def _numeric(host: str, port: int) -> list[Address]:
    """Give the address that is written out; never asks anybody.

    Raises:
        OSError: it is a name.
        UnicodeError: it is no name either.
    """
    found = socket.getaddrinfo(
        host, port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST | socket.AI_NUMERICSERV
    )
    return [(family, address) for family, *_, address in found]
