"""`rqscan ping`: which workers answer, how fast, and with which clocks and versions."""

from collections.abc import Iterator, Sequence
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

import click

from rqscan.cli import settings
from rqscan.cli.group import Command, Seconds, json_option
from rqscan.cli.show import print_json, print_table
from rqscan.errors import UsageError

if TYPE_CHECKING:
    import redis

    from rqscan.monitor.records import Worker

__all__ = ["addressed", "ping", "timeout_option"]

timeout_option = click.option(
    "--timeout", "timeout_s", type=Seconds(0.01, 600), default=0.5, show_default=True,
    metavar="S", help="Seconds to wait for answers.",
)  # fmt: skip


@click.command(cls=Command)
@click.argument("workers", nargs=-1, metavar="[WORKER]...")
@timeout_option
@json_option
def ping(workers: tuple[str, ...], timeout_s: float, as_json: bool) -> int:
    """Ask each WORKER (all, if none is named) for a sign of life; exit 1 if one is silent."""
    from rqscan.broker.connect import connect, outage

    with outage(), connect(settings()) as client:
        rows = sorted(_ping(client, workers, timeout_s), key=lambda row: str(row["worker"]))
    if as_json:
        print_json(rows)
    else:
        shown = [
            row
            | {"answered": "yes" if row["answered"] else "SILENT"}
            | {"versions": " ".join(f"{k} {v}" for k, v in row["versions"].items())}
            for row in rows
        ]
        columns = ["worker", "host", "answered", "rtt_ms", "state", "clock_offset_s"]
        print_table([*columns, "utc_offset_s", "versions"], shown)
    return 0 if all(row["answered"] for row in rows) else 1


def _ping(
    client: "redis.Redis", workers: Sequence[str], timeout_s: float
) -> Iterator[dict[str, Any]]:
    from msgspec.structs import asdict

    from rqscan.broker.control import ask

    known = addressed(client, workers)
    silent = dict(known)
    for answer, rtt_ms in ask(client, "ping", workers=workers, expected=known, timeout_s=timeout_s):
        silent.pop(answer.worker, None)
        yield _row(answer.worker, answer.data, rtt_ms)
    for name, worker in silent.items():
        yield _row(name, asdict(worker), None)


def _row(name: str, known: dict[str, Any], rtt_ms: float | None) -> dict[str, Any]:
    return {
        "worker": name,
        "host": known["host"],
        "answered": rtt_ms is not None,
        "rtt_ms": rtt_ms,
        "versions": known["versions"],
        "clock_offset_s": known["clock_offset_s"],
        "utc_offset_s": known["utc_offset_s"],
        "state": known["state"],
    }


def addressed(client: "redis.Redis", workers: Sequence[str]) -> "dict[str, Worker]":
    """Give what is known of the workers that are named, or of all that are registered.

    Raises:
        UsageError: one of them is unknown.
    """
    from rqscan.fleet.roster import registered
    from rqscan.monitor.roll import worker

    here = settings().worker
    known = {
        name: worker(name, age_s, raw, here) for name, (age_s, raw) in registered(client).items()
    }
    for name in workers:
        if name not in known:
            near = get_close_matches(name, known, n=1)
            hint = f"did you mean {near[0]!r}?" if near else "rqscan top lists them"
            raise UsageError(f"no worker {name!r} is registered; {hint}")
    return {name: known[name] for name in workers or known}
