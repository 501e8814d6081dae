"""SQLite: one file, for the one host that has it."""

import json
import os
import sqlite3
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from rqscan.errors import Fault, StoreUnavailable
from rqscan.store.dialect import MIGRATE

__all__ = ["Sqlite"]

BUSY_S = 30
PAUSE_S = 0.02
RIGHTS = "check that this user may write the file and its folder"
ADVICE = {
    sqlite3.SQLITE_BUSY: "another process holds it: try again",
    sqlite3.SQLITE_PROTOCOL: "too many processes want it at once: try again",
    sqlite3.SQLITE_FULL: "free some space on its disk",
    sqlite3.SQLITE_IOERR: "check its disk and the space on it",
    sqlite3.SQLITE_NOTADB: "move that file away or name another in database.url",
    sqlite3.SQLITE_CORRUPT: "restore it from a backup or move it away",
    sqlite3.SQLITE_CANTOPEN: RIGHTS,
    sqlite3.SQLITE_READONLY: RIGHTS,
}
FAULTS = {
    sqlite3.SQLITE_BUSY: Fault.BUSY,
    sqlite3.SQLITE_PROTOCOL: Fault.BUSY,
    sqlite3.SQLITE_FULL: Fault.FULL,
}


class Sqlite:
    """One file, for the one host that has it."""

    sql, placeholder, position = "sqlite", ":{}", "?"
    error, integrity_error = sqlite3.Error, sqlite3.IntegrityError
    begin, begin_read_only = "BEGIN IMMEDIATE", "BEGIN"  # a writer queues up here, not later
    numbers: Any = staticmethod(json.dumps)  # makes a parameter of many numbers

    def __init__(self, path: Path) -> None:
        self._path = path
        self.where = f"the SQLite database '{path}'"

    def connect(self) -> sqlite3.Connection:
        """Open the file; a missing one is made, for its owner only.

        Those who find a fresh file at once and turn to WAL get no turn from `timeout`: they retry.
        """
        self._make()
        late = time.monotonic() + BUSY_S
        while True:
            connection = sqlite3.connect(self._path, timeout=BUSY_S, isolation_level=None)
            try:
                connection.execute("PRAGMA journal_mode = WAL")
                connection.execute("PRAGMA synchronous = FULL")
            except sqlite3.Error as error:
                connection.close()
                if "database is locked" not in str(error) or time.monotonic() > late:
                    raise
                time.sleep(PAUSE_S)
            else:
                return connection

    def _make(self) -> None:
        try:
            # Never open an existing file here: closing it again would drop SQLite's own locks.
            with suppress(FileExistsError):
                os.close(os.open(self._path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
        except OSError as error:
            message = f"cannot make {self.where}: {error.strerror}; check its folder"
            raise StoreUnavailable(message) from error

    def advice(self, error: Exception) -> str | None:
        """Say what to do where the database is to blame; None where the statement is."""
        return MIGRATE if str(error).startswith("no such ") else ADVICE.get(_code(error))

    def fault(self, error: Exception) -> Fault:
        """Say what ails a database that is to blame."""
        return FAULTS.get(_code(error), Fault.REFUSED)

    def refusal(self, error: Exception) -> str | None:
        """Give the code of an error that is the fault of the rows alone; None for any other."""
        is_of_rows = isinstance(error, sqlite3.IntegrityError | sqlite3.DataError | OverflowError)
        return getattr(error, "sqlite_errorname", type(error).__name__) if is_of_rows else None

    def take_turn(self, connection: Any) -> bool:  # noqa: ARG002 - as the other database has it
        """Tell that there are never too many drains: a file has one home."""
        return True

    def wire_bytes(self, _: Any) -> int:
        """Give 0: nothing goes over a network."""
        return 0


def _code(error: Exception) -> int:
    code: int = getattr(error, "sqlite_errorcode", 0)
    return code & 0xFF  # the low byte is the primary code
