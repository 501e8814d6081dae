"""Endpoint: where a Redis is and how to log in, as data that one process can hand to another.

`rqscan.broker.connect.endpoint_of` makes it of a redis-py client; links are made with it.
"""

import ssl
from typing import Any

from msgspec import Struct

__all__ = ["Endpoint", "Tls"]


class Tls(Struct, frozen=True, kw_only=True):
    """How to speak TLS: redis-py's options, which say `ssl_` before each."""

    keyfile: str | None
    certfile: str | None
    cert_reqs: int
    flags_on: int
    flags_off: int
    ca_certs: str | None
    ca_data: Any  # text or bytes
    ca_path: str | None
    check_hostname: bool
    password: Any  # of the key: text, or a function that gives it
    min_version: int | None
    ciphers: str | None

    @property
    def files(self) -> list[str]:
        """The files that are read."""
        return [f for f in (self.certfile, self.keyfile, self.ca_certs, self.ca_path) if f]

    def context(self) -> ssl.SSLContext:
        """Read the files, which takes some 40 ms.

        Raises:
            OSError, ValueError: something in them, or in the options, cannot be used.
        """
        context = ssl.create_default_context()
        context.check_hostname = self.check_hostname
        context.verify_mode = ssl.VerifyMode(self.cert_reqs)
        flags = (context.verify_flags | self.flags_on) & ~self.flags_off
        context.verify_flags = ssl.VerifyFlags(flags)
        if self.certfile or self.keyfile:
            context.load_cert_chain(self.certfile or "", self.keyfile, self.password)
        if any(ca is not None for ca in (self.ca_certs, self.ca_path, self.ca_data)):
            context.load_verify_locations(self.ca_certs, self.ca_path, self.ca_data)
        if self.min_version is not None:
            context.minimum_version = ssl.TLSVersion(self.min_version)
        if self.ciphers:
            context.set_ciphers(self.ciphers)
        return context


class Endpoint(Struct, frozen=True, kw_only=True):
    """One database of a server, and who we are there."""

    where: str | tuple[str, int]  # the path of a unix socket, or host and port
    url: str  # all of it as a URL, for children that make a client of it
    db: int = 0
    login: tuple[str, ...] = ()  # what AUTH takes
    provider: Any = None  # a function that gives that anew each time; cannot be handed on
    tls: Tls | None = None

    def __repr__(self) -> str:
        return f"Endpoint({self.where!r})"  # the rest may hold a password

    def credentials(self) -> tuple[str, ...]:
        """Give what AUTH takes, nothing where there is no password.

        Raises:
            OSError: the provider has none.
        """
        login: tuple[str, ...] = self.provider() if self.provider else self.login
        return login
