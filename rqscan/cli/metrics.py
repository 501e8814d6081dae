"""`rqscan metrics`: the figures of `rqscan top` for Prometheus."""

import sys
from typing import TYPE_CHECKING

import click

from rqscan.cli import settings, start_log
from rqscan.cli.group import Command, log_options
from rqscan.errors import UsageError

if TYPE_CHECKING:
    from rqscan.monitor.prometheus.metrics import Look
    from rqscan.settings import Settings

__all__ = ["metrics"]


@click.command(cls=Command)
@click.option("--listen", default="127.0.0.1", show_default=True, metavar="HOST",
              help="Address to listen on; there is no password: leave it at loopback.")  # fmt: skip
@click.option("--port", type=click.IntRange(0, 65535), default=9738, show_default=True,
              help="Port to listen on; 0: any that is free.")  # fmt: skip
@click.option("--once", is_flag=True, help="Print the figures on stdout and end.")
@log_options
def metrics(listen: str, port: int, once: bool, log_level: str, log_json: bool) -> None:
    """Serve the figures of `rqscan top` for Prometheus until told to stop.

    Once it has started it outlives each outage of Redis, and tells it: rqscan_redis_up is 0.
    """
    try:
        from rqscan.monitor.prometheus.metrics import serve, text
    except ModuleNotFoundError as e:
        if e.name is None or e.name.partition(".")[0] != "prometheus_client":
            raise
        raise UsageError(
            "rqscan metrics needs the package prometheus_client, which is not installed; "
            "run: pip install 'rqscan[metrics]'"
        ) from None

    look = _look(settings())
    if once:
        sys.stdout.write(text(look))
        return
    start_log(log_level, as_json=log_json)
    from select import select

    from rqscan.fleet.signals import stop_signals
    from rqscan.logs import Event, log

    told: list[str] = []
    with stop_signals(told.append) as woken:
        url, end = serve(look, listen, port)
        log(Event.METRICS_STARTED, url=url)
        while not told:
            select([woken], [], [])
        end()
    log(Event.METRICS_STOPPED, signal=told[0])


def _look(settings: "Settings") -> "Look":
    """Look once, so that a first connection that fails ends us, and give what looks again."""
    from rqscan.broker.connect import connect
    from rqscan.monitor.snapshot import Lookout

    lookout = Lookout(connect(settings), settings)
    lookout.look()
    return lookout.look
