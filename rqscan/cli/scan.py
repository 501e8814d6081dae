"""`rqscan scan`: plan a scan, enqueue it, and wait for its end."""

import math
import sys
import time
from contextlib import suppress
from typing import Any

import click
import redis
from rich.console import Console
from rich.progress import Progress as Bar

from rqscan import clock
from rqscan.broker import keys
from rqscan.broker.connect import connect, outage
from rqscan.broker.embedded import revive_own
from rqscan.cli import repository, settings, tell_former_store
from rqscan.cli.group import Command, split
from rqscan.cli.results import print_rows
from rqscan.cli.scans import summary
from rqscan.cli.show import print_json
from rqscan.errors import RedisUnavailable, StoreUnavailable, UsageError
from rqscan.fleet.roster import is_listening
from rqscan.installed import plugins
from rqscan.model import Counts, Progress, Scan
from rqscan.scan.kinds import load_kinds
from rqscan.scan.plan import Plan, make_plan
from rqscan.scan.progress import read_progress
from rqscan.scan.submit import submit, write_plan
from rqscan.scan.targets import read_targets
from rqscan.settings import Settings
from rqscan.states import ScanState

POLL_S = 0.1
NO_WORKER_S = 2.0
LOST_S = 1.0  # between two looks into the store, while Redis knows nothing of the scan
STARTS_LATER = "the scan is planned and starts when Redis is back"


@click.command(cls=Command)
@click.argument("targets", nargs=-1, metavar="TARGET...")
@click.option("-p", "--ports", help="22,80,8000-8100 · top-100 · top-1000 · - for all.")
@click.option("--kind", "kinds", default=["ports"], multiple=True, show_default=True,
              callback=split, help="Kinds, by commas.")  # fmt: skip
@click.option("--exclude", multiple=True, metavar="TARGET", callback=split,
              help="Leave out (may be repeated).")  # fmt: skip
@click.option("--targets-file", metavar="FILE", help="Read targets from a file; - for stdin.")
@click.option("-q", "--queue", default="default", show_default=True)
@click.option("--name", default="adhoc", show_default=True, help="Groups scans to be compared.")
@click.option("--wait/--no-wait", default=True, show_default=True, help="Wait for the end.")
@click.option("--skip-out-of-scope", is_flag=True, help="Leave out what the scope refuses.")
@click.option("--result-ttl", "result_ttl_s", type=click.IntRange(0, 10**9), metavar="S",
              help="Seconds that Redis keeps finished jobs; 0 keeps none.")  # fmt: skip
@click.option("--failure-ttl", "failure_ttl_s", type=click.IntRange(0, 10**9), metavar="S",
              help="Seconds that Redis keeps failed jobs; 0 keeps none.")  # fmt: skip
@click.option("--dry-run", is_flag=True, help="Plan only: count probes and chunks, send nothing.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object.")
def scan(
    targets: tuple[str, ...],
    targets_file: str | None,
    wait: bool,
    dry_run: bool,
    as_json: bool,
    **asked: Any,
) -> int:
    """Scan each TARGET: an address, CIDR, range (10.0.0.5-20), host name, or - for stdin."""
    found = settings()
    load_kinds(found.jobs.path, plugins())
    plan = make_plan(settings=found, targets=_read(targets, targets_file), **asked)
    if plan.left_out:
        click.echo(f"{plan.left_out} targets out of scope were left out", err=True)
    if dry_run:
        _show_plan(plan, as_json=as_json)
        return 0
    progress = Progress(scan_id=plan.scan.scan_id, chunks=Counts(plan.scan.chunks))
    if client := _connect(found, is_needed=wait):
        _submit(plan, found, client, is_needed=wait)
    else:
        write_plan(plan, settings=found)
    if wait and client:
        try:
            progress = _wait_for_end(plan.scan, client, found.redis.connect_timeout_s)
        except KeyboardInterrupt:
            click.echo(f"scan {plan.scan.scan_id} goes on; see `rqscan scans`", err=True)
            raise
        if not as_json:
            _print_rows(plan.scan.scan_id)
    _show(plan.scan, progress, as_json=as_json)
    return 1 if wait and progress.state != ScanState.FINISHED else 0


def _connect(found: Settings, *, is_needed: bool) -> redis.Redis | None:
    """Connect before anything is planned: one who waits wants the scan to run now."""
    try:
        return connect(found)
    except RedisUnavailable as e:
        if is_needed:
            raise
        click.echo(f"{e}; {STARTS_LATER}", err=True)
        return None


def _submit(plan: Plan, found: Settings, client: redis.Redis, *, is_needed: bool) -> None:
    if is_needed:  # one that may be read only is told before anything is planned
        with outage():
            client.sadd(keys.QUEUES, keys.queue(plan.scan.queue))
    try:
        former = submit(plan, settings=found, client=client).former_store
    except RedisUnavailable as e:  # the plan is written before Redis is told
        advice = f"to take it back: rqscan cancel {plan.scan.scan_id}"
        if is_needed:
            raise RedisUnavailable(f"{e}; {STARTS_LATER}", advice=advice) from e
        click.echo(f"{e}; {STARTS_LATER}", err=True)
    else:
        tell_former_store(former)


