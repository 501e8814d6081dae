"""The store of a run as a server: a private MariaDB, and homes for those who write to it.

Two workers share a home, as on one host; each of the others has its own, and that of the last one
is of the mode spool_first. With links each home reaches the server by a loopback address of its
own, so that a rule takes it off that net.
"""

from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

from bench.chaos.fleet import Host
from tests.databases import MariaDB

__all__ = ["ACCOUNT", "Home", "Store"]

PORT = 3306
"""Free for sure: links are there only in a network namespace of the run's own."""

ACCOUNT = "rqscan"
"""User and database; without the right to write while the server is read-only."""

ADMIN_S = 5
"""Longest wait for an answer to us."""

DELAY_S = 5
"""Of the home that spools first: so short that much is drained while the faults go on."""


class Home(NamedTuple):
    """A folder, and the address by which it sees the store."""

    folder: Path
    address: str
    url: str


class Store:
    """The server, and the home of each host."""

    def __init__(self, folder: Path, workers: int, *, has_links: bool) -> None:
        (folder / "mariadb").mkdir()
        options = ["--skip-name-resolve"]
        if has_links:
            options += ["--skip-networking=0", f"--port={PORT}", "--bind-address=0.0.0.0"]
        self.server = MariaDB(folder / "mariadb", *options)
        self._folder, self._workers, self._has_links = folder, workers, has_links
        self.homes: dict[str, Home] = {}

    def start(self) -> dict[str, str]:
        """Start it, with a database and an account; give the environment of who has no host."""
        self.server.start()
        with closing(self.admin()) as connection:
            cursor = connection.cursor()
            cursor.execute(f"CREATE DATABASE {ACCOUNT}")
            for place in ("localhost", "%"):
                cursor.execute(f"CREATE USER '{ACCOUNT}'@'{place}'")
                cursor.execute(f"GRANT ALL ON {ACCOUNT}.* TO '{ACCOUNT}'@'{place}'")
        return {"RQSCAN_DATABASE_URL": self._url("")}

    def admin(self, **options: Any) -> Any:
        """Connect as root, by the socket that no fault cuts."""
        return self.server.connect(
            connect_timeout=ADMIN_S, read_timeout=ADMIN_S, autocommit=True, **options
        )

    def join(self, host: Host) -> None:
        """Give a host its home."""
        number = max(host.slot, 1) if host.role == "worker" else 100 + host.slot
        address = f"127.0.1.{number}" if self._has_links else ""
        home = Home(self._folder / f"home-{number}", address, self._url(address))
        self.homes[home.folder.name] = home
        host.env |= {"RQSCAN_HOME": str(home.folder), "RQSCAN_DATABASE_URL": home.url}
        if host.role == "worker" and host.slot == self._workers - 1:
            host.env |= {
                "RQSCAN_SPOOL_MODE": "spool_first",
                "RQSCAN_SPOOL_MAX_DELAY_S": f"{DELAY_S}",
            }

    def is_known(self) -> bool:
        """Tell whether every home has once reached the store."""
        return all(list(home.folder.glob("store-*")) for home in self.homes.values())

    def _url(self, address: str) -> str:
        place, query = (f"{address}:{PORT}", "") if address else ("localhost", self._socket)
        return f"mysql+pymysql://{ACCOUNT}@{place}/{ACCOUNT}{query}"

    @property
    def _socket(self) -> str:
        return f"?unix_socket={self.server.socket}"
