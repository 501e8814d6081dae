"""The scan kinds: how one is declared, found, and given checked parameters.

A kind is a function from addresses and parameters to observations. It is declared with `kind` in
a module of the jobs folder, or in a package with the entry-point group ``rqscan.jobs``.
"""

import difflib
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules, resolve_name
from typing import Any, TypeVar

import msgspec
from msgspec import Struct

import rqscan
from rqscan.errors import ConfigError, RqscanError, UsageError
from rqscan.model import Observation

__all__ = ["Kind", "Run", "check_params", "get_kind", "kind", "load_kinds"]

P = TypeVar("P", bound=Struct)
F = TypeVar("F", bound=Callable[..., Iterator[Observation]])


class Run(Struct, frozen=True):
    """What a kind is handed beside addresses and parameters."""

    may_dial: Callable[[str], bool]  # asked before an address gets its first packet
    advance: Callable[[int], object]  # told how many planned probes have ended since last time


class Kind(Struct, frozen=True):
    """One scan kind, as registered."""

    name: str
    function: Callable[[Sequence[str], Any, Run], Iterator[Observation]]
    params: type[Struct]
    probes_per_host: Callable[[Any], int]
    silent_s: Callable[[Any], float]  # how long one probe takes that nobody answers
    stall_timeout_s: float = 0  # without progress for so long it is stopped; 0: never
    retries: int | None = None  # of a failed chunk; None: as its queue has it

    @property
    def description(self) -> str:
        """First line of the function's docstring."""
        return (self.function.__doc__ or "").strip().partition("\n")[0]


_kinds: dict[str, Kind] = {}


def kind(
    name: str,
    *,
    params: type[P],
    probes_per_host: Callable[[P], int],
    silent_s: Callable[[P], float] = lambda _: 0.0,
    stall_timeout_s: float = 0,
    retries: int | None = None,
) -> Callable[[F], F]:
    """Register the decorated function as the scan kind `name`.

    Args:
        name: as users write it.
        params: its parameters, frozen.
        probes_per_host: from parameters to the probes that one host takes.
        silent_s: from parameters to the seconds that a probe takes which nobody answers.
        stall_timeout_s: a chunk that does not call `Run.advance` for so long is stopped, its
            stacks kept with its failure; 0, for kinds that never call it: never.
        retries: how often a failed chunk is tried again, in place of its queue's setting.

    Raises:
        ConfigError: another module has a kind of this name, or a number is below 0.
    """
    if stall_timeout_s < 0 or (retries or 0) < 0:
        raise ConfigError(
            f"kind {name!r} has stall_timeout_s {stall_timeout_s} and retries {retries}; "
            "give 0 or more"
        )

    def register(function: F) -> F:
        known = _kinds.get(name)
        if known and known.function.__module__ != function.__module__:
            raise ConfigError(
                f"kind {name!r} is in {known.function.__module__} and in {function.__module__}; "
                "rename one of them"
            )
        _kinds[name] = Kind(
            name, function, params, probes_per_host, silent_s, stall_timeout_s, retries
        )
        return function

    return register


def load_kinds(jobs_path: str | None, plugins: Iterable[str] = ()) -> dict[str, Kind]:
    """Import every module of the jobs folder, and what `rqscan.installed` has found.

    No path means the folder ``jobs`` beside the rqscan package, if there is one.

    Raises:
        ConfigError: the folder is missing or hidden by another package, an import fails, or two
            kinds have one name; the cause is chained.
    """
    folder = Path(jobs_path or Path(rqscan.__file__).parents[1] / "jobs").resolve()
    if folder.is_dir():
        if str(folder.parent) not in sys.path:
            sys.path.append(str(folder.parent))  # last: it must not hide a library
        package = _load(f"jobs folder {str(folder)!r}", import_module, folder.name)
        if folder not in [Path(path).resolve() for path in package.__path__]:
            raise ConfigError(
                f"jobs.path: {str(folder)!r} is hidden by {package.__path__[0]!r}; rename it"
            )
        for module in iter_modules([str(folder)], f"{folder.name}."):
            _load(f"kind module {module.name}", import_module, module.name)
    elif jobs_path:
        raise ConfigError(f"jobs.path: {jobs_path!r} is no folder; give the folder of scan kinds")
    for plugin in plugins:
        _load(f"plug-in {plugin!r}", resolve_name, plugin)
    return dict(_kinds)


def _load(what: str, load: Callable[..., Any], *args: str) -> Any:
    try:
        return load(*args)
    except RqscanError:
        raise
    except Exception as error:
        raise ConfigError(f"{what} cannot be loaded: {type(error).__name__}: {error}") from error


def get_kind(name: str) -> Kind:
    """Give a loaded kind.

    Raises:
        UsageError: there is none of this name.
    """
    if name in _kinds:
        return _kinds[name]
    close = difflib.get_close_matches(name, _kinds, n=1)
    hint = f"did you mean {close[0]!r}? " if close else ""
    raise UsageError(f"no kind {name!r}; {hint}kinds are: {', '.join(sorted(_kinds)) or 'none'}")


def check_params(kind: Kind, raw: dict[str, Any]) -> Struct:
    """Convert raw parameters to the kind's own record.

    Raises:
        UsageError: one is unknown, of the wrong type or out of range.
    """
    try:
        return msgspec.convert(raw, kind.params)
    except msgspec.ValidationError as error:
        known = ", ".join(kind.params.__struct_fields__)
        raise UsageError(f"kind {kind.name!r} has parameters {known}; {error}: {raw}") from error
