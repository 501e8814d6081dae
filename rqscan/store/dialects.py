"""The two databases: how each is found by its URL, connected to, and what its errors call for.

No password leaves this module: messages name a database by `where`, never by its URL.
"""

import json
import os
import socket
import sqlite3
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import pymysql
from pymysql.constants import CLIENT, FIELD_TYPE
from pymysql.converters import conversions
from tenacity import retry, retry_if_exception, stop_after_delay, wait_random

from rqscan.config import Settings
from rqscan.errors import ConfigError, HomeUnavailable, StoreUnavailable

__all__ = ["Dialect", "MySql", "Sqlite", "dialect_of"]

BUSY_S = 30
CONNECT_S = 10
ANSWER_S = 60
"""Longest wait for an answer once connected."""
MIGRATE = "bring its schema up to date with: rqscan db migrate"
RIGHTS = "check that this user may write the file and its folder"
SQLITE_ADVICE = {
    sqlite3.SQLITE_BUSY: "another process holds it: try again",
    sqlite3.SQLITE_PROTOCOL: "too many processes want it at once: try again",
    sqlite3.SQLITE_FULL: "free some space on its disk",
    sqlite3.SQLITE_IOERR: "check its disk and the space on it",
    sqlite3.SQLITE_NOTADB: "move that file away or name another in database.url",
    sqlite3.SQLITE_CORRUPT: "restore it from a backup or move it away",
    sqlite3.SQLITE_CANTOPEN: RIGHTS,
    sqlite3.SQLITE_READONLY: RIGHTS,
}
MYSQL_ADVICE = {
    **dict.fromkeys((1044, 1045, 1142, 1698), "check user, password and grants"),
    **dict.fromkeys((1054, 1146), MIGRATE),
    **dict.fromkeys((1205, 1213), "another transaction was in its way: try again"),
    **dict.fromkeys((1290, 1836), "make the server writable"),
    **dict.fromkeys((1021, 1114), "check the space on the server's disk"),
    1049: "create it with: CREATE DATABASE",
}


