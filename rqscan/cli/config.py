"""`rqscan config`: every setting in force, with its value and where it came from."""

from functools import reduce
from typing import Any

import click
from msgspec import to_builtins

from rqscan.cli import settings
from rqscan.cli.group import Command, json_option
from rqscan.cli.show import print_json_array, print_table
from rqscan.settings import mask_url

__all__ = ["config"]


@click.command(cls=Command)
@json_option
def config(as_json: bool) -> None:
    """Show every setting in force and where it came from; passwords are masked."""
    loaded = settings()
    tree = to_builtins(loaded)
    rows = []
    for name, origin in loaded.origin.items():
        value: Any = reduce(lambda table, key: table[key], name.split("."), tree)
        shown = mask_url(value) if value and name.endswith("url") else value
        rows.append({"name": name, "value": shown, "origin": origin})
    if as_json:
        print_json_array(rows)
    else:
        print_table(["name", "value", "origin"], rows)
