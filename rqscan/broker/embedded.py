"""The embedded Redis of a home, as its users see it: have it, keep it, let it go.

Every process that uses the home holds a shared lock on ``users.lock`` for as long as it lives.
The keeper (`rqscan.broker.keeper`) holds ``keeper.lock``, which its server inherits, so that there
is never a second server on the same data; it stops the server once it gets ``users.lock`` alone.
The locks are the kernel's: no SIGKILL leaves one behind.
"""

import fcntl
import hashlib
import os
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from rqscan.errors import HomeUnavailable, RedisUnavailable

__all__ = ["ensure", "folder_of", "open_lock", "release", "revive", "socket_path", "try_lock"]

_START_S = 20.0  # until a server answers; one that says it is loading its data is waited for
_STOP_S = 10.0
_POLL_S = 0.01
_LOG_BYTES = 1_000_000  # a longer log is begun anew
_SOCKET_BYTES = 100  # the kernel's limit is 107

_held: dict[Path, int] = {}  # home → descriptor of this process' lock on users.lock


def ensure(home: Path) -> Path:
    """Give the socket of the home's running server, started if need be; hold it until `release`.

    Raises:
        HomeUnavailable: the home cannot be made or written.
        RedisUnavailable: no server was found, or it does not answer in time.
    """
    home = home.absolute()
    deadline = time.monotonic() + _START_S
    if home not in _held:
        users = open_lock(home, "users.lock")
        # a keeper that is stopping its server holds the lock until it has ended
        _wait(lambda: try_lock(users, fcntl.LOCK_SH), home, deadline)
        _held[home] = users
    start = open_lock(home, "start.lock")  # of several starters, one spawns
    try:
        _wait(lambda: try_lock(start, fcntl.LOCK_EX), home, deadline)
        if _ask(home) in {"", "-LOADING"}:
            _start(home, deadline)
    finally:
        os.close(start)
    return socket_path(home)


def release(home: Path, *, wait: bool = False) -> None:
    """Let the home's server go; with `wait`, see it gone (≤ 10 s) unless others still use it."""
    home = home.absolute()
    if home in _held:
        os.close(_held.pop(home))
    deadline = time.monotonic() + _STOP_S
    while wait and _is_kept(home) and not _has_users(home) and time.monotonic() < deadline:
        time.sleep(_POLL_S)


def revive(home: Path) -> None:
    """Start the server again if it died under its users; never waits, so call it and look again."""
    home = home.absolute()
    if not _is_kept(home):
        os.close(_spawn(home))


def folder_of(home: Path) -> Path:
    """Give the folder of the home's server, made for its owner only.

    Raises:
        HomeUnavailable: it cannot be made.
    """
    folder = home / "redis"
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        folder.chmod(0o700)
    except OSError as error:
        raise _unwritable(home, error) from error
    return folder


def socket_path(home: Path) -> Path:
    """Give the path of the server's socket; a home with a long path has it in a short folder.

    Raises:
        HomeUnavailable: the short folder belongs to someone else.
    """
    path = home / "redis" / "redis.sock"
    if len(os.fsencode(path)) <= _SOCKET_BYTES:
        return path
    name = hashlib.blake2b(os.fsencode(home), digest_size=8).hexdigest()
    # not in TMPDIR, which differs between the commands of one home
    folder = Path(f"/tmp/rqscan-{os.geteuid()}-{name}")  # noqa: S108 - checked to be ours alone
    with suppress(FileExistsError):
        folder.mkdir(mode=0o700)
    found = folder.lstat()
    if (found.st_uid, found.st_mode) != (os.geteuid(), stat.S_IFDIR | stat.S_IRWXU):
        raise HomeUnavailable(
            f"the folder {folder} for the socket of {home} is open to others; remove it, or set "
            "RQSCAN_HOME to a shorter path"
        )
    return folder / path.name


def open_lock(home: Path, name: str) -> int:
    """Open a lock file of the home; the lock ends with the descriptor, which exec closes.

    Raises:
        HomeUnavailable: it cannot be opened for writing.
    """
    try:
        return os.open(folder_of(home) / name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise _unwritable(home, error) from error


def try_lock(descriptor: int, how: int) -> bool:
    """Take a lock (`fcntl.LOCK_SH` or `LOCK_EX`) if that is possible at once."""
    try:
        fcntl.flock(descriptor, how | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _unwritable(home: Path, error: OSError) -> HomeUnavailable:
    return HomeUnavailable(
        f"cannot write the state folder {home} ({error.strerror}); make it writable, or set "
        "RQSCAN_HOME to another folder"
    )


def _is_kept(home: Path) -> bool:
    """Tell whether a keeper or its server lives."""
    lock = open_lock(home, "keeper.lock")
    try:
        return not try_lock(lock, fcntl.LOCK_EX)
    finally:
        os.close(lock)


def _has_users(home: Path) -> bool:
    """Tell whether a process uses the home; a keeper that is stopping its server is none."""
    lock = open_lock(home, "users.lock")
    try:
        return not try_lock(lock, fcntl.LOCK_EX) and try_lock(lock, fcntl.LOCK_SH)
    finally:
        os.close(lock)


def _ask(home: Path) -> str:
    """Give the first word of the server's answer to PING, empty if there is none."""
    with socket.socket(socket.AF_UNIX) as link:
        link.settimeout(1)
        try:
            link.connect(str(socket_path(home)))
            link.sendall(b"PING\r\n")
            return link.recv(100).decode(errors="replace").partition(" ")[0]
        except OSError:
            return ""


def _wait(condition: Callable[[], bool], home: Path, deadline: float) -> None:
    while not condition():
        if time.monotonic() > deadline:
            raise RedisUnavailable(
                f"the embedded Redis of {home} did not answer within {_START_S:.0f} s; its log is "
                f"{home}/redis/log"
            )
        time.sleep(_POLL_S)


def _start(home: Path, deadline: float) -> None:
    """Wait until the server answers, however long it loads its data; spawn a keeper if need be."""
    keeper = _spawn(home)

    def answers_or_ends() -> bool:
        return _ask(home) != "" or (_has_ended(keeper) and not _is_kept(home))

    try:
        _wait(answers_or_ends, home, deadline)
        while (reply := _ask(home)) == "-LOADING":
            time.sleep(_POLL_S)
    finally:
        os.close(keeper)
    if not reply:
        lines = (home / "redis" / "log").read_text(errors="replace").split("\n")
        reason = next((line for line in reversed(lines) if line.strip()), "it wrote no log")
        raise RedisUnavailable(f"the embedded Redis of {home} does not start: {reason}")


def _spawn(home: Path) -> int:
    """Start a keeper, detached from us; give a pipe that ends when it does."""
    alive, keepers_end = os.pipe2(os.O_NONBLOCK)
    with (folder_of(home) / "log").open("ab") as log:
        if log.tell() > _LOG_BYTES:
            log.truncate(0)
        subprocess.run(  # by a shell that ends at once, so that the keeper is nobody's child
            ["/bin/sh", "-c", '"$0" -m rqscan.broker.keeper "$1" &', sys.executable, home],
            check=True,
            cwd=Path(__file__).parents[2],  # where -m finds rqscan
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
            pass_fds=[keepers_end],
        )
    os.close(keepers_end)
    return alive


def _has_ended(keeper: int) -> bool:
    try:
        return os.read(keeper, 1) == b""
    except BlockingIOError:
        return False
