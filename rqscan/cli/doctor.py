"""`rqscan doctor`: checks of Redis, store, spool, workers, clocks and this host, with advice."""

import click
from msgspec.structs import asdict

from rqscan.cli import settings
from rqscan.cli.group import Command, json_option
from rqscan.cli.show import print_json, print_table
from rqscan.fleet.preflight.checks import Status, check
from rqscan.fleet.preflight.inquiry import gather

__all__ = ["doctor"]


@click.command(cls=Command)
@click.option(
    "--timeout", "timeout_s", type=click.FloatRange(0.01, 600), default=1.0, show_default=True,
    metavar="S", help="Seconds that workers have to answer.",
)  # fmt: skip
@json_option
def doctor(timeout_s: float, as_json: bool) -> int:
    """Check Redis, store, spool, workers, clocks and this host; exit 1 if a check fails."""
    checks = list(check(gather(settings(), timeout_s)))
    is_ok = all(one.status != Status.FAIL for one in checks)
    if as_json:
        print_json({"ok": is_ok, "checks": checks})
    else:
        rows = [asdict(one) | {"status": one.status.upper()} for one in checks]
        print_table(["status", "name", "value", "advice"], rows)
    return 0 if is_ok else 1
