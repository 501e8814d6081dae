"""`rqscan kinds`: the scan kinds that this machine can run, with their parameters."""

from typing import Any

import click
import msgspec

from rqscan.cli import settings
from rqscan.cli.group import Command, json_option
from rqscan.cli.show import print_json_array, print_table
from rqscan.installed import plugins
from rqscan.scan.kinds import load_kinds

__all__ = ["kinds"]

UNITS = {"_s": "seconds", "_ms": "milliseconds", "_bytes": "bytes"}  # by the name's ending
LIMITS = ("minimum", "exclusiveMinimum", "maximum", "exclusiveMaximum", "pattern", "enum")


@click.command(cls=Command)
@json_option
def kinds(as_json: bool) -> None:
    """List the scan kinds with their parameters."""
    found: list[dict[str, Any]] = [
        {
            "name": name,
            "description": kind.description,
            "stall_timeout_s": kind.stall_timeout_s or None,
            "retries": kind.retries,
            "parameters": _parameters(kind.params),
        }
        for name, kind in load_kinds(settings().jobs.path, plugins()).items()
    ]
    if as_json:
        print_json_array(found)
        return
    rows: list[dict[str, Any]] = []
    for kind in found:
        limits = {name: kind[name] for name in ("stall_timeout_s", "retries")}
        rows.append(
            {"name": kind["name"], "constraint": _limits(limits), "about": kind["description"]}
        )
        rows += [p | {"name": f"  {p['name']}"} for p in kind["parameters"]]
    print_table(["name", "type", "default", "unit", "constraint", "about"], rows)


def _limits(found: dict[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in found.items() if value is not None)


def _parameters(params: type[Any]) -> list[dict[str, Any]]:
    """Describe the fields of a parameters' struct by their JSON schema."""
    _, parts = msgspec.json.schema_components([params])
    fields = parts[params.__name__].get("properties", {})
    return [
        {
            "name": name,
            "type": " or ".join(s.get("type", "any") for s in schema.get("anyOf", [schema])),
            "default": schema.get("default"),
            "unit": next((unit for end, unit in UNITS.items() if name.endswith(end)), None),
            "constraint": ", ".join(f"{k} {schema[k]}" for k in LIMITS if k in schema),
        }
        for name, schema in fields.items()
    ]
