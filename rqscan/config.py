"""How settings are read and checked.

defaults ← rqscan.toml ← environment, leaf by leaf, so that one start tells every error and each
value knows where it came from. Schedule entries and scope rules are checked where they are used.
"""

import difflib
import os
import re
import tomllib
from collections.abc import Container, Iterator, Mapping
from functools import reduce
from os.path import expanduser
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from msgspec import Struct, convert, json, structs
from platformdirs import user_config_path, user_state_path

from rqscan.errors import ConfigError
from rqscan.settings import FilePath, QueueSettings, Settings, mask_url

__all__ = ["load"]


def load(path: str | None = None, environ: Mapping[str, str] = os.environ) -> Settings:
    """Read and check all settings.

    Args:
        path: the rqscan.toml that the user named; else `RQSCAN_CONFIG`, else the working folder,
            else the user's config folder.
        environ: where the `RQSCAN_…` variables are, which win over the file.

    Raises:
        ConfigError: settings are unknown or wrong (it lists them all), or the file is unreadable.
    """
    file, table = _read(path or environ.get("RQSCAN_CONFIG"))
    named = table.get("queues")
    queues = list({"default": 0, "wakaka": 0} | (named if isinstance(named, dict) else {}))
    errors = [
        f"expected a queue name of 1 to 64 letters, digits, _ or -, got: {name!r}"
        for name in queues
        if not re.fullmatch(r"[A-Za-z0-9_-]{1,64}", name)
    ]
    sections = {f.name: f.type for f in structs.fields(Settings) if isinstance(f.default, Struct)}
    sections |= {f"queues.{name}": QueueSettings for name in queues}
    shape: dict[str, Any] = {"home": FilePath, "schedule": list[dict[str, Any]]}
    for section, struct in sections.items():
        shape |= {f"{section}.{f.name}": f.type for f in structs.fields(struct)}
    values: dict[str, Any] = {"home": str(user_state_path("rqscan"))}
    origin = dict.fromkeys(shape, "default")
    variables = {_variable(name): name for name in shape if name != "schedule"}
    found = [(name, value, str(file)) for name, value in _leaves(table, shape)]
    found += [
        (variables.get(variable, variable), text.strip(), variable)
        for variable, text in environ.items()
        if variable.startswith("RQSCAN_") and variable != "RQSCAN_CONFIG" and text.strip()
    ]
    for name, value, source in found:
        try:
            if name in shape:
                values[name] = _checked(name, value, shape[name], source)
                origin[name] = source
            else:
                errors.append(_unknown(name, value, [*shape, *variables]))
        except ValueError as e:
            errors.append(str(e))
    worker = {key: values.get(f"worker.{key}") for key in ("heartbeat_s", "lease_s")}
    beat_s, lease_s = worker["heartbeat_s"] or 3, worker["lease_s"] or 5.5
    if not errors and lease_s <= beat_s + 1:
        errors.append(
            f"expected worker.lease_s to be more than a second above worker.heartbeat_s ({beat_s} "
            f"s), got: {lease_s}"
        )
    if (
        not errors
        and values.get("spool.mode") == "redis_stream"
        and "spool.redis_url" not in values
    ):
        errors.append(
            "expected spool.redis_url to name a Redis of this host's own, such as "
            "unix:///run/redis/redis.sock, for spool.mode redis_stream, got: none"
        )
    if errors:
        start = f"{len(errors)} settings are wrong: " if len(errors) > 1 else ""
        advice = f"the file read is {file}" if file else None
        raise ConfigError(start + "; ".join(errors), advice=advice)
    tree: dict[str, Any] = {"queues": {name: {} for name in queues}}
    for name, value in values.items():
        *parents, key = name.split(".")
        reduce(lambda place, parent: place.setdefault(parent, {}), parents, tree)[key] = value
    return convert(tree | {"origin": origin, "path": str(file) if file else None}, Settings)


def _read(named: str | None) -> tuple[Path | None, dict[str, Any]]:
    """Find and parse the file: the named one must exist, the others may."""
    places = [Path("rqscan.toml"), user_config_path("rqscan") / "rqscan.toml"]
    file = Path(expanduser(named)) if named else next((p for p in places if p.exists()), None)  # noqa: PTH111 - bears an unknown user
    if file is None:
        return None, {}
    try:
        return file.absolute(), tomllib.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as e:  # TOML's error tells line and column
        raise ConfigError(f"cannot read {file.absolute()}: {e}") from e


def _leaves(
    table: dict[str, Any], shape: Container[str], prefix: str = ""
) -> Iterator[tuple[str, Any]]:
    for key, value in table.items():
        name = prefix + key
        if isinstance(value, dict) and name not in shape:
            yield from _leaves(value, shape, f"{name}.")
        else:
            yield name, value


def _variable(name: str) -> str:
    if name == "worker.allow_functions":
        return "RQSCAN_ALLOW_FUNCTIONS"
    return "RQSCAN_" + re.sub(r"[.-]", "_", name).upper()


def _unknown(name: str, value: Any, known: list[str]) -> str:
    if any(setting.startswith(f"{name}.") for setting in known):
        return f"expected {name} to be a table, got: {mask_url(repr(value))}"
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.8)
    return f"unknown setting {name}" + (f", did you mean {near[0]}?" if near else "")


def _checked(name: str, value: Any, kind: Any, source: str) -> Any:
    """Give the value as its type has it; a text from a variable is converted.

    Raises:
        ValueError: it is of another type; the message is for the user.
    """
    got, is_variable = mask_url(repr(value)), source == _variable(name)
    if is_variable and kind == list[str]:
        value = [part.strip() for part in value.split(",") if part.strip()]
    try:
        value = convert(value, kind, strict=not is_variable)
        if name.endswith("url"):
            _ = urlsplit(value).port  # a wrong one raises
    except ValueError:  # of msgspec or urlsplit: their texts may hold a password
        schema = json.schema(kind)
        wanted = schema.get("anyOf", [schema])[0].items()  # without the null of an optional one
        words = ", ".join(f"{word} {limit}" for word, limit in wanted)
        shown = f"{name} ({source})" if is_variable else name
        raise ValueError(f"expected {shown} with {words}, got: {got}") from None
    if kind in (FilePath, FilePath | None):
        base = Path() if is_variable else Path(source).parent
        value = str((base / expanduser(value)).absolute())  # noqa: PTH111 - as above
    return value
