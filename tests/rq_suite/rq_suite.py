"""Pytest plugin: RQ's own tests, with our worker, queue and job in place of RQ's.

`make rq-suite` runs them from RQ's source, which is fetched once and never copied into this
repository. Each process has a Redis of its own; payloads are JSON; the functions of the tests are
in `worker.allow_functions`. `left_out.toml` lists the tests that are not run, by reason.
"""

import importlib.util
import inspect
import os
import shutil
import sys
import tempfile
import tomllib
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any
from uuid import uuid4

import pytest
import redis
import rq
import rq.job
import rq.queue
import rq.serializers
import rq.worker

from rqscan.broker.jobs import ScanJob
from rqscan.broker.queues import ScanQueue
from rqscan.fleet.worker import ScanWorker

HERE = Path(__file__).parent
ALSO = ["print", "builtins.print", "time.sleep", "math.gcd"]
"""Functions of the standard library that the tests enqueue."""


class OneAtATime(ScanWorker):
    """A worker as RQ's tests know it: one job at once, and many workers in one process."""

    def __init__(self, queues: Any, name: str | None = None, *args: Any, **kwargs: Any) -> None:
        super().__init__(queues, name or uuid4().hex, *args, **{"concurrency": 1} | kwargs)


OURS = {
    rq.worker.Worker: OneAtATime,
    rq.worker.SimpleWorker: OneAtATime,
    rq.queue.Queue: ScanQueue,
    rq.job.Job: ScanJob,
}
"""What the test modules find in place of RQ's classes; RQ's own modules keep theirs."""


def pytest_configure(config: pytest.Config) -> None:
    """Put our classes and a private Redis in the places where RQ's tests look for them."""
    folder = Path(tempfile.mkdtemp(prefix="rq-suite-"))
    server = _servers().RedisServer(folder, tcp=True).start()
    os.environ |= {"RQSCAN_HOME": str(folder), "RQSCAN_ALLOW_FUNCTIONS": ",".join(ALSO)}
    config.add_cleanup(lambda: shutil.rmtree(folder))
    config.add_cleanup(server.close)
    _send_all_clients_to(server.port)
    rq.serializers.DefaultSerializer = rq.serializers.JSONSerializer
    for theirs, ours in OURS.items():
        setattr(rq, theirs.__name__, ours)  # for imports inside of tests


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Allow the functions of the tests, and leave out what the list names."""
    for module in _test_modules():
        for name, value in vars(module).items():
            if inspect.isclass(value) and value in OURS:
                setattr(module, name, OURS[value])
    names = [name for module in _test_modules() for name in _functions(module)]
    os.environ["RQSCAN_ALLOW_FUNCTIONS"] = ",".join([*ALSO, *names])
    ScanJob.allow_functions = frozenset([*ALSO, *names])
    left_out = _left_out()
    known = {_name(item): item for item in items}
    files = {item.path.stem for item in items}
    unknown = [name for name in left_out if name.split(".")[0] in files and name not in known]
    if unknown:
        raise pytest.UsageError(f"left_out.toml names tests that RQ does not have: {unknown}")
    config.hook.pytest_deselected(items=[known[name] for name in left_out if name in known])
    items[:] = [item for item in items if _name(item) not in left_out]


def _left_out() -> dict[str, str]:
    entries = tomllib.loads((HERE / "left_out.toml").read_text("utf-8"))["reason"]
    return {test: entry["why"] for entry in entries for test in entry["tests"]}


def _name(item: pytest.Item) -> str:
    """Name a test as the list does: file.Class.test."""
    return ".".join([item.path.stem, *item.nodeid.split("::")[1:]])


def _servers() -> ModuleType:
    # by its file: the name `tests` is RQ's here
    spec = importlib.util.spec_from_file_location("servers", HERE.parent / "servers.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _send_all_clients_to(port: int) -> None:
    plain = redis.Redis.__init__

    def init(self: redis.Redis, *args: Any, **options: Any) -> None:
        if not args and not {"connection_pool", "unix_socket_path"} & set(options):
            options.setdefault("port", port)
        plain(self, *args, **options)

    redis.Redis.__init__ = init


def _test_modules() -> list[ModuleType]:
    return [module for name, module in list(sys.modules.items()) if name.startswith("tests.")]


def _functions(module: ModuleType) -> Iterator[str]:
    for name, value in vars(module).items():
        if inspect.isfunction(value) and value.__module__ == module.__name__:
            yield f"{module.__name__}.{name}"
        elif inspect.isclass(value) and value.__module__ == module.__name__:
            yield from (
                f"{module.__name__}.{name}.{method}"
                for method, function in vars(value).items()
                if inspect.isroutine(function)
            )
