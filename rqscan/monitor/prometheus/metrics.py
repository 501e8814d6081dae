"""Metrics: the snapshot served for Prometheus, and the one place that knows its library.

A scrape is a look at Redis; scrapers that ask within a second share one.
"""

import errno
import time
from collections.abc import Callable, Iterator
from threading import Lock

from prometheus_client import CollectorRegistry, Metric, generate_latest, start_http_server
from prometheus_client.registry import Collector

from rqscan.errors import FailedError, RedisUnavailable, UsageError
from rqscan.fleet.outage import Outage
from rqscan.monitor.prometheus.families import Family, families, redis_up
from rqscan.monitor.records import Snapshot

__all__ = ["Look", "SnapshotCollector", "serve", "text"]

Look = Callable[[], Snapshot]

SHARED_S = 1.0
"""A look is given to those who ask so soon after it."""

SUFFIXES = {"counter": "_total", "info": "_info"}


class SnapshotCollector(Collector):
    """Gives what `look` sees; while Redis is away, that and nothing else."""

    def __init__(self, look: Look) -> None:
        self._look, self._lock, self._outage = look, Lock(), Outage()
        self._found: list[Family] = []
        self._until = 0.0

    def collect(self) -> Iterator[Metric]:
        """Give the families of one look."""
        with self._lock:  # who comes during a look waits for it, and shares it
            if time.monotonic() > self._until:
                self._found = self._read()
                self._until = time.monotonic() + SHARED_S
            found = self._found
        return map(_metric, found)

    def _read(self) -> list[Family]:
        began = time.monotonic()
        try:
            shot = self._look()
            reason = "" if shot.redis.up else shot.trouble[0].cause
        except RedisUnavailable as e:
            reason = str(e)
        took_s = time.monotonic() - began
        if reason:
            self._outage.begin(reason)
        else:
            self._outage.end()
        found = [redis_up(is_up=not reason), *(() if reason else families(shot))]
        text = "Time that the look at Redis took which these figures are of."
        return [*found, Family("rqscan_scrape_duration_seconds", text, (), {(): took_s})]


def text(look: Look) -> str:
    """Give what a scrape would get."""
    return generate_latest(_registry(look)).decode()


def serve(look: Look, host: str, port: int) -> tuple[str, Callable[[], None]]:
    """Answer scrapes in threads; gives the URL, and what ends it.

    Raises:
        FailedError: another process has the port.
        UsageError: the address cannot be listened on.
    """
    where = f"[{host}]" if ":" in host else host
    try:
        server, thread = start_http_server(port, host, _registry(look))
    except OSError as e:
        raise _refusal(e, where, port) from None

    def end() -> None:
        server.shutdown()
        server.server_close()
        thread.join()

    return f"http://{where}:{server.server_port}/metrics", end


def _refusal(error: OSError, where: str, port: int) -> FailedError | UsageError:
    words = f"cannot listen on {where}:{port}: {error.strerror}"
    if error.errno == errno.EADDRINUSE:
        return FailedError(f"{words}; name another with --port, or end who has it")
    return UsageError(f"{words}; name an address of this host with --listen")


def _registry(look: Look) -> CollectorRegistry:
    registry = CollectorRegistry(support_collectors_without_names=True)  # for `?name[]=`
    registry.register(SnapshotCollector(look))
    return registry


def _metric(family: Family) -> Metric:
    metric = Metric(family.name, family.text, family.type)
    name = family.name + SUFFIXES.get(family.type, "")
    for values, figure in family.figures.items():
        metric.add_sample(name, dict(zip(family.labels, values, strict=True)), figure)
    return metric
