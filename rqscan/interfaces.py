"""Interfaces: which of this host's lead to the store, and what traffic on them counts as calm."""

import os
import socket
import struct
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from rqscan.settings import Settings
from rqscan.tally import Link

__all__ = ["find_link"]

DEFAULT_SPEED_MBITS = 100
"""Of an interface that tells none, as virtual ones do not."""

RTM_GETROUTE, NLM_F_REQUEST, NLMSG_ERROR, RTA_DST, RTA_OIF = 26, 1, 2, 1, 4
"""Of rtnetlink(7)."""


def find_link(settings: Settings) -> Link:
    """Find the interfaces whose traffic counts, and its bound. It may wait for DNS."""
    idle = settings.idle
    names = idle.interfaces
    if not names:
        try:
            name = _interface_to(settings.database.url)
        except (OSError, UnicodeError) as error:
            why = getattr(error, "strerror", None) or error
            return Link(fault=f"no way to the database is found: {why}")
        names = [] if name == "lo" else [name]
    if idle.below_bits_per_s or not names:
        return Link(interfaces=names, below_bits_per_s=idle.below_bits_per_s)
    mbits = min(map(_speed_mbits, names))
    below = (mbits or DEFAULT_SPEED_MBITS) * 1e6 * idle.below_percent / 100
    note = "" if mbits else f"its speed is not known and taken for {DEFAULT_SPEED_MBITS}"
    return Link(interfaces=names, below_bits_per_s=below, note=note)


def _interface_to(url: str | None) -> str:
    """Name the interface by which packets to the database leave; lo if none leave this host."""
    parts = urlsplit(url or "sqlite:")
    if parts.scheme == "sqlite" or "unix_socket=" in parts.query:
        return "lo"
    host = unquote(parts.hostname or "localhost")
    place: Any
    family, *_, place = socket.getaddrinfo(host, None, type=socket.SOCK_DGRAM)[0]
    if family == socket.AF_INET6 and place[3]:  # a link-local address names its interface
        return socket.if_indextoname(place[3])
    return socket.if_indextoname(_route(family, socket.inet_pton(family, place[0])))


def _route(family: int, address: bytes) -> int:
    """Ask the kernel for the index of the interface to an address; nothing is sent there."""
    body = struct.pack("=8BI", family, 8 * len(address), *[0] * 7)
    body += struct.pack("=HH", 4 + len(address), RTA_DST) + address
    with socket.socket(socket.AF_NETLINK, socket.SOCK_DGRAM) as kernel:
        head = struct.pack("=IHHII", 16 + len(body), RTM_GETROUTE, NLM_F_REQUEST, 0, 0)
        kernel.sendto(head + body, (0, 0))
        answer = kernel.recv(65_536)
    if struct.unpack_from("=H", answer, 4)[0] == NLMSG_ERROR:
        code = -struct.unpack_from("=i", answer, 16)[0]
        raise OSError(code, os.strerror(code))
    at = 28  # behind the heads: attributes, each with its length, at multiples of 4
    while at < len(answer):
        length, kind = struct.unpack_from("=HH", answer, at)
        if kind == RTA_OIF:
            return int(struct.unpack_from("=I", answer, at + 4)[0])
        at += (length + 3) & ~3
    raise OSError(0, "the route has no interface")


def _speed_mbits(name: str) -> int:
    """Give an interface's speed; 0 if it is not known.

    A virtual one with nothing beneath, such as a container's, tells a number that means nothing.
    """
    place = Path("/sys/class/net", name)
    if not (place / "device").exists() and not any(place.glob("lower_*")):
        return 0
    try:
        return max(0, int((place / "speed").read_text("ascii")))
    except (OSError, ValueError):  # it is down, or has no such thing
        return 0
