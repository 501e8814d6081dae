"""Bring the schema up to date: numbered files of ``sql/migrations``, each applied once.

One process migrates at a time, under a lock that dies with it; the others wait and find it done.
"""

import secrets
from hashlib import sha256
from importlib.resources import files
from typing import Any

from rqscan import clock
from rqscan.errors import StoreUnavailable
from rqscan.settings import Settings
from rqscan.store.database import Database
from rqscan.store.dialect import PATIENT, Limits

__all__ = ["apply", "current", "open_current", "pending"]


def open_current(settings: Settings, limits: Limits = PATIENT) -> Database:
    """Open the database of the settings and bring its schema up to date.

    Raises:
        ConfigError, HomeUnavailable: as `Database.open`.
        StoreUnavailable: it cannot be reached, refuses us, or is newer than this program.
    """
    database = Database.open(settings, limits)
    try:
        apply(database)
    except BaseException:
        database.close()
        raise
    return database


def current(database: Database) -> int:
    """Give the version of the schema in the database, 0 when it has none."""
    with database.transaction(read_only=True) as connection:
        return len(_applied(database, connection))


def pending(database: Database) -> list[str]:
    """Name the migrations that the database lacks, in order.

    Raises:
        StoreUnavailable: the schema is newer than this program, or differs from its files.
    """
    with database.transaction(read_only=True) as connection:
        return list(_pending(database, connection))


def apply(database: Database) -> list[str]:
    """Apply what is pending and give the store its id; name what was applied.

    Raises:
        StoreUnavailable: as `pending`, or another process migrates and does not end.
    """
    if not pending(database):
        return []
    queries, where = database.queries, database.dialect.where
    with database.transaction() as connection:
        if not queries.lock_schema(connection):
            raise StoreUnavailable(f"another process still migrates {where}; try again later")
        todo = _pending(database, connection)
        for name, text in todo.items():
            for statement in filter(str.strip, text.split(";\n")):
                connection.cursor().execute(statement)
            row = {"version": int(name[:4]), "name": name, "checksum": _checksum(text)}
            at = clock.now().strftime("%Y-%m-%d %H:%M:%S.%f")
            queries.add_migration(connection, **row, applied_at=at)
        queries.add_meta(connection, name="store_id", value=secrets.token_hex(16))
        connection.commit()  # before the lock is given up: the next one must see it
        queries.unlock_schema(connection)
    return list(todo)


def _pending(database: Database, connection: Any) -> dict[str, str]:
    applied, where = _applied(database, connection), database.dialect.where
    folder, suffix = files("rqscan.store") / "sql" / "migrations", f".{database.dialect.sql}.sql"
    names = sorted(file.name for file in folder.iterdir() if file.name.endswith(suffix))
    known = {name.removesuffix(suffix): (folder / name).read_text("utf-8") for name in names}
    for name, checksum in applied.items():
        if name not in known:
            fault = "which this older rqscan does not know: upgrade it"
        elif checksum != _checksum(known[name]):
            fault = "whose text differs from this rqscan's: use the rqscan that applied it"
        else:
            continue
        raise StoreUnavailable(f"{where} has migration '{name}', {fault}")
    return {name: text for name, text in known.items() if name not in applied}


def _applied(database: Database, connection: Any) -> dict[str, str]:
    is_there = database.queries.has_migrations(connection)
    return dict(database.queries.migrations(connection)) if is_there else {}


def _checksum(text: str) -> str:
    return sha256(text.encode()).hexdigest()
