"""MySQL and MariaDB: a server for a fleet."""

import socket
import ssl
import struct
from collections.abc import Iterable, Iterator
from contextlib import suppress
from functools import cache
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import pymysql
from pymysql.constants import CLIENT, COMMAND, CR, FIELD_TYPE
from pymysql.converters import conversions, escape_string
from pymysql.cursors import RE_INSERT_VALUES, Cursor

from rqscan.chance import chance
from rqscan.errors import Fault
from rqscan.store.dialect import MIGRATE, Limits

__all__ = ["TURNS", "MySql"]

SILENT_S = 60
"""After so long without a word from us the server ends a session, and frees what it has locked: a
link that is cut without a reset would hold up the next attempt for hours."""

TURNS, TURN_WAIT_S = 4, 5
"""So many homes drain at once, the others wait so long and come again: after an outage a fleet
must leave room for those who wait for an answer."""

TAKE_TURN = "SELECT GET_LOCK(CONCAT('rqscan drain ', %s, ' ', LEFT(SHA2(DATABASE(), 256), 32)), %s)"

FRAME_BYTES = 100
"""What a packet may have beside its statement, and some more."""

ROWS = 250
"""Of one statement: while the server is busy with them, the next ones are written."""

DENIED = (1044, 1045, 1142, 1698, 1820, 1862, 3118, 4151)
"""No right or a wrong password; an expired password, a locked account (two codes each)."""
READ_ONLY = (1290, 1792, 1836, 3989)
"""The server, each transaction, InnoDB, the database."""
NO_SPACE = (3, 1021, 1026, 1114, 3675)
"""For a file, a table's rows, a table."""
NO_PLUGIN = CR.CR_AUTH_PLUGIN_CANNOT_LOAD
ADVICE = {
    **dict.fromkeys(DENIED, "check user, password and grants"),
    **dict.fromkeys((1054, 1146), MIGRATE),
    **dict.fromkeys((1205, 1213), "another transaction was in its way: try again"),
    **dict.fromkeys(READ_ONLY, "make the server writable"),
    **dict.fromkeys(NO_SPACE, "check the space on the server's disk"),
    1049: "create it with: CREATE DATABASE",
    NO_PLUGIN: "turn on the server's TLS, install that package, or let the user log in another way",
}
FAULTS = {
    **dict.fromkeys((*DENIED, *READ_ONLY, 1049, 1054, 1146, NO_PLUGIN), Fault.REFUSED),
    **dict.fromkeys((1205, 1213), Fault.BUSY),
    **dict.fromkeys(NO_SPACE, Fault.FULL),
}
HEADERS_BYTES = 66
"""Of a packet: Ethernet 14, IPv4 20, TCP 20 and its time stamps 12."""
TCP_INFO_BYTES = 144
"""Of the struct in <linux/tcp.h>, up to tcpi_segs_in; the counts begin at 120 (Linux 4.2)."""
NOT_ASCII = (1267, 3854)
"""A text was to be compared with a column that cannot have it: MariaDB's code, and MySQL's."""
OF_ROWS = {1048, 1153, 1264, 1265, 1292, 1366, 1406, 1452, 3819, 4025}
"""No NULL, packet too large, out of range, truncated, wrong value, wrong value or encoding for a
column, too long, foreign key, check constraint (one code each for MySQL and MariaDB)."""


class _Literals(dict[Any, str]):
    """Values as a statement has them: most of a chunk's rows have those of the row before."""

    def __missing__(self, value: Any) -> str:
        if isinstance(value, str):
            text = f"'{escape_string(value)}'"
        elif isinstance(value, bytes):
            text = f"X'{value.hex()}'"
        else:
            text = "NULL" if value is None else str(value)
        self[value] = text
        return text


class _Cursor(Cursor):
    """The driver's cursor, which writes many rows while the server takes in those before."""

    def execute(self, query: str, args: Any = None) -> int:
        """Run a statement; a text that is not ASCII is like nothing in a column that is."""
        try:
            return super().execute(query, args)
        except pymysql.OperationalError as error:
            is_asked = isinstance(args, dict) and not query.startswith("INSERT")
            if error.args[0] not in NOT_ASCII or not is_asked:
                raise
        plain = {
            k: ascii(v) if isinstance(v, str) and not v.isascii() else v for k, v in args.items()
        }
        return super().execute(query, plain)

    def executemany(self, query: str, args: Iterable[Any]) -> int | None:
        """Run an INSERT of plain VALUES for all rows; what it answers is read a statement later."""
        if (parts := _parts(query)) is None:
            return super().executemany(query, [*args])
        link: Any = self.connection
        count, is_sent = 0, False
        try:
            for statement in self._statements(*parts, args):
                if is_sent:
                    is_sent = False
                    count += link.next_result()
                link._execute_command(COMMAND.COM_QUERY, statement)  # noqa: SLF001 - `query` waits
                is_sent = True
        finally:
            if is_sent:  # also when a row cannot be written: else the next answer would be this one
                count += link.next_result()
        self.rowcount = count
        return count

    def _statements(self, head: bytes, tail: bytes, args: Iterable[Any]) -> Iterator[bytes]:
        literals, rows, size = _Literals(), list[bytes](), 0
        room = self.max_stmt_length - len(head) - len(tail)
        for values in args:
            row = f"({','.join(map(literals.__getitem__, values))})".encode()
            if rows and (len(rows) == ROWS or size + len(row) > room):
                yield head + b",".join(rows) + tail
                rows, size = [], 0
                literals.clear()
            rows.append(row)
            size += len(row) + 1
        if rows:
            yield head + b",".join(rows) + tail


