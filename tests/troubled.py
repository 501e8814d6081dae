"""A live fleet in trouble: real processes on hosts of their own names, with faults made on purpose.

For the acceptance of `rqscan top`, and for its picture. All stays on this machine, is bounded in
count and time, and is ended by pid.
"""

import os
import shutil
import signal
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil

from rqscan.broker import keys
from rqscan.broker.queues import ScanQueue
from rqscan.model import Chunk
from rqscan.settings import DatabaseSettings, QueueSettings, RedisSettings, Settings
from tests.lab.devices import CAUSES
from tests.rig import ROOT, Rig, Started
from tests.servers import DIE_WITH_US, RedisServer, faked_clock, missing, wait_for

__all__ = ["CHUNKS", "FAILED", "OLD_VERSION", "TroubledFleet", "troubled_fleet"]

FAILED = sum(count for *_, count in CAUSES.values())
OLD_VERSION = "0.0.9"
CHUNKS = 200  # of the scan that goes on
FED, FEED_S = 1500, 0.2
FUNCTIONS = "lab.devices.last,lab.devices.ask"

SETTINGS = """
[queues.deep]
[queues.slow]
[queues.imports]

[spool]
mode = "spool_first"

[[schedule]]
name = "nightly"
cron = "0 2 * * *"
zone = "Asia/Shanghai"
queue = "wakaka"
scan = { targets = ["127.0.0.0/28"], kinds = ["sweep"], ports = "1" }

[[schedule]]
name = "edge"
every_s = 15
queue = "wakaka"
scan = { targets = ["127.0.1.1-127.0.1.4"], kinds = ["sweep"], ports = "1" }

[[schedule]]
name = "broken"
cron = "61 * * * *"
scan = { targets = ["127.0.0.1"], kinds = ["sweep"] }
"""


