"""Which of the two databases a deployment has: found by its URL, and loaded alone.

A work-horse's template weighs what it loads, and each fork of it costs what it weighs.
"""

from contextlib import suppress
from importlib import import_module
from pathlib import Path
from urllib.parse import unquote

from rqscan.errors import ConfigError, HomeUnavailable
from rqscan.settings import Settings
from rqscan.store.dialect import PATIENT, Dialect, Limits

__all__ = ["dialect_of"]


def dialect_of(settings: Settings, limits: Limits = PATIENT) -> Dialect:
    """Find the database that `database.url` names; without one it is SQLite in the home.

    The limits are for a server only.

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
        return _sqlite(Path(settings.home, "rqscan.db"))
    path = unquote(url.removeprefix("sqlite:///"))
    if url.startswith("sqlite:///") and path not in {"", ":memory:"}:
        return _sqlite(Path(path))
    if url.startswith("mysql+pymysql://"):
        with suppress(ValueError):  # its text may hold a piece of an unescaped password
            mysql: Dialect = import_module("rqscan.store.mysql").MySql(url, limits)
            return mysql
    raise ConfigError(
        "database.url must be like mysql+pymysql://USER:PASSWORD@HOST:PORT/NAME, with "
        "?unix_socket=/PATH if need be, or sqlite:////PATH; write special characters as %XX"
    )


def _sqlite(path: Path) -> Dialect:
    sqlite: Dialect = import_module("rqscan.store.sqlite").Sqlite(path.absolute())
    return sqlite
