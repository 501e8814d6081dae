"""The TCP connect engine: addresses and ports → one verdict per probe.

One loop over raw non-blocking sockets and epoll: launch while the window has room, collect
answers, expire what was silent. Only probes in flight and those to be tried again are held.

Three laws. An answer is looked for before a time-out is believed, so that a stopped process calls
nobody silent. What connect() refuses before a packet left is our own fault, never the target's.
Running short of descriptors, local ports or memory only delays a probe.
"""

import errno
import socket
import struct
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from ipaddress import ip_address
from math import inf
from select import EPOLLOUT, epoll
from typing import NamedTuple

from rqscan.probe.order import Permutation
from rqscan.probe.timing import MAX_WINDOW, RETRY_S, Pace
from rqscan.states import ProbeState

__all__ = ["ProbeResult", "scan_ports"]

_VERDICTS = {  # what a SYN brought back; any other errno is filtered, with its own name
    0: (ProbeState.OPEN, "accepted"),
    errno.ECONNRESET: (ProbeState.OPEN, "reset"),  # accepted, then thrown out
    errno.EPIPE: (ProbeState.OPEN, "reset"),
    errno.ECONNREFUSED: (ProbeState.CLOSED, "refused"),
    errno.EHOSTUNREACH: (ProbeState.FILTERED, "host-unreachable"),
    errno.ENETUNREACH: (ProbeState.FILTERED, "net-unreachable"),
    errno.ENOPROTOOPT: (ProbeState.FILTERED, "proto-unreachable"),
    errno.EACCES: (ProbeState.FILTERED, "admin-prohibited"),
}
_ANSWERS = {code for code, (state, _) in _VERDICTS.items() if state is not ProbeState.FILTERED}
_SHORT = {
    errno.EADDRNOTAVAIL, errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, errno.EAGAIN,
    errno.ENOSPC,  # of epoll's watches
}  # fmt: skip
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)  # linger 0: no TIME_WAIT piles up
_STREAM = socket.SOCK_STREAM | socket.SOCK_NONBLOCK
_BURST = 256  # dials between two polls, so that answers are not kept waiting


class ProbeResult(NamedTuple):
    """The verdict on one port; a host that may not be dialled has one, without a port."""

    host: str
    port: int | None
    state: ProbeState
    reason: str  # "refused"; of unknown: "local-enetunreach", the errno run short of, …
    tries: int  # the try that brought the verdict; 0: nothing was sent


class _Probe(NamedTuple):
    host: int  # index
    port: int
    attempt: int


_Flight = tuple[float, socket.socket, _Probe]  # deadline (monotonic) first


def scan_ports(
    addresses: Sequence[str],
    ports: Sequence[int],
    *,
    may_dial: Callable[[str], bool],
    timeout_s: float = 1.0,
    tries: int = 2,
    advance: Callable[[int], object] = lambda _: None,
) -> Iterator[ProbeResult]:
    """Connect to every port of every address, in an order shuffled over both.

    A host that `may_dial` denies gets no packet and one result, without a port: unknown,
    "out-of-scope".
    A silent port is tried `tries` times, each on a new socket for `timeout_s`. `advance` is told
    how many of the planned probes have ended since it was last called.

    Raises:
        ValueError: an address is none (names are resolved by the caller).
    """
    hosts: list[str] = []
    for address in addresses:
        if may_dial(address):
            hosts.append(address)
        else:
            advance(len(ports))
            yield ProbeResult(address, None, ProbeState.UNKNOWN, "out-of-scope", 0)
    with closing(_Engine(hosts, ports, timeout_s, tries).run()) as turns:
        for results in turns:
            advance(len(results))
            yield from results


