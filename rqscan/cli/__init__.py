"""The command line: its door, which opens on Linux alone, and what every command asks for."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rqscan.settings import Settings
    from rqscan.store.repository import Repository

__all__ = ["main", "repository", "settings", "start_log", "tell_former_store"]


def main(argv: list[str] | None = None) -> int:
    """Run one command and give its exit code."""
    platform: str = sys.platform  # as a variable: mypy takes the name for a constant
    if platform == "linux":
        from rqscan.cli.group import run

        return run(argv)
    is_windows = platform == "win32"
    advice = "on Windows use WSL: wsl --install" if is_windows else "use a Linux host or container"
    sys.stderr.write(f"rqscan: error: rqscan runs on Linux only; {advice}\n")
    return 2


def settings() -> "Settings":
    """Load the settings for the command that runs, with its `--config`.

    Raises:
        ConfigError: they are wrong.
    """
    from click import get_current_context

    from rqscan.config import load

    return load(get_current_context().find_root().obj)


def start_log(level: str, *, as_json: bool) -> None:
    """Begin the log of a long-lived process, with what its operator should know at once."""
    import os

    from rqscan.logs import Event, configure, log

    configure(level, as_json=as_json)
    if os.geteuid() == 0:
        log(Event.RUNNING_AS_ROOT, advice="what it runs, runs as root too")


def tell_former_store(former: str | None) -> None:
    """Say on stderr that those who enqueue have turned to another store."""
    if former:
        from click import echo

        words = (
            f"the fleet's store was {former} and is another now: workers whose store is that one"
        )
        echo(f"{words} claim nothing until it is theirs again", err=True)


@contextmanager
def repository() -> "Iterator[Repository]":
    """Open the store for the command that runs.

    Raises:
        StoreUnavailable: it is away or refuses us.
    """
    from rqscan.store.migrate import open_current
    from rqscan.store.repository import Repository

    with open_current(settings()) as database:
        yield Repository(database)