class _Connection(pymysql.Connection):
    """The driver's connection, which encrypts as its own does if the server can: with no check.

    The driver would load this host's authorities for each connection, and not ask them.
    """

    def _create_ssl_ctx(self, _: object) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        return context


@cache
def _parts(query: str) -> tuple[bytes, bytes] | None:
    """Give what an INSERT of plain VALUES has before its row, and what after."""
    found = RE_INSERT_VALUES.match(query)
    if found is None:
        return None
    head, _, tail = found.groups(default="")
    return (head % ()).encode(), (tail % ()).encode()


class MySql:
    """A MySQL or MariaDB server, for a fleet."""

    sql, placeholder, position = "mysql", "%({})s", "%s"
    error, integrity_error = pymysql.Error, pymysql.IntegrityError
    begin, begin_read_only = "START TRANSACTION", "START TRANSACTION READ ONLY"
    numbers: Any = staticmethod(list)  # makes a parameter of many numbers

    def __init__(self, url: str, limits: Limits) -> None:
        """Take the server's place and our account from a URL; ValueError if it has a fault."""
        self._server = server = _server(url)
        self._limits = limits
        at = server["unix_socket"] or f"{server['host']}:{server['port']}"
        self.where = f"the database '{server['database']}' at {at}"

    def connect(self) -> Any:
        """Connect, with a session that is strict, speaks UTC and locks no gaps.

        Gap locks, of the default isolation, would let chunks that record rows at once deadlock.
        """
        connection: Any = _Connection(
            **self._server,
            charset="utf8mb4",
            client_flag=CLIENT.FOUND_ROWS,  # an UPDATE that changes nothing has found its row
            binary_prefix=True,
            # Times stay text as in SQLite; what is summed up here is whole numbers.
            conv={k: v for k, v in conversions.items() if k != FIELD_TYPE.DATETIME}
            | {FIELD_TYPE.NEWDECIMAL: int},
            connect_timeout=self._limits.connect,
            # of the greeting: a frozen server accepts and says nothing
            read_timeout=self._limits.connect,
            write_timeout=self._limits.answer,
            # Backslashes stay escapes: how a banner is quoted must not hang on the session.
            init_command="SET time_zone = '+00:00', innodb_lock_wait_timeout = 10, "
            f"wait_timeout = {SILENT_S}, sql_mode = 'TRADITIONAL'",
            defer_connect=True,
            cursorclass=_Cursor,
        )
        path = self._server["unix_socket"]
        connection._secure = bool(path)  # noqa: SLF001 - as the driver does for its own socket
        try:
            connection.connect(_unix_socket(path, self._limits.connect) if path else None)
        except RuntimeError as error:  # the driver wants a package for how this account logs in
            raise pymysql.OperationalError(NO_PLUGIN, str(error)) from error
        connection._read_timeout = self._limits.answer  # noqa: SLF001 - it has no public name
        connection.query("SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED")
        _fit_statements(connection)
        return connection

    def advice(self, error: Exception) -> str | None:
        """Say what to do where the database is to blame; None where the statement is."""
        if self.refusal(error):
            return None
        away = (pymysql.OperationalError, pymysql.InterfaceError, pymysql.InternalError)
        default = "check that the server runs" if isinstance(error, away) else None
        return ADVICE.get(error.args[0], default) if error.args else default

    def fault(self, error: Exception) -> Fault:
        """Say what ails a database that is to blame."""
        return FAULTS.get(error.args[0], Fault.AWAY) if error.args else Fault.AWAY

    def refusal(self, error: Exception) -> str | None:
        """Give the code of an error that is the fault of the rows alone; None for any other."""
        is_of_rows = isinstance(error, pymysql.Error) and error.args and error.args[0] in OF_ROWS
        return str(error.args[0]) if is_of_rows else None

    def take_turn(self, connection: Any) -> bool:
        """Have the server count a connection among the drains; False if there are enough.

        The right is the session's: whatever ends that, a crash too, frees it.
        """
        tries = [(turn, 0) for turn in range(TURNS)] + [(int(TURNS * chance()), TURN_WAIT_S)]
        with connection.cursor() as cursor, suppress(pymysql.NotSupportedError):  # by Galera
            for one in tries:
                cursor.execute(TAKE_TURN, one)
                if cursor.fetchone()[0]:
                    return True
            return False
        return True

    def wire_bytes(self, connection: Any) -> int:
        """Give the bytes, with packet headers, that a connection has sent and received.

        0 for a socket file, and for a connection that is gone.
        """
        try:
            info = connection._sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, TCP_INFO_BYTES)  # noqa: SLF001 - it has no public name
        except (AttributeError, OSError):
            return 0
        sent, received, packets_sent, packets_received = struct.unpack_from("=QQII", info, 120)
        return int(sent + received + HEADERS_BYTES * (packets_sent + packets_received))


def _fit_statements(connection: Any) -> None:
    """Let the driver send no more rows in one statement than the server takes in a packet."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT @@max_allowed_packet")
        most = cursor.fetchone()[0] - FRAME_BYTES
    if most < Cursor.max_stmt_length:
        connection.cursorclass = type("Cursor", (_Cursor,), {"max_stmt_length": most})


def _unix_socket(path: str, connect_s: float) -> socket.socket:
    """Connect to a socket file; the driver would leak its own socket when that fails."""
    link = socket.socket(socket.AF_UNIX)
    try:
        link.settimeout(connect_s)
        link.connect(path)
    except OSError as error:
        link.close()
        raise pymysql.OperationalError(2002, f"Can't connect ({error.strerror})") from error
    return link


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
        "ssl_disabled": path is not None,
    }
