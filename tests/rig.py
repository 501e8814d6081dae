"""The commands as a user runs them: real processes, with the settings of one test."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rqscan.settings import Settings
from tests.servers import wait_for

__all__ = ["Rig", "listeners"]

ROOT = Path(__file__).resolve().parent.parent
NOBODY = 65534


class Rig:
    """Runs `rqscan …` and `python worker.py …` in one home, and ends what it started."""

    def __init__(self, settings: Settings, folder: Path) -> None:
        self.folder = folder
        self.env = {
            **os.environ,
            "RQSCAN_HOME": settings.home,
            "PYTHONPATH": str(ROOT),
            "COLUMNS": "200",
        }
        if settings.redis.url:
            self.env["RQSCAN_REDIS_URL"] = settings.redis.url
        if settings.database.url:
            self.env["RQSCAN_DATABASE_URL"] = settings.database.url
        self._prefix: list[str] = []
        self._started: list[subprocess.Popen[bytes]] = []

    def use_odd_kinds(self) -> None:
        """Have the scan kinds of tests/odd_kinds instead of our own."""
        self.env |= {
            "RQSCAN_JOBS_PATH": str(ROOT / "tests/odd_kinds"),
            "ODD_FOLDER": str(self.folder),
        }

    def enter(self, prefix: list[str]) -> None:
        """Run what follows behind such words, which take it into a namespace."""
        self._prefix = prefix

    def become_nobody(self) -> None:
        """Run what follows as an ordinary user, in folders of its own.

        It may still read everything, since the interpreter may lie in root's home.
        """
        read = "-all,+dac_read_search"
        self._prefix = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"]
        self._prefix += [f"--inh-caps={read}", f"--ambient-caps={read}"]
        home = Path(self.env["RQSCAN_HOME"])
        for path in (self.folder, home, *home.rglob("*")):
            os.chown(path, NOBODY, NOBODY)

    def run(self, *arguments: str, timeout: float = 60, **env: str) -> subprocess.CompletedProcess:
        """Run `rqscan` to its end."""
        return subprocess.run(
            [*self._prefix, sys.executable, "-m", "rqscan", *arguments],
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
            timeout=timeout,
            env=self.env | env,
            cwd=self.folder,
            check=False,
        )

    def json(self, *arguments: str, timeout: float = 60, **env: str) -> Any:
        """Run `rqscan … --json`, which must succeed, and give what it printed."""
        done = self.run(*arguments, "--json", timeout=timeout, **env)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def start(self, script: str, *arguments: str, **env: str) -> "Started":
        """Start `python SCRIPT …`, such as worker.py, or `python -m …`."""
        log = self.folder / f"{len(self._started)}.log"
        script = script if script == "-m" else str(ROOT / script)
        with log.open("wb") as stream:
            process = subprocess.Popen(
                [*self._prefix, sys.executable, script, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=stream,
                env=self.env | env,
                cwd=self.folder,
            )
        self._started.append(process)
        return Started(process, log)

    def worker(self, *arguments: str, **env: str) -> "Started":
        """Start a worker and wait until it has started."""
        started = self.start("worker.py", *arguments, "--log-json", **env)
        started.wait_for_event("worker_started")
        return started

    def close(self) -> None:
        """End what still runs."""
        for process in self._started:
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(signal.SIGCONT)
                process.kill()
            process.wait(10)


class Started:
    """A process with its log of JSON lines."""

    def __init__(self, process: subprocess.Popen[bytes], log: Path) -> None:
        self.process, self.log = process, log

    @property
    def events(self) -> list[dict[str, Any]]:
        """What it has logged."""
        lines = self.log.read_text().splitlines()
        return [json.loads(line) for line in lines if line.startswith("{")]

    def of(self, event: str) -> list[dict[str, Any]]:
        """The records of one event."""
        return [record for record in self.events if record["event"] == event]

    def wait_for_event(self, event: str, count: int = 1, timeout: float = 60) -> dict[str, Any]:
        """Wait until an event has been logged so often; gives the last one."""

        def found() -> list[dict[str, Any]] | None:
            assert self.process.poll() is None or self.of(event), self.log.read_text()
            records = self.of(event)
            return records if len(records) >= count else None

        return wait_for(found, timeout, f"{event} in {self.log}")[-1]

    def stop(self, timeout: float = 60) -> int:
        """Ask it to stop; gives its exit code."""
        self.process.terminate()
        return self.process.wait(timeout)


@contextlib.contextmanager
def listeners(addresses: list[tuple[str, int]]) -> Iterator[set[tuple[str, int]]]:
    """Listen on each (loopback address, port; 0 = any free) and give what was opened."""
    with contextlib.ExitStack() as stack:
        opened = set()
        for host, port in addresses:
            family = socket.AF_INET6 if ":" in host else socket.AF_INET
            sock = stack.enter_context(socket.socket(family, socket.SOCK_STREAM))
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.bind((host, port))
            sock.listen(128)
            opened.add((host, sock.getsockname()[1]))
        yield opened
