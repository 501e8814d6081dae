"""How data leaves on stdout: tables for people; JSON, JSON lines and CSV for scripts.

What comes from the network is not trusted: a banner may hold codes that a terminal or a
spreadsheet would obey, so it is defused here, at the last moment, and stored as it was.
"""

import csv
import re
import sys
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

import msgspec

from rqscan.clock import iso

__all__ = [
    "defuse",
    "encode",
    "print_csv",
    "print_json",
    "print_json_array",
    "print_json_lines",
    "print_table",
]

_SPECIAL = re.compile("[\x7f-\x9f\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff]")


def defuse(text: str) -> str:
    """Give the text as one line without control, bidi and zero-width characters."""
    return "".join(c for c in re.sub(r"\s", " ", text) if c.isprintable())


def encode(value: Any) -> str:
    """Give JSON text; times of a mapping as `rqscan.clock.iso` writes them."""
    if isinstance(value, Mapping):
        value = {k: iso(v) if isinstance(v, datetime) else v for k, v in value.items()}
    # inside strings only, where the escape means the same
    return _SPECIAL.sub(lambda m: f"\\u{ord(m[0]):04x}", msgspec.json.encode(value).decode())


def print_json(value: Any) -> None:
    """Write one JSON value."""
    sys.stdout.write(encode(value) + "\n")


def print_json_array(items: Iterable[Any]) -> None:
    """Write one JSON array, item by item: a million rows need the memory of one."""
    start = "["
    for item in items:
        sys.stdout.write(start + encode(item))
        start = ",\n"
    sys.stdout.write("[]\n" if start == "[" else "]\n")


def print_json_lines(items: Iterable[Any]) -> None:
    """Write one JSON value a line."""
    for item in items:
        print_json(item)


def print_csv(columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> None:
    """Write CSV with a header; a text that a spreadsheet would compute gets a leading ``'``."""
    out = csv.writer(sys.stdout, lineterminator="\n", quoting=csv.QUOTE_NONNUMERIC)
    out.writerow(columns)
    for row in rows:
        values = [row[column] for column in columns]
        out.writerow(v if isinstance(v, int | float) else _unformula(v) for v in values)


def _unformula(value: Any) -> str:
    is_formula = isinstance(value, str) and value.startswith(("=", "+", "-", "@", "\t", "\r"))
    return f"'{value}" if is_formula else _cell(value)


def print_table(columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> None:
    """Write a table; in a pipe it is as wide as it must be and has no colours."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    is_terminal = sys.stdout.isatty()
    table = Table(*columns, box=None, pad_edge=False, header_style="bold")
    for row in rows:
        table.add_row(*(Text(defuse(_cell(row.get(column)))) for column in columns))
    for column in table.columns:
        column.overflow = "fold"
    console = Console(force_terminal=is_terminal, width=None if is_terminal else sys.maxsize)
    console.print(table)


def _cell(value: Any) -> str:
    if isinstance(value, datetime):
        return iso(value)
    if value is None or isinstance(value, str):
        return value or ""
    return encode(value)
