"""The named statements of ``sql/``, each as a function of a connection.

A statement begins with a line ``-- name: NAME(PARAMETERS)OP``; it runs to the next one. What it
gives is told by OP: nothing, all rows; ``^``, one row or None; ``$``, the first value of one row or
None; ``!``, how many rows it changed; ``*!`` runs it once for each of many rows, which have their
parameters in the order of the statement.
Every work-horse's template loads this: it takes the place of a library that weighs more than all
else of the store together.
"""

import re
from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path
from typing import Any

__all__ = ["Queries", "load", "read"]

_NAME = re.compile(r"^-- name: (\w+)(?:\([^)\n]*\))?(\^|\$|\*?!|)$", re.MULTILINE)
_PARAMETER = re.compile(r"(?<![:\w']):(\w+)")


class Queries:
    """Holds each statement as an attribute: a function of a connection and its parameters."""

    def __init__(self, text: str, placeholder: str, position: str) -> None:
        _, *parts = _NAME.split(text)
        for name, operation, body in zip(parts[::3], parts[1::3], parts[2::3], strict=True):
            lines = (line for line in body.strip().splitlines() if not line.startswith("--"))
            sql = "\n".join(lines).rstrip(";\n")
            if placeholder != ":{}":
                sql = sql.replace("%", "%%")
            if operation == "*!":  # by their places, which drivers fill in sooner
                setattr(self, name, _Many(_PARAMETER.sub(position, sql)))
            else:
                sql = _PARAMETER.sub(lambda m: placeholder.format(m[1]), sql)
                setattr(self, name, _Query(sql, _RESULTS[operation]))

    def __getattr__(self, name: str) -> Callable[..., Any]:
        raise AttributeError(f"there is no statement {name!r} in sql/")


class _Query:
    def __init__(self, sql: str, result: Callable[[Any], Any]) -> None:
        self.sql, self._result = sql, result

    def __call__(self, connection: Any, /, **parameters: Any) -> Any:
        cursor = connection.cursor()
        try:
            cursor.execute(self.sql, parameters)
            return self._result(cursor)
        finally:
            cursor.close()


class _Many:
    def __init__(self, sql: str) -> None:
        self.sql = sql

    def __call__(self, connection: Any, rows: Iterable[tuple[Any, ...]], /) -> int:
        cursor = connection.cursor()
        try:
            cursor.executemany(self.sql, rows)
            return int(cursor.rowcount)
        finally:
            cursor.close()


def _value(cursor: Any) -> Any:
    row = cursor.fetchone()
    return row[0] if row else None


_RESULTS: dict[str, Callable[[Any], Any]] = {
    "": lambda cursor: cursor.fetchall(),
    "^": lambda cursor: cursor.fetchone(),
    "$": _value,
    "!": lambda cursor: cursor.rowcount,
}


@cache
def load(dialect: str, placeholder: str, position: str) -> Queries:
    """Give the statements that both databases read alike, and those of the dialect.

    Args:
        dialect: the file of its own.
        placeholder: how its driver writes a parameter, with ``{}`` for its name.
        position: how it writes one that has no name.
    """
    return read("queries", dialect, placeholder=placeholder, position=position)


def read(*names: str, placeholder: str = ":{}", position: str = "?") -> Queries:
    """Give the statements of these files of ``sql/`` together, as SQLite takes them by default."""
    folder = Path(__file__).with_name("sql")
    texts = [(folder / f"{name}.sql").read_text("utf-8") for name in names]
    return Queries("\n".join(texts), placeholder, position)
