"""`rqscan config`: every setting in force, with its value and where it came from."""

from typing import Any

import rich_click as click

from rqscan.cli import settings
from rqscan.cli.group import json_option

__all__ = ["config"]


@click.command()
@json_option
def config(as_json: bool) -> None:
    """Show every setting in force and where it came from; passwords are masked."""
    from msgspec import to_builtins

    from rqscan.cli.show import print_json_array, print_table
    from rqscan.config import mask_url

    loaded = settings()
    tree = to_builtins(loaded)
    rows = []
    for name, origin in loaded.origin.items():
        value: Any = tree
        for key in name.split("."):
            value = value[key]
        is_secret = name.endswith(".url") and value
        shown = mask_url(value) if is_secret else value
        rows.append({"name": name, "value": shown, "origin": origin})
    if as_json:
        print_json_array(rows)
    else:
        print_table(["name", "value", "origin"], rows)
