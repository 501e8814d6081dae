"""What is installed here: the versions that matter, and the kinds that packages bring.

The reader of packages weighs 2 MB: a process that is to stay small is told what another has read.
"""

import platform
from typing import NamedTuple

from rqscan import __version__

__all__ = ["Installed", "plugins", "tell", "versions"]


class Installed(NamedTuple):
    """All that is read."""

    versions: dict[str, str]
    plugins: list[str]


_told: Installed | None = None


def tell(facts: Installed) -> None:
    """Take what another process has read: nothing is looked up from now on."""
    global _told  # noqa: PLW0603 - one installation a process, by nature
    _told = facts


def versions() -> dict[str, str]:
    """Give the versions that matter between hosts."""
    if _told:
        return _told.versions
    from importlib.metadata import version  # noqa: PLC0415 - what weighs

    found = {name: version(name) for name in ("rq", "redis")}
    return {"rqscan": __version__, **found, "python": platform.python_version()}


def plugins() -> list[str]:
    """Name the objects that declare kinds, as ``module:object``, for `rqscan.scan.kinds`.

    Packages bring them by the entry-point group ``rqscan.jobs``.
    """
    if _told:
        return _told.plugins
    from importlib.metadata import entry_points  # noqa: PLC0415 - what weighs

    return [entry.value for entry in entry_points(group="rqscan.jobs")]
