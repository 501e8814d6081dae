"""One connection to the database, used in transactions only and made anew between them."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, Self, TypeVar

from rqscan.chance import chance
from rqscan.errors import Fault, StoreUnavailable
from rqscan.settings import Settings
from rqscan.store.dialect import PATIENT, Dialect, Limits
from rqscan.store.dialects import dialect_of
from rqscan.store.queries import load

__all__ = ["Database"]

BUSY_S = 5.0
"""How long to go on with a write while other transactions are in its way."""

PAUSE_S = 0.3
"""Longest pause, drawn at random, before what others were in the way of is tried again."""

T = TypeVar("T")


class Database:
    """A database and the one connection of this process and thread to it.

    `queries` holds the named statements of ``sql/`` as functions of a connection.
    """

    def __init__(self, dialect: Dialect) -> None:
        self.dialect = dialect
        self.queries: Any = load(dialect.sql, dialect.placeholder, dialect.position)
        self._connection: Any = None
        self._is_busy = False

    @classmethod
    def open(cls, settings: Settings, limits: Limits = PATIENT) -> Self:
        """Connect to the database of the settings; its schema is taken as it is.

        Raises:
            ConfigError: database.url has a fault.
            HomeUnavailable: the home of the default database cannot be made.
            StoreUnavailable: it cannot be reached, or refuses us.
        """
        database = cls(dialect_of(settings, limits))
        try:
            with database.transaction(read_only=True):
                pass
        except BaseException:
            database.close()
            raise
        return database

    @contextmanager
    def transaction(self, *, read_only: bool = False) -> Iterator[Any]:
        """Give the connection for one transaction: committed at the end, rolled back on any error.

        A connection that was lost meanwhile is replaced before the transaction begins. One that is
        lost within it ends it: nothing of it is kept, unless the commit itself was cut off, so
        what is written must bear being written again.

        Raises:
            StoreUnavailable: the database is away, refuses us or is in the way of others.
        """
        if self._is_busy:
            raise RuntimeError("a transaction of this Database is still open")
        self._is_busy = True
        try:
            self._begin(self.dialect.begin_read_only if read_only else self.dialect.begin)
            yield self._connection
            self._connection.commit()
        except self.dialect.error as error:
            self._roll_back()
            advice = self.dialect.advice(error)
            if advice is None:
                raise
            reason = error.args[-1] or "the connection is lost"
            message = f"cannot use {self.dialect.where}: {reason}; {advice}"
            raise StoreUnavailable(message, fault=self.dialect.fault(error)) from error
        except BaseException:
            self._roll_back()
            raise
        finally:
            self._is_busy = False

    def write(self, work: Callable[[Any], T], for_s: float = BUSY_S) -> T:
        """Do something with the connection in a transaction, again while others are in its way.

        Raises:
            StoreUnavailable: they still are after so many seconds; or as `transaction` does.
        """
        late = time.monotonic() + for_s
        while True:
            try:
                with self.transaction() as connection:
                    return work(connection)
            except StoreUnavailable as error:
                if error.fault is not Fault.BUSY or time.monotonic() > late:
                    raise
            time.sleep(PAUSE_S * chance())

    def wire_bytes(self) -> int:
        """Give what the connection has sent over the network and received."""
        return 0 if self._connection is None else self.dialect.wire_bytes(self._connection)

    def close(self) -> None:
        """Close the connection; the next transaction makes a new one."""
        connection, self._connection = self._connection, None
        if connection is not None:
            with suppress(self.dialect.error):
                connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _begin(self, statement: str) -> None:
        if self._connection is not None:
            try:
                self._connection.cursor().execute(statement)
            except self.dialect.error:  # it died since the last transaction
                self.close()
            else:
                return
        self._connection = self.dialect.connect()
        self._connection.cursor().execute(statement)

    def _roll_back(self) -> None:
        try:
            if self._connection is not None:
                self._connection.rollback()
        except self.dialect.error:
            self.close()
