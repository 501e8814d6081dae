"""Real databases for the tests: MariaDB, or the MySQL that MYSQLD names, where a test asks for one.

Their data folder is made once, and copied for each server.
"""

import fcntl
import hashlib
import os
import shutil
import socket
import subprocess
from itertools import count
from pathlib import Path
from typing import Any

import pymysql

from tests.servers import CACHE, Server, missing

__all__ = ["MariaDB"]


class MariaDB(Server):
    """MariaDB, or the MySQL of MYSQLD, on a unix socket; committed rows survive `kill`.

    With a `port` it listens there too, on all addresses: only for a network of one's own.
    `options` are more server arguments.
    """

    def __init__(self, folder: Path, *options: str, port: int = 0) -> None:
        super().__init__(folder)
        self.options, self.port = options, port
        self._network = [f"--port={port}"] if port else ["--skip-networking"]
        found = os.environ.get("MYSQLD") or shutil.which("mariadbd", path=_SBIN)
        self.binary = found or missing("mariadbd")
        self.socket = folder / "mariadb.sock"
        self._names = count(1)
        shutil.copytree(_mariadb_template(self.binary), folder / "data")

    def start(self) -> "MariaDB":
        self.launch()
        self._wait_until(self._answers)
        return self

    def launch(self) -> None:
        """Start it, and do not wait until it answers."""
        self.socket.unlink(missing_ok=True)
        self._spawn(
            self.binary, "mariadbd", "--no-defaults", *_as_root(), f"--datadir={self.folder}/data",
            f"--socket={self.socket}", f"--pid-file={self.folder}/pid", *self._network,
            *_SMALL, "--innodb-flush-method=nosync",
            # 2: each commit reaches the kernel, so only a power cut loses it; no fsync to wait for
            "--innodb-flush-log-at-trx-commit=2", *self.options,
        )  # fmt: skip

    def connect(self, **options: Any) -> "pymysql.Connection[Any]":
        """Connect as root."""
        unix = str(self.socket)
        return pymysql.connect(unix_socket=unix, user="root", ssl_disabled=True, **options)

    def _answers(self) -> bool:
        # not by PyMySQL, which leaves an unclosed socket behind when it is refused
        with socket.socket(socket.AF_UNIX) as probe:
            return probe.connect_ex(str(self.socket)) == 0

    def database_url(self) -> str:
        """Make a fresh, empty database and give its URL."""
        name = f"rqscan_{next(self._names)}"
        connection = self.connect()
        connection.cursor().execute(f"CREATE DATABASE {name}")
        connection.close()
        return f"mysql+pymysql://root@localhost/{name}?unix_socket={self.socket}"

    close = Server.kill


_SBIN = f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/usr/local/sbin"

# What only one of the two knows is loose. Without the second line MySQL would keep a binary log,
# watch itself, listen on another port and want a folder of its package.
_SMALL = (
    "--loose-innodb-log-file-size=4M", "--loose-innodb-redo-log-capacity=32M",
    "--skip-log-bin", "--performance-schema=OFF", "--loose-mysqlx=OFF", "--secure-file-priv=",
    "--max-allowed-packet=16M",
)  # fmt: skip


def _as_root() -> list[str]:
    return ["--user=root"] if os.getuid() == 0 else []  # mariadbd runs as root only when told so


def _mariadb_template(binary: str) -> Path:
    """Give a data folder to copy, made once for this server version and user."""
    version = subprocess.check_output([binary, "--version"])
    key = hashlib.sha256(version + str(os.getuid()).encode()).hexdigest()[:12]
    template = CACHE / f"mariadb-{key}"
    CACHE.mkdir(exist_ok=True)
    with (CACHE / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # the other pytest processes wait for the first
        if not template.exists():
            make = [binary, "--no-defaults", "--initialize-insecure", *_SMALL]
            if b"MariaDB" in version:
                installer = shutil.which("mariadb-install-db") or missing("mariadb-install-db")
                make = [installer, "--no-defaults", "--auth-root-authentication-method=normal",
                        "--skip-test-db", "--innodb-log-file-size=4M"]  # fmt: skip
            unfinished = template.with_suffix(".new")
            shutil.rmtree(unfinished, ignore_errors=True)
            subprocess.run(
                [*make, *_as_root(), f"--datadir={unfinished}"],
                check=True, capture_output=True, timeout=60,
            )  # fmt: skip
            unfinished.rename(template)
    return template
