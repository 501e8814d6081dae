"""`rqscan config`: every setting in force, with its value and where it came from."""

from typing import Any

import rich_click as click

from rqscan.cli.group import json_option, settings

__all__ = ["config"]


@click.command()
@json_option
def config(as_json: bool) -> None:
    """Show every setting in force and where it came from; passwords are masked."""
    from msgspec import to_builtins

    from rqscan.cli.show import write_json_array, write_table
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
        write_json_array(rows)
    else:
        write_table(["name", "value", "origin"], rows)