def _read(targets: tuple[str, ...], targets_file: str | None) -> list[str]:
    specs = [spec for spec in targets if spec != "-"]
    if targets_file or "-" in targets:
        specs += read_targets(targets_file or "-", sys.stdin)
    if not specs:
        raise UsageError("no target is given; name one, or --targets-file FILE")
    return specs


def _wait_for_end(scan: Scan, client: redis.Redis, patience_s: float) -> Progress:
    """Draw the progress on a terminal until the scan has ended; says so when nobody listens."""
    warn_at = time.monotonic() + NO_WORKER_S
    bar = Bar(console=Console(stderr=True), disable=not sys.stderr.isatty(), transient=True)
    task = bar.add_task(scan.scan_id, total=scan.chunks)
    give_up_at = math.inf
    is_gone = False
    with bar:
        while True:
            try:
                progress = read_progress(client, scan.scan_id)
                give_up_at = math.inf
            except RedisUnavailable as e:
                give_up_at = min(give_up_at, time.monotonic() + patience_s)
                if time.monotonic() > give_up_at:
                    raise RedisUnavailable(f"{e}; scan {scan.scan_id} goes on") from e
                revive_own(settings())
                time.sleep(POLL_S)
                continue
            pause_s = POLL_S
            if progress is None:  # expired, or lost with all that Redis held
                progress, pause_s = _stored_progress(scan.scan_id), LOST_S
                if not progress.is_ended and not is_gone:
                    is_gone = True
                    advice = f"the fleet enqueues what is missing; or: rqscan resume {scan.scan_id}"
                    click.echo(f"scan {scan.scan_id} is gone from Redis; {advice}", err=True)
            if progress.is_ended:
                return progress
            counts = progress.chunks
            ended = counts.done + counts.failed + counts.cancelled
            about = f"{scan.scan_id}: {progress.observations} found"
            bar.update(task, completed=ended, description=about)
            if time.monotonic() > warn_at and not progress.started_at:
                warn_at = math.inf
                if not is_listening(client, scan.queue):
                    advice = f"start one with: python worker.py {scan.queue}"
                    click.echo(f"no worker listens on queue {scan.queue!r}; {advice}", err=True)
            time.sleep(pause_s)


def _stored_progress(scan_id: str) -> Progress:
    with repository() as store:
        return store.progress(scan_id)


def _print_rows(scan_id: str) -> None:
    try:
        with repository() as store:
            print_rows(store.rows(scan_id))
    except StoreUnavailable as e:  # which keeps no scan from its end
        click.echo(f"{e}; see its rows later with: rqscan results {scan_id}", err=True)


def _spooled(progress: Progress) -> int:
    """Count the observations that are still on their way to the store."""
    if not progress.spooled:
        return 0
    with suppress(StoreUnavailable):
        missing = progress.observations - _stored_progress(progress.scan_id).observations
        return max(0, min(missing, progress.spooled))
    return progress.spooled


def _show_plan(plan: Plan, *, as_json: bool) -> None:
    least_s, most_s = (round(seconds, 3) for seconds in plan.estimate_s())
    counts = {
        "targets": plan.targets.count,
        "probes": plan.scan.probes,
        "chunks": plan.scan.chunks,
        "estimated_min_s": least_s,
        "estimated_max_s": most_s,
    }
    if as_json:
        print_json(counts)
        return
    click.echo(
        "{targets:,} targets, {probes:,} probes in {chunks:,} chunks; one work-horse needs "
        "{estimated_min_s:,.1f} s if every probe is answered, {estimated_max_s:,.1f} s if none "
        "is".format(**counts)
    )


def _show(scan: Scan, progress: Progress, *, as_json: bool) -> None:
    until = progress.finished_at or clock.now()
    elapsed_s = round((until - scan.requested_at).total_seconds(), 3)
    spooled = _spooled(progress)
    known = summary(scan, progress) | {"spooled": spooled, "elapsed_s": elapsed_s}
    if as_json:
        names = "scan_id state chunks observations spooled probes elapsed_s"
        print_json({name: known[name] for name in names.split()})
        return
    counts = progress.chunks
    click.echo(
        f"scan {scan.scan_id} {progress.state}: {progress.observations} observations, "
        + (f"{spooled} of them not in the database yet, " if spooled else "")
        + f"{progress.probes:,} probes, {counts.done} of {counts.total} chunks done"
        + (f", {counts.failed} failed" if counts.failed else "")
        + (f", {counts.cancelled} cancelled" if counts.cancelled else "")
        + (f", {elapsed_s:.1f} s" if progress.is_ended else ""),
        err=True,
    )
