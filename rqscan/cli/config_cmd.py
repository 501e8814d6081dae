"""`rqscan config`: every setting in force, with its value and where it came from."""

from functools import reduce

import rich_click as click

from rqscan.cli import json_option, settings

__all__ = ["config"]


@click.command()
@json_option
def config(as_json: bool) -> None:
    """Show every setting in force and where it came from; passwords are masked."""
    from rqscan.cli.show import write_json_array, write_table
    from rqscan.config import mask_url

    loaded = settings()
    rows = []
    for name, origin in loaded.origin.items():
        value = reduce(
            lambda at, key: at[key] if isinstance(at, dict) else getattr(at, key),
            name.split("."),
            loaded,
        )
        if name.endswith(".url") and value:
            value = mask_url(value)
        rows.append({"name": name, "value": value, "origin": origin})
    if as_json:
        write_json_array(rows)
    else:
        write_table(["name", "value", "origin"], rows)