class TroubledFleet:
    """Seven workers on six hosts, a scheduler, and a Redis; a name is HOST.PID, as by default."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="rq-", dir="/tmp"))
        for name in ("redis", "run", "homes"):
            (self.folder / name).mkdir()
        self.redis = RedisServer(self.folder / "redis", tcp=True)
        settings = Settings(
            home=str(self.folder / "homes/ops"),
            redis=RedisSettings(url=self.redis.tcp_url),
            database=DatabaseSettings(url=f"sqlite:///{self.folder}/scans.db"),
        )
        self.rig = Rig(settings, self.folder / "run")
        self.rig.env = {k: v for k, v in self.rig.env.items() if self._is_ours(k)} | {
            "PYTHONPATH": f"{ROOT}:{ROOT / 'tests'}",
            "RQSCAN_CONFIG": str(self.folder / "run/rqscan.toml"),
            "RQSCAN_JOBS_PATH": str(ROOT / "tests/lab"),
            "RQSCAN_ALLOW_FUNCTIONS": FUNCTIONS,
        }
        self._client = self.redis.client()
        self.python, self.env = sys.executable, self.rig.env
        self.workers: dict[str, list[Started]] = {}
        self._is_over = threading.Event()
        self._feeder = threading.Thread(target=self._feed)

    @staticmethod
    def _is_ours(name: str) -> bool:
        ours = {"RQSCAN_HOME", "RQSCAN_REDIS_URL", "RQSCAN_DATABASE_URL"}
        return name in ours or not name.startswith("RQSCAN_")

    @property
    def cast(self) -> dict[str, str]:
        """Give the names of the workers, by what becomes of them."""
        roles = {
            "web03": ("killed", "killed_too"), "db01": ("frozen",), "edge01": ("skewed",),
            "old01": ("old",), "web01": ("good",), "web02": ("good_too",),
        }  # fmt: skip
        return {
            role: f"{host}.{one.process.pid}"
            for host, workers in self.workers.items()
            for role, one in zip(roles[host], workers, strict=True)
        }

    def start(self) -> None:
        """Build it up with all that goes on by itself; `break_down` does what is left."""
        (self.folder / "run/rqscan.toml").write_text(SETTINGS)
        self.redis.start()
        self._enter("web01")
        self.rig.run("db", "init")
        for cause, (*_, queue, count) in CAUSES.items():
            for n in range(1, count + 1):
                values = (cause, f"10.20.{len(cause)}.{n}", 40 * n)
                self._queue(queue).enqueue("lab.devices.ask", *values, job_timeout=60)
        for queue, count, seconds in (("deep", 3, 300), ("slow", 2, 300)):
            for _ in range(count):
                self._queue(queue).enqueue("lab.devices.last", seconds, job_timeout=900)
        for host in ("web03", "web03", "db01"):
            self._work(host, "deep", "-c", "1")
        self._work("edge01", "slow", "default", "-c", "2", **faked_clock("+92s"))
        self._work("old01", "default", "wakaka", "-c", "1", **self._old_version())
        self._work("web01", "default", "wakaka", "-c", "2")
        self._enter("web01")
        self.rig.start("scheduler.py", "--log-json")
        scan = ("scan", f"127.0.0.1-127.0.0.{CHUNKS}", "--kind", "sweep", "-p", "4", "--no-wait")
        self.rig.json(*scan, "--queue", "wakaka")
        self._wait_for_jobs()
        self._work("web02", "deep", "wakaka", "-c", "3")  # last: it would take what others hold
        self._wait_for_jobs()
        self._feeder.start()
        wait_for(lambda: self._failed() == FAILED, 60, f"{FAILED} failed jobs")

    def break_down(self) -> None:
        """Kill all of the host web03, and freeze all of db01."""
        for one in self.workers["web03"]:
            self._send(one, signal.SIGKILL)
        for one in self.workers["db01"]:
            self._send(one, signal.SIGSTOP)

    def close(self) -> None:
        """End all; what runs in the folder is of this fleet."""
        self._is_over.set()
        if self._feeder.is_alive():
            self._feeder.join()
        for one in self._started:
            self._send(one, signal.SIGKILL)
        self.rig.close()
        wait_for(self._is_empty, 20, "the fleet's last processes")
        self.redis.close()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _enter(self, host: str) -> None:
        """Let what starts next see such a host name, and die with us."""
        unshare = shutil.which("unshare") or missing("unshare")
        rights = [] if os.geteuid() == 0 else ["--user", "--map-root-user"]
        rename = ["--uts", "sh", "-c", 'hostname "$0" && exec "$@"', host]
        die_with_us = [sys.executable, "-ISc", DIE_WITH_US, str(os.getpid())]
        self.rig.enter([*die_with_us, unshare, "unshare", *rights, *rename])

    def _work(self, host: str, *arguments: str, **env: str) -> None:
        home = self.folder / "homes" / host
        self._enter(host)
        # by the module: the folder of worker.py would come before PYTHONPATH
        words = ("-m", "rqscan", "worker", *arguments, "--log-json")
        started = self.rig.start(*words, RQSCAN_HOME=str(home), **env)
        self.workers.setdefault(host, []).append(started)

    def _old_version(self) -> dict[str, str]:
        """Copy the package under another version; gives what makes a process use the copy."""
        copy = self.folder / "old"
        shutil.copytree(ROOT / "rqscan", copy / "rqscan")
        about = copy / "rqscan/__init__.py"
        lines = about.read_text().splitlines()
        lines = [line for line in lines if not line.startswith("__version__")]
        about.write_text("\n".join([*lines, f'__version__ = "{OLD_VERSION}"', ""]))
        return {"PYTHONPATH": f"{copy}:{self.rig.env['PYTHONPATH']}"}

    def _queue(self, name: str) -> ScanQueue:
        return ScanQueue(name, connection=self._client)

    def _feed(self) -> None:
        """Put chunks where nobody listens, as a scan does."""
        queue = self._queue("imports")
        for n in range(1, FED + 1):
            if self._is_over.wait(FEED_S):
                return
            chunk = Chunk(scan_id="fed", chunk=n, kind="sweep", targets=["127.0.0.1"], params={})
            list(queue.enqueue_chunks([chunk], QueueSettings()))

    @property
    def _started(self) -> list[Started]:
        return [one for found in self.workers.values() for one in found]

    def _wait_for_jobs(self) -> None:
        for one in self._started:
            one.wait_for_event("job_started")

    def _failed(self) -> int:
        return sum(
            self._client.zcard(keys.registry("failed", name)) for name in ("wakaka", "default")
        )

    def _send(self, one: Started, number: signal.Signals) -> None:
        """Send a signal to a worker and all its children."""
        with suppress(psutil.NoSuchProcess):
            worker = psutil.Process(one.process.pid)
            for process in [worker, *worker.children(recursive=True)]:
                with suppress(psutil.NoSuchProcess):
                    process.send_signal(number)

    def _is_empty(self) -> bool:
        left = [p for p in psutil.process_iter() if self._cwd(p) == str(self.folder / "run")]
        for process in left:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        return not left

    @staticmethod
    def _cwd(process: psutil.Process) -> str:
        with suppress(psutil.Error):
            return process.cwd()
        return ""


@contextmanager
def troubled_fleet() -> Iterator[TroubledFleet]:
    """Give a fleet at work, with all its faults but those of `break_down`."""
    fleet = TroubledFleet()
    try:
        fleet.start()
        yield fleet
    finally:
        fleet.close()
