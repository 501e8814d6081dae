"""`rqscan scan`: plan a scan, enqueue it, and wait for its end."""

import sys
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

import rich_click as click

from rqscan.cli import settings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import redis

    from rqscan.config import Settings
    from rqscan.model import Progress, Scan
    from rqscan.scan.plan import Plan

POLL_S = 0.1
NO_WORKER_S = 2.0


@click.command()
@click.argument("targets", nargs=-1, metavar="TARGET...")
@click.option("-p", "--ports", help="22,80,8000-8100 · top-100 · top-1000 · - for all.")
@click.option("--kind", "kinds", default="ports", show_default=True, help="Kinds, by commas.")
@click.option("--exclude", multiple=True, metavar="TARGET", help="Leave out (may be repeated).")
@click.option("--targets-file", metavar="FILE", help="Read targets from a file; - for stdin.")
@click.option("-q", "--queue", default="default", show_default=True)
@click.option("--name", default="adhoc", show_default=True, help="Groups scans to be compared.")
@click.option("--wait/--no-wait", default=True, show_default=True, help="Wait for the end.")
@click.option("--skip-out-of-scope", is_flag=True, help="Leave out what the scope refuses.")
@click.option("--dry-run", is_flag=True, help="Plan only: count probes and chunks, send nothing.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
def scan(
    targets: tuple[str, ...],
    ports: str | None,
    kinds: str,
    exclude: tuple[str, ...],
    targets_file: str | None,
    queue: str,
    name: str,
    wait: bool,
    skip_out_of_scope: bool,
    dry_run: bool,
    as_json: bool,
) -> int:
    """Scan each TARGET: an address, CIDR, range (10.0.0.5-20), host name, or - for stdin."""
    from rqscan.broker.connect import connect
    from rqscan.scan.kinds import load_kinds
    from rqscan.scan.plan import make_plan
    from rqscan.scan.submit import submit

    found = settings()
    load_kinds(found.jobs.path)
    plan = make_plan(
        settings=found,
        targets=_read(targets, targets_file),
        kinds=_split(kinds),
        queue=queue,
        name=name,
        exclude=[part for text in exclude for part in _split(text)],
        ports=ports,
        skip_out_of_scope=skip_out_of_scope,
    )
    if plan.left_out:
        click.echo(f"{plan.left_out} targets out of scope were left out", err=True)
    if dry_run:
        _show_plan(plan, as_json=as_json)
        return 0
    client = connect(found)  # before anything is planned: without Redis nothing would run
    submit(plan, settings=found, client=client)
    if not wait:
        _show(plan.scan, None, as_json=as_json)
        return 0
    return follow(plan.scan, found, client, as_json=as_json)


def follow(
    scan: "Scan", settings: "Settings", client: "redis.Redis", *, as_json: bool = False
) -> int:
    """Wait for a scan's end, with a bar on a terminal, and show it; gives the exit code."""
    from rqscan.states import ScanState

    progress = _wait_for_end(scan, client)
    if not as_json:
        _show_rows(scan, settings)
    _show(scan, progress, as_json=as_json)
    return 0 if progress.state == ScanState.FINISHED else 1


def _read(targets: tuple[str, ...], targets_file: str | None) -> list[str]:
    from rqscan.errors import UsageError
    from rqscan.scan.targets import read_targets

    specs = [spec for spec in targets if spec != "-"]
    if targets_file or "-" in targets:
        specs += read_targets(targets_file or "-", sys.stdin)
    if not specs:
        raise UsageError("no target is given; name one, or --targets-file FILE")
    return specs


def _split(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def _wait_for_end(scan: "Scan", client: "redis.Redis") -> "Progress":
    """Draw the progress until the scan has ended; says so when nobody listens."""
    from rqscan.errors import FailedError
    from rqscan.fleet.presence import is_listening
    from rqscan.scan.progress import read_progress

    began, is_told = time.monotonic(), False
    with _bar(scan) as draw:
        while True:
            progress = read_progress(client, scan.scan_id)
            if progress is None:
                raise FailedError(f"scan {scan.scan_id} is gone from Redis; see `rqscan scans`")
            draw(progress)
            if progress.is_ended:
                return progress
            waited_s = time.monotonic() - began
            if not is_told and waited_s > NO_WORKER_S and not progress.started_at:
                is_told = True
                if not is_listening(client, scan.queue):
                    click.echo(
                        f"no worker listens on queue {scan.queue!r}; start one with: "
                        f"python worker.py {scan.queue}",
                        err=True,
                    )
            time.sleep(POLL_S)


@contextmanager
def _bar(scan: "Scan") -> "Iterator[Callable[[Progress], None]]":
    """Give a context whose value draws progress on stderr, if that is a terminal."""
    from rich import progress as bars
    from rich.console import Console

    view = bars.Progress(
        bars.TextColumn("{task.description}"),
        bars.BarColumn(),
        bars.MofNCompleteColumn(),
        bars.TextColumn("chunks · {task.fields[found]} found ·"),
        bars.TimeElapsedColumn(),
        bars.TextColumn("· left"),
        bars.TimeRemainingColumn(),
        console=Console(stderr=True),
        disable=not sys.stderr.isatty(),
        transient=True,
    )
    task = view.add_task(scan.scan_id, total=scan.chunks, found=0)

    def draw(progress: "Progress") -> None:
        counts = progress.chunks
        ended = counts.done + counts.failed + counts.cancelled
        view.update(task, completed=ended, found=progress.observations)

    with view:
        yield draw


def _show_rows(scan: "Scan", settings: "Settings") -> None:
    from rqscan.cli.results import print_table
    from rqscan.store.database import Database
    from rqscan.store.repository import Repository

    with Database.open(settings) as database:
        print_table(Repository(database).rows(scan.scan_id))


def _show(scan: "Scan", progress: "Progress | None", *, as_json: bool) -> None:
    from rqscan import clock
    from rqscan.cli.show import print_json
    from rqscan.model import Counts, Progress

    progress = progress or Progress(scan_id=scan.scan_id, chunks=Counts(scan.chunks))
    counts = progress.chunks
    until = progress.finished_at or clock.now()
    elapsed_s = round((until - scan.requested_at).total_seconds(), 3)
    if as_json:
        print_json(
            {
                "scan_id": scan.scan_id,
                "state": progress.state,
                "chunks": {"total": counts.total, "done": counts.done, "failed": counts.failed},
                "observations": progress.observations,
                "spooled": 0,
                "probes": progress.probes,
                "elapsed_s": elapsed_s,
            }
        )
        return
    click.echo(
        f"scan {scan.scan_id} {progress.state}: {progress.observations} observations, "
        f"{progress.probes:,} probes, {counts.done} of {counts.total} chunks done"
        + (f", {counts.failed} failed" if counts.failed else "")
        + (f", {elapsed_s:.1f} s" if progress.is_ended else ""),
        err=True,
    )


def _show_plan(plan: "Plan", *, as_json: bool) -> None:
    from rqscan.cli.show import print_json

    scan, targets = plan.scan, plan.targets.count
    least_s, most_s = (round(seconds, 3) for seconds in plan.estimate_s())
    if as_json:
        counts = {"targets": targets, "probes": scan.probes, "chunks": scan.chunks}
        print_json(counts | {"estimated_min_s": least_s, "estimated_max_s": most_s})
        return
    click.echo(
        f"{targets:,} targets, {scan.probes:,} probes in {scan.chunks:,} chunks; one work-horse "
        f"needs {least_s:,.1f} s if every probe is answered, {most_s:,.1f} s if none is"
    )
