"""The fleet: workers and schedulers as real processes, each on a "host" of its own.

A host is a worker with all its children. Who dies by itself is noted and started again, as a
supervisor would; who was killed comes back when the fault says so.
"""

import os
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import psutil

from tests.servers import DIE_WITH_US

__all__ = ["Fleet", "Host", "spawn", "title"]

STEADY_S = 2.0
"""A worker that said so long ago that it is up has registered: it counts as one that lives."""

READY_S = 5.0
"""The same after something was taken from it that it needs to start a job."""


def spawn(command: list[str], log: Path, env: dict[str, str]) -> subprocess.Popen[bytes]:
    """Start a process in the run's folder that dies with us."""
    wrapped = [sys.executable, "-ISc", DIE_WITH_US, str(os.getpid()), command[0], *command]
    with log.open("ab") as stream:
        return subprocess.Popen(
            wrapped, stdin=subprocess.DEVNULL, stdout=stream, stderr=stream, env=env, cwd=log.parent
        )


class Exit(NamedTuple):
    """A process that ended though nobody had asked it to."""

    name: str
    code: int
    last_words: str


class Host:
    """One place in the fleet: a process, its name, and the address by which it sees Redis."""

    def __init__(self, role: str, slot: int, address: str, url: str) -> None:
        self.role, self.slot, self.address, self.url = role, slot, address, url
        self.env: dict[str, str] = {}  # what is not the same for all
        self.name = ""
        self.process: subprocess.Popen[bytes] | None = None
        self.started_at = self.up_at = 0.0  # monotonic; it is up once its log says so
        self.log_size = 0  # when it was started
        self.hampered_at = 0.0  # monotonic: something that it needs was taken
        self.away = ""  # why it is not one of those that serve: down, frozen, cut, stopping

    @property
    def is_alive(self) -> bool:
        return self.process is not None and self.process.poll() is None

    @property
    def is_steady(self) -> bool:
        """Tell whether it serves for sure."""
        is_up = bool(self.up_at) and time.monotonic() > self.up_at + STEADY_S
        return is_up and self.is_alive and not self.away

    @property
    def is_ready(self) -> bool:
        """Tell whether it can start a job at once, if it has a horse free."""
        return self.is_steady and time.monotonic() > self.hampered_at + READY_S

    def tree(self) -> list[psutil.Process]:
        """Give the process and all its descendants; empty if it is gone."""
        try:
            me = psutil.Process(self.process.pid) if self.process else None
            return [me, *me.children(recursive=True)] if me else []
        except psutil.NoSuchProcess:
            return []

    def templates(self) -> list[psutil.Process]:
        """Give the processes that its work-horses are forked from."""
        children = [p for p in self.tree()[1:] if self.process and p.ppid() == self.process.pid]
        return [child for child in children if "template" in title(child)]

    def kill(self) -> None:
        """SIGKILL to the process, and wait until it is gone."""
        if self.process and self.process.poll() is None:
            self.process.kill()
            self.process.wait(30)


class Fleet:
    """All hosts; `command` gives what to start for a host, which then logs the word `up`."""

    def __init__(
        self, folder: Path, command: Callable[[Host], list[str]], env: dict[str, str], up: str
    ) -> None:
        self.folder, self._command, self._env, self._up = folder, command, env, up
        self.hosts: list[Host] = []
        self.exits: list[Exit] = []
        self._names = 0
        self.starts = 0

    @property
    def workers(self) -> list[Host]:
        return [host for host in self.hosts if host.role == "worker"]

    @property
    def steady(self) -> list[Host]:
        """The workers that serve for sure."""
        return [host for host in self.workers if host.is_steady]

    def new_name(self, role: str) -> str:
        self._names += 1
        return f"{role}{self._names}"

    def start(self, host: Host, name: str = "") -> None:
        """Start a host's process, under a new name unless one is given."""
        host.name = name or self.new_name(host.role)
        env = self._env | host.env | {"RQSCAN_REDIS_URL": host.url}
        log = self._log(host)
        host.log_size = log.stat().st_size if log.exists() else 0
        host.process = spawn(self._command(host), log, env)
        host.started_at, host.up_at, host.away = time.monotonic(), 0.0, ""
        self.starts += 1

    def _log(self, host: Host) -> Path:
        return self.folder / f"{host.name}.log"

    def supervise(self) -> None:
        """See who is up; start again who ended by itself, a second after its start or later."""
        for host in self.hosts:
            if host.is_alive:
                if not host.up_at and self._up in self._said(host):
                    host.up_at = time.monotonic()
            elif host.away not in {"down", "stopping"}:
                if host.up_at and host.process:
                    last_words = self._said(host)[-400:]
                    self.exits.append(Exit(host.name, host.process.returncode, last_words))
                    host.up_at = 0.0
                if time.monotonic() > host.started_at + 1:
                    self.start(host)

    def _said(self, host: Host) -> str:
        with self._log(host).open(errors="replace") as log:
            log.seek(host.log_size)
            return log.read()

    def stop(self, role: str) -> None:
        """Ask the hosts of a role to end."""
        for host in self.hosts:
            if host.role == role and host.process and host.is_alive:
                host.away = "stopping"
                host.process.terminate()

    def close(self) -> list[str]:
        """End all that works in the run's folder; give those that outlived their worker."""
        for host in self.hosts:
            for process in host.tree():
                _signal(process.resume)
            host.kill()
        until = time.monotonic() + 5
        while (left := self._left()) and time.monotonic() < until:
            time.sleep(0.1)
        stray = [f"{process.pid} {title(process)}" for process in left]
        for process in left:
            _signal(process.kill)
        return stray

    def _left(self) -> list[psutil.Process]:
        return [p for p in psutil.process_iter() if _cwd(p) == str(self.folder)]


def _signal(send: Callable[[], None]) -> None:
    with suppress(psutil.NoSuchProcess):
        send()


def title(process: psutil.Process) -> str:
    """Give what a process calls itself; nothing if it is gone."""
    try:
        return " ".join(process.cmdline())
    except psutil.Error:
        return ""


def _cwd(process: psutil.Process) -> str:
    try:
        return process.cwd()
    except psutil.Error:
        return ""