class _Engine:
    """The loop's state: what is still to do, what is in flight, what has been found out."""

    def __init__(
        self, hosts: Sequence[str], ports: Sequence[int], timeout_s: float, tries: int
    ) -> None:
        families = {4: socket.AF_INET, 6: socket.AF_INET6}
        self._families = [families[ip_address(host).version] for host in hosts]
        self._hosts, self._timeout_s, self._tries = hosts, timeout_s, tries
        self._left = len(hosts) * len(ports)  # not dialled once
        self._todo = (
            _Probe(index % len(hosts), ports[index // len(hosts)], 1)
            for index in Permutation(self._left, seed=0)
        )
        self._again: deque[tuple[float, _Probe]] = deque()  # with the time that it is due
        self._flights: OrderedDict[int, _Flight] = OrderedDict()  # by descriptor, oldest first
        self._results: list[ProbeResult] = []
        self._pace = Pace()
        self._epoll = epoll()

    def run(self) -> Generator[list[ProbeResult], None, None]:
        """Launch, collect and expire in turns; give the verdicts found in each."""
        try:
            while self._left or self._flights or self._again:
                self._launch()
                self._collect(self._wait_s())
                now = time.monotonic()
                if self._deadline() <= now:
                    self._collect(0)  # what came before `now` is seen before anything expires
                while self._deadline() <= now:
                    self._silent(*self._forget(next(iter(self._flights))))
                if self._results:
                    yield self._results
                    self._results = []
        finally:
            for _, sock, _ in self._flights.values():
                sock.close()
            self._epoll.close()

    def _launch(self) -> None:
        now = time.monotonic()
        for _ in range(min(_BURST, self._pace.window - len(self._flights))):
            if self._pace.resume_at > now:
                return
            if self._again and self._again[0][0] <= now:
                self._dial(self._again.popleft()[1])
            elif self._left:
                self._left -= 1
                self._dial(next(self._todo))

    def _dial(self, probe: _Probe) -> None:
        """Send one SYN."""
        sock = None
        try:
            sock = socket.socket(self._families[probe.host], _STREAM)
            code = sock.connect_ex((self._hosts[probe.host], probe.port))
            if code == errno.EINPROGRESS:
                self._epoll.register(sock, EPOLLOUT)
                self._flights[sock.fileno()] = (time.monotonic() + self._timeout_s, sock, probe)
                return
        except OSError as error:  # out of descriptors or watches, or no such family
            code = error.errno or errno.EIO
        # With a local port chosen a SYN went out, and a near target's ICMP error may be back.
        was_sent = code in _ANSWERS or bool(sock and sock.getsockname()[1])
        self._landed(sock, probe, code, was_sent=was_sent)

    def _deadline(self) -> float:
        return next(iter(self._flights.values()))[0] if self._flights else inf

    def _wait_s(self) -> float:
        """Tell for how long nothing can happen but an answer."""
        until = self._deadline()
        if len(self._flights) < self._pace.window:
            if self._left:
                until = min(until, self._pace.resume_at)
            elif self._again:
                until = min(until, max(self._pace.resume_at, self._again[0][0]))
        return 0.0 if until == inf else max(0.0, until - time.monotonic())

    def _collect(self, wait_s: float) -> None:
        for fd, _ in self._epoll.poll(wait_s, MAX_WINDOW):
            sock, probe = self._forget(fd)
            code = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            if code == errno.ETIMEDOUT:  # the kernel gave up before we did
                self._silent(sock, probe)
            else:
                self._landed(sock, probe, code, was_sent=True)

    def _forget(self, fd: int) -> tuple[socket.socket, _Probe]:
        self._epoll.unregister(fd)  # closing would not: a forked child may share the socket
        _, sock, probe = self._flights.pop(fd)
        return sock, probe

    def _landed(
        self, sock: socket.socket | None, probe: _Probe, code: int, *, was_sent: bool
    ) -> None:
        """Settle what an answered or failed connect means."""
        shortage = _name(code) if code in _SHORT else ""
        if sock:
            if code == 0:
                shortage = "self-connect" if _is_self_connected(sock) else ""
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
            sock.close()
        if shortage:
            self._delay(probe, shortage)
            return
        self._pace.progress()
        if was_sent:
            state, reason = _VERDICTS.get(code) or (ProbeState.FILTERED, _name(code))
            self._report(probe, state, reason)
        else:
            self._report(probe, ProbeState.UNKNOWN, f"local-{_name(code)}")

    def _silent(self, sock: socket.socket, probe: _Probe) -> None:
        sock.close()
        self._pace.progress()
        if probe.attempt == self._tries:
            self._report(probe, ProbeState.NO_RESPONSE, "timeout")
        else:
            self._again.append((0.0, probe._replace(attempt=probe.attempt + 1)))

    def _delay(self, probe: _Probe, reason: str) -> None:
        """Try the same try again later, unless that has gone on for too long."""
        if self._pace.back_off(len(self._flights)):
            self._again.append((time.monotonic() + RETRY_S, probe))
        else:  # no progress: the next give up at once
            self._report(probe, ProbeState.UNKNOWN, reason)

    def _report(self, probe: _Probe, state: ProbeState, reason: str) -> None:
        host, port, attempt = probe
        self._results.append(ProbeResult(self._hosts[host], port, state, reason, attempt))


def _name(code: int) -> str:
    return errno.errorcode.get(code, str(code)).lower()


def _is_self_connected(sock: socket.socket) -> bool:
    """Tell whether the kernel gave us the very port that we dialled (on our own addresses)."""
    try:
        return bool(sock.getsockname() == sock.getpeername())
    except OSError:  # reset meanwhile: someone else was there
        return False