class Sqlite:
    """One file, for the one host that has it."""

    sql, driver = "sqlite", "sqlite3"
    error, integrity_error = sqlite3.Error, sqlite3.IntegrityError
    begin, begin_read_only = "BEGIN IMMEDIATE", "BEGIN"  # a writer queues up here, not later
    numbers: Any = staticmethod(json.dumps)  # makes a parameter of many numbers

    def __init__(self, path: Path) -> None:
        self._path = path
        self.where = f"the SQLite database '{path}'"

    @retry(
        retry=retry_if_exception(lambda error: "database is locked" in str(error)),
        stop=stop_after_delay(BUSY_S),
        wait=wait_random(0, 0.05),
        reraise=True,
    )
    def connect(self) -> sqlite3.Connection:
        """Open the file; a missing one is made, for its owner only.

        Those who find a fresh file at once and turn to WAL get no turn from `timeout`: they retry.
        """
        try:
            # Never open an existing file here: closing it again would drop SQLite's own locks.
            with suppress(FileExistsError):
                os.close(os.open(self._path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
        except OSError as error:
            message = f"cannot make {self.where}: {error.strerror}; check its folder"
            raise StoreUnavailable(message) from error
        connection = sqlite3.connect(self._path, timeout=BUSY_S, isolation_level=None)
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = FULL")
        except sqlite3.Error:
            connection.close()
            raise
        return connection

    def advice(self, error: Exception) -> str | None:
        """Say what to do where the database is to blame; None where the statement is."""
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF  # the low byte is the primary code
        return MIGRATE if str(error).startswith("no such ") else SQLITE_ADVICE.get(code)


class MySql:
    """A MySQL or MariaDB server, for a fleet."""

    sql, driver = "mysql", "pymysql"
    error, integrity_error = pymysql.Error, pymysql.IntegrityError
    begin, begin_read_only = "START TRANSACTION", "START TRANSACTION READ ONLY"
    numbers: Any = staticmethod(list)  # makes a parameter of many numbers

    def __init__(self, server: dict[str, Any]) -> None:
        self._server = server
        at = server["unix_socket"] or f"{server['host']}:{server['port']}"
        self.where = f"the database '{server['database']}' at {at}"

    def connect(self) -> Any:
        """Connect, with a session that is strict, speaks UTC and locks no gaps.

        Gap locks, of the default isolation, would let chunks that record rows at once deadlock.
        """
        connection: Any = pymysql.Connection(
            **self._server,
            charset="utf8mb4",
            client_flag=CLIENT.FOUND_ROWS,  # an UPDATE that changes nothing has found its row
            binary_prefix=True,
            # Times stay text as in SQLite; what is summed up here is whole numbers.
            conv={k: v for k, v in conversions.items() if k != FIELD_TYPE.DATETIME}
            | {FIELD_TYPE.NEWDECIMAL: int},
            connect_timeout=CONNECT_S,
            read_timeout=CONNECT_S,  # of the greeting: a frozen server accepts and says nothing
            write_timeout=60,
            init_command="SET time_zone = '+00:00', sql_mode = 'TRADITIONAL', "
            "innodb_lock_wait_timeout = 10",
            defer_connect=True,
        )
        path = self._server["unix_socket"]
        connection._secure = bool(path)  # noqa: SLF001 - as the driver does for its own socket
        connection.connect(_unix_socket(path) if path else None)
        connection._read_timeout = ANSWER_S  # noqa: SLF001 - it has no public name
        connection.query("SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED")
        return connection

    def advice(self, error: Exception) -> str | None:
        """Say what to do where the database is to blame; None where the statement is."""
        away = (pymysql.OperationalError, pymysql.InterfaceError, pymysql.InternalError)
        default = "check that the server runs" if isinstance(error, away) else None
        return MYSQL_ADVICE.get(error.args[0], default) if error.args else default


def _unix_socket(path: str) -> socket.socket:
    """Connect to a socket file; the driver would leak its own socket when that fails."""
    link = socket.socket(socket.AF_UNIX)
    try:
        link.settimeout(CONNECT_S)
        link.connect(path)
    except OSError as error:
        link.close()
        raise pymysql.OperationalError(2002, f"Can't connect ({error.strerror})") from error
    return link


Dialect = Sqlite | MySql


def dialect_of(settings: Settings) -> Dialect:
    """Find the database that `database.url` names; without one it is SQLite in the home.

    Raises:
        ConfigError: the URL has a fault; its text is not repeated, for the password in it.
        HomeUnavailable: the home cannot be made.
    """
    url = settings.database.url
    if url is None:
        try:
            Path(settings.home).mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            message = f"cannot make the home '{settings.home}': {error.strerror}; set RQSCAN_HOME"
            raise HomeUnavailable(message) from error
        return Sqlite(Path(settings.home, "rqscan.db").absolute())
    path = unquote(url.removeprefix("sqlite:///"))
    if url.startswith("sqlite:///") and path not in {"", ":memory:"}:
        return Sqlite(Path(path).absolute())
    if url.startswith("mysql+pymysql://"):
        with suppress(ValueError):  # its text may hold a piece of an unescaped password
            return MySql(_server(url))
    raise ConfigError(
        "database.url must be like mysql+pymysql://USER:PASSWORD@HOST:PORT/NAME, with "
        "?unix_socket=/PATH if need be, or sqlite:////PATH; write special characters as %XX"
    )


def _server(url: str) -> dict[str, Any]:
    parts = urlsplit(url)
    options = parse_qs(parts.query, keep_blank_values=True, strict_parsing=bool(parts.query))
    path = options.pop("unix_socket", [None])[0]
    database = parts.path[1:]
    if options or parts.fragment or not database or set("/@") & set(database):
        raise ValueError
    return {
        "host": unquote(parts.hostname or "localhost"),
        "port": parts.port or 3306,
        "user": unquote(parts.username or ""),
        "password": unquote(parts.password or "").encode(),  # as text it would be sent as Latin-1
        "database": unquote(database),
        "unix_socket": path,
        "ssl_disabled": path is not None,  # a TLS context costs 16 ms a connection
    }
