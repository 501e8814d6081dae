"""Processes of the bench: started in a folder of their own, measured whole, ended by pid."""

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Self

import psutil
import redis

from tests.servers import DIE_WITH_US, RedisServer

__all__ = ["RIG", "Cpu", "Fleet", "Rig"]

RIG = Path(__file__).resolve().parent
ROOT = RIG.parents[1]
CLIENT_S = 60
STOP_S = 5


class Cpu(dict[str, float]):
    """CPU seconds by role; their difference is what was used in between."""

    def __sub__(self, other: "Cpu") -> "Cpu":
        return Cpu({role: used - other.get(role, 0.0) for role, used in self.items()})


class Rig:
    """One private Redis without persistence, and what runs against it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.server = RedisServer(folder, None, "--appendonly", "no").start()
        self.client: redis.Redis = self.server.client()

    def environ(self, extra: dict[str, str], url: str | None = None) -> dict[str, str]:
        """Give the environment of clients and workers; `url` is where they find Redis."""
        url = url or self.server.url
        kept = {key: value for key, value in os.environ.items() if not key.startswith("RQSCAN_")}
        return (
            kept
            | {
                "PYTHONPATH": f"{ROOT}:{RIG / 'clients'}",
                "BENCH_REDIS": url,
                "BENCH_STAMP": str(self.folder / "stamp"),
                "RQSCAN_CONFIG": str(RIG / "rqscan.toml"),
                "RQSCAN_REDIS_URL": url,
                "RQSCAN_HOME": str(self.folder / "home"),
            }
            | extra
        )

    def fresh(self) -> None:
        """Forget all of an earlier run."""
        self.client.flushall()
        for path in [self.folder / "stamp", *(self.folder / "home").glob("*")]:
            path.unlink(missing_ok=True)

    def drive(self, python: str, *arguments: str, env: dict[str, str], timeout_s: float) -> str:
        """Run a client to its end and give what it printed."""
        done = subprocess.run(
            [python, str(RIG / "clients/drive.py"), *arguments],
            env=env, cwd=self.folder, capture_output=True, text=True, timeout=timeout_s,
            check=False,
        )  # fmt: skip
        if done.returncode:
            raise RuntimeError(f"client {arguments} failed: {done.stderr[-2000:]}")
        return done.stdout

    def redis_cpu_s(self) -> float:
        used: dict[str, Any] = self.client.info("cpu")
        return float(used["used_cpu_user"]) + float(used["used_cpu_sys"])

    def executed(self) -> int:
        """Count the commands that Redis has executed, those of scripts included."""
        stats: dict[str, Any] = self.client.info("commandstats")
        return sum(stat["calls"] for stat in stats.values())


class Fleet:
    """The worker processes of one contender, with all that they start."""

    def __init__(self, rig: Rig, commands: list[list[str]], env: dict[str, str]) -> None:
        self._log = (rig.folder / "workers.log").open("w+b")
        self._rig = rig
        self.processes = [
            subprocess.Popen(
                [sys.executable, "-ISc", DIE_WITH_US, str(os.getpid()), command[0], *command],
                env=env, cwd=rig.folder, stdin=subprocess.DEVNULL, stdout=self._log,
                stderr=self._log, start_new_session=True,
            )
            for command in commands
        ]  # fmt: skip

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        everybody = self._tree()
        for started in self.processes:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(started.pid, signal.SIGKILL)  # a session of its own, not reaped yet
        for process in everybody:
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()  # psutil knows a pid that is another's by now
        for started in self.processes:
            started.wait(STOP_S)
        psutil.wait_procs(everybody, STOP_S)
        self._log.close()

    def wait_for(self, is_so: Callable[[], bool], timeout_s: float, every_s: float = 0.005) -> bool:
        """Wait until it is so; False when it was not in time."""
        deadline = time.monotonic() + timeout_s
        while not is_so():
            if any(process.poll() is not None for process in self.processes):
                self._log.seek(0)
                raise RuntimeError(f"a worker has ended: {self._log.read()[-2000:].decode()}")
            if time.monotonic() > deadline:
                return False
            time.sleep(every_s)
        return True

    def cpu(self) -> Cpu:
        """Give CPU seconds: `main` of the processes started here, `below` of all under them."""
        used = Cpu(main=0.0, below=0.0, gone=0.0, redis=self._rig.redis_cpu_s())
        roots = {process.pid for process in self.processes}
        for process, times in self._each(lambda process: process.cpu_times()):
            used["main" if process.pid in roots else "below"] += times.user + times.system
            used["gone"] += times.children_user + times.children_system
        return used

    def pss_bytes(self) -> int:
        """Give the proportional set size of the whole tree."""

        def pss(process: psutil.Process) -> int:
            rollup = Path(f"/proc/{process.pid}/smaps_rollup").read_text("ascii")
            return next(int(s.split()[1]) for s in rollup.splitlines() if s.startswith("Pss:"))

        return 1024 * sum(size for _, size in self._each(pss))

    def _each(self, ask: Callable[[psutil.Process], Any]) -> Iterator[tuple[psutil.Process, Any]]:
        for process in self._tree():
            with contextlib.suppress(psutil.NoSuchProcess, OSError, StopIteration):
                yield process, ask(process)

    def _tree(self) -> list[psutil.Process]:
        found = []
        for started in self.processes:
            with contextlib.suppress(psutil.NoSuchProcess):
                root = psutil.Process(started.pid)
                found += [root, *root.children(recursive=True)]
        return found


@contextlib.contextmanager
def rig() -> Iterator[Rig]:
    with tempfile.TemporaryDirectory(prefix="rqb") as folder:
        made = Rig(Path(folder))
        try:
            yield made
        finally:
            made.server.close()
