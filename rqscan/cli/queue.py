"""`rqscan queue`: list, pause, resume and empty queues."""

import sys
from contextlib import closing
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

import click

from rqscan.cli import settings
from rqscan.cli.group import Group, json_option
from rqscan.cli.show import defuse, print_json, print_table
from rqscan.errors import UsageError

if TYPE_CHECKING:
    import redis

    from rqscan.settings import Settings

__all__ = ["check_queue", "known_queues", "queue"]

COLUMNS = (
    "name", "depth", "oldest_s", "running", "in_per_s", "out_per_s", "failed", "failed_1h",
    "paused", "workers",
)  # fmt: skip


@click.group(cls=Group)
def queue() -> None:
    """List, pause, resume and empty queues."""


@queue.command("list")
@json_option
def list_queues(as_json: bool) -> None:
    """List the queues that are declared or were used."""
    from msgspec.structs import asdict

    from rqscan.broker.connect import connect
    from rqscan.monitor.snapshot import Lookout

    found = settings()
    with closing(connect(found)) as client:
        lookout = Lookout(client, found)
        lookout.look()  # tells the names of queues that are not declared
        queues = lookout.look().queues
    if as_json:
        print_json(queues)
    else:
        print_table(COLUMNS, map(asdict, queues))


@queue.command
@click.argument("queues", nargs=-1, required=True, metavar="QUEUE...")
@json_option
def pause(queues: tuple[str, ...], as_json: bool) -> None:
    """Let no job of each QUEUE start until it is resumed; what runs goes on."""
    _set_paused(queues, is_paused=True, as_json=as_json)


@queue.command
@click.argument("queues", nargs=-1, required=True, metavar="QUEUE...")
@json_option
def resume(queues: tuple[str, ...], as_json: bool) -> None:
    """Let the jobs of each QUEUE start again."""
    _set_paused(queues, is_paused=False, as_json=as_json)


def _set_paused(queues: tuple[str, ...], *, is_paused: bool, as_json: bool) -> None:
    from rqscan.broker.connect import connect, outage
    from rqscan.broker.queues import ScanQueue

    found = settings()
    with outage(), closing(connect(found)) as client:
        for name in queues:
            check_queue(client, found, name)
        for name in queues:
            (ScanQueue.pause if is_paused else ScanQueue.resume)(ScanQueue(name, client))
    if as_json:
        print_json([{"name": name, "paused": is_paused} for name in queues])
        return
    for name in queues:
        click.echo(f"queue {defuse(name)!r} is {'paused' if is_paused else 'open'}")


@queue.command
@click.argument("name", metavar="QUEUE")
@click.option("-y", "--yes", is_flag=True, help="Do not ask.")
@json_option
def empty(name: str, yes: bool, as_json: bool) -> None:
    """Remove every job that waits in QUEUE; its chunks stand as cancelled in their scans.

    `rqscan resume SCAN` runs later what was removed of a scan.
    """
    from rqscan.broker.connect import connect, outage
    from rqscan.scan.removal import Removal

    found = settings()
    with closing(connect(found)) as client:
        with outage():
            check_queue(client, found, name)
            waiting = _depth(client, name)
        if not yes and sys.stdin.isatty():
            click.confirm(f"remove {waiting} waiting jobs of queue {name!r}?", abort=True, err=True)
        with closing(Removal(found, client)) as removal:
            done = removal.empty(name)
    if as_json:
        print_json({"name": name, "removed": done.removed, "stopping": done.stopping})
        return
    also = f"; {done.stopping} had started and are stopped" if done.stopping else ""
    click.echo(f"{done.removed} jobs were removed from queue {defuse(name)!r}{also}")


def _depth(client: Any, name: str) -> int:
    from rqscan.broker import keys

    return int(client.llen(keys.queue(name)))


def known_queues(client: "redis.Redis", found: "Settings") -> list[str]:
    """Name the queues that are declared or were used."""
    from rqscan.broker import keys

    used: Any = client.smembers(keys.QUEUES)
    names = {key.decode(errors="replace").removeprefix(keys.queue("")) for key in used}
    return sorted(names | found.queues.keys())


def check_queue(client: "redis.Redis", found: "Settings", name: str) -> None:
    """Make sure that there is such a queue.

    Raises:
        UsageError: it is neither declared nor in use.
    """
    known = known_queues(client, found)
    if name not in known:
        near = get_close_matches(name, known, n=1)
        hint = f"did you mean {near[0]!r}?" if near else "rqscan queue list shows those there are"
        raise UsageError(f"no queue {name!r}; {hint}")
