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
from collections.abc import Callable, Iterator, Sequence
from ipaddress import ip_address
from select import EPOLLOUT, epoll
from typing import NamedTuple

from rqscan.probe.order import Permutation
from rqscan.probe.timing import MAX_WINDOW, RETRY_S, Pace
from rqscan.states import ProbeState

__all__ = ["ProbeResult", "scan_ports"]

_VERDICTS = {  # what a SYN brought back; any other errno is filtered, with its own name
    0: (ProbeState.OPEN, "accepted"),
    errno.EISCONN: (ProbeState.OPEN, "accepted"),
    errno.ECONNRESET: (ProbeState.OPEN, "reset"),  # accepted, then thrown out
    errno.EPIPE: (ProbeState.OPEN, "reset"),
    errno.ECONNREFUSED: (ProbeState.CLOSED, "refused"),
    errno.EHOSTUNREACH: (ProbeState.FILTERED, "host-unreachable"),
    errno.EHOSTDOWN: (ProbeState.FILTERED, "host-unreachable"),
    errno.ENONET: (ProbeState.FILTERED, "host-unreachable"),
    errno.ENETUNREACH: (ProbeState.FILTERED, "net-unreachable"),
    errno.ENOPROTOOPT: (ProbeState.FILTERED, "proto-unreachable"),
    errno.EACCES: (ProbeState.FILTERED, "admin-prohibited"),
    errno.EPERM: (ProbeState.FILTERED, "admin-prohibited"),
}
_ANSWERS = frozenset(
    {0, errno.EISCONN, errno.ECONNRESET, errno.EPIPE, errno.ECONNREFUSED}
)  # surely from the target
_PENDING = frozenset({errno.EINPROGRESS, errno.EALREADY, errno.EINTR})
_SHORT = frozenset(
    {errno.EADDRNOTAVAIL, errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, errno.EAGAIN}
)
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
    seed: int = 0,
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
    engine = _Engine(hosts, ports, timeout_s, tries, seed)
    try:
        while engine.is_busy:
            results = engine.turn()
            if results:
                advance(len(results))
                yield from results
    finally:
        engine.close()


