"""What the two databases have to tell and do, each in a module that loads its own driver only."""

from typing import Any, NamedTuple, Protocol

from rqscan.errors import Fault

__all__ = ["MIGRATE", "PATIENT", "Dialect", "Limits"]

MIGRATE = "bring its schema up to date with: rqscan db migrate"


class Limits(NamedTuple):
    """How long to wait for a server, in seconds."""

    connect: float
    answer: float  # once connected


PATIENT = Limits(connect=10, answer=60)


class Dialect(Protocol):
    """One database: how it is connected to, and what its errors call for.

    No password leaves it: messages name the database by `where`, never by its URL.
    """

    sql: str  # of the files in ``sql/``
    placeholder: str  # how the driver writes a parameter, with {} for its name
    position: str  # how it writes one without
    where: str
    error: type[Exception]
    integrity_error: type[Exception]
    begin: str
    begin_read_only: str
    numbers: Any  # makes a parameter of many numbers

    def connect(self) -> Any:
        """Open a connection, ready for transactions."""

    def advice(self, error: Exception) -> str | None:
        """Say what to do where the database is to blame; None where the statement is."""

    def fault(self, error: Exception) -> Fault:
        """Say what ails a database that is to blame."""

    def refusal(self, error: Exception) -> str | None:
        """Give the code of an error that is the fault of the rows alone; None for any other."""

    def take_turn(self, connection: Any) -> bool:
        """Have the server count a connection among the drains; False if there are enough."""

    def wire_bytes(self, connection: Any) -> int:
        """Give the bytes, with packet headers, that a connection has sent and received."""
