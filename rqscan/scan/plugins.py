"""Plug-ins: the kinds that installed packages bring, by the entry-point group ``rqscan.jobs``."""

from importlib.metadata import entry_points

__all__ = ["plugins"]


def plugins() -> list[str]:
    """Name the objects that declare them, as ``module:object``, for `rqscan.scan.kinds.load_kinds`.

    They are found where a command or a worker starts, never in a work-horse's template, which
    would have to carry the reader of packages.
    """
    return [entry.value for entry in entry_points(group="rqscan.jobs")]