class _Engine:
    """The loop's state: what is still to do, what is in flight, what has been found out."""

    def __init__(
        self, hosts: Sequence[str], ports: Sequence[int], timeout_s: float, tries: int, seed: int
    ) -> None:
        v6 = [ip_address(host).version == 6 for host in hosts]  # noqa: PLR2004 - the family's name
        self._families = [socket.AF_INET6 if six else socket.AF_INET for six in v6]
        self._hosts, self._timeout_s, self._tries = hosts, timeout_s, tries
        self._todo = (
            _Probe(index % len(hosts), ports[index // len(hosts)], 1)
            for index in Permutation(len(hosts) * len(ports), seed)
        )
        self._again: deque[_Probe] = deque()  # their next try
        self._delayed: deque[tuple[float, _Probe]] = deque()  # the same try, when it is due
        self._flights: OrderedDict[int, _Flight] = OrderedDict()  # by descriptor, oldest first
        self._results: list[ProbeResult] = []
        self._pace = Pace()
        self._epoll = epoll()
        self._is_dry = False  # nothing left in _todo

    @property
    def is_busy(self) -> bool:
        return not self._is_dry or bool(self._flights or self._again or self._delayed)

    def close(self) -> None:
        for _, sock, _ in self._flights.values():
            sock.close()
        self._epoll.close()

    def turn(self) -> list[ProbeResult]:
        """Launch, collect, expire once; give the verdicts found."""
        self._launch()
        self._collect(self._wait_s())
        now = time.monotonic()
        if self._flights and next(iter(self._flights.values()))[0] <= now:
            self._collect(0)  # whatever came before `now` is seen before anything expires
            self._expire(now)
        results, self._results = self._results, []
        return results

    def _launch(self) -> None:
        now, again = time.monotonic(), self._again
        if now < self._pace.resume_at:
            return
        while self._delayed and self._delayed[0][0] <= now:
            again.append(self._delayed.popleft()[1])
        for _ in range(min(_BURST, self._pace.window - len(self._flights))):
            probe = again.popleft() if again else next(self._todo, None)
            if probe is None:
                self._is_dry = True
                return
            if not self._dial(probe):
                return

    def _dial(self, probe: _Probe) -> bool:
        """Send one SYN; tell whether to go on with the next."""
        try:
            sock = socket.socket(self._families[probe.host], _STREAM)
        except OSError as error:
            return self._refused_here(probe, error.errno or 0)
        code = sock.connect_ex((self._hosts[probe.host], probe.port))
        if code in _PENDING:
            fd = sock.fileno()
            try:
                self._epoll.register(fd, EPOLLOUT)
            except OSError as error:  # out of watches or memory
                sock.close()
                return self._refused_here(probe, error.errno or 0)
            self._flights[fd] = (time.monotonic() + self._timeout_s, sock, probe)
            return True
        # With a local port chosen a SYN went out, and a near target's ICMP error may be back.
        if code in _ANSWERS or (code not in _SHORT and sock.getsockname()[1]):
            return self._landed(sock, probe, code)
        sock.close()
        return self._refused_here(probe, code)

    def _refused_here(self, probe: _Probe, code: int) -> bool:
        if code in _SHORT:
            return self._delay(probe, _name(code))
        self._settle(probe, ProbeState.UNKNOWN, f"local-{_name(code)}")
        return True

    def _wait_s(self) -> float:
        """Tell for how long nothing can happen but an answer."""
        until = [self._delayed[0][0]] if self._delayed else []
        if self._flights:
            until.append(next(iter(self._flights.values()))[0])
        if (self._again or not self._is_dry) and len(self._flights) < self._pace.window:
            until.append(self._pace.resume_at)
        return max(0.0, min(until, default=0.0) - time.monotonic())

    def _collect(self, wait_s: float) -> None:
        for fd, _ in self._epoll.poll(wait_s, MAX_WINDOW):
            _, sock, probe = self._flights[fd]
            code = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            self._forget(fd)
            if code == errno.ETIMEDOUT:  # the kernel gave up before we did
                self._silent(sock, probe)
            else:
                self._landed(sock, probe, code)

    def _landed(self, sock: socket.socket, probe: _Probe, code: int) -> bool:
        """Settle what an answered or failed connect means; tell whether to go on dialling."""
        is_self = False
        if code in (0, errno.EISCONN):
            is_self = _is_self_connected(sock)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)
        sock.close()
        if is_self:
            return self._delay(probe, "self-connect")
        if code in _SHORT:
            return self._refused_here(probe, code)
        state, reason = _VERDICTS.get(code) or (ProbeState.FILTERED, _name(code))
        self._settle(probe, state, reason)
        return True

    def _expire(self, now: float) -> None:
        while self._flights:
            fd, (deadline, sock, probe) = next(iter(self._flights.items()))
            if deadline > now:
                return
            self._forget(fd)
            self._silent(sock, probe)

    def _forget(self, fd: int) -> None:
        self._epoll.unregister(fd)  # closing would not: a forked child may share the socket
        del self._flights[fd]

    def _silent(self, sock: socket.socket, probe: _Probe) -> None:
        sock.close()
        if probe.attempt == self._tries:
            self._settle(probe, ProbeState.NO_RESPONSE, "timeout")
            return
        self._pace.progress()
        self._again.append(_Probe(probe.host, probe.port, probe.attempt + 1))

    def _delay(self, probe: _Probe, reason: str) -> bool:
        """Try the same try again later, unless that has gone on for too long."""
        if self._pace.back_off(len(self._flights)):
            self._delayed.append((time.monotonic() + RETRY_S, probe))
            return False
        self._report(probe, ProbeState.UNKNOWN, reason)  # no progress: the next give up at once
        return True

    def _settle(self, probe: _Probe, state: ProbeState, reason: str) -> None:
        self._pace.progress()
        self._report(probe, state, reason)

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
