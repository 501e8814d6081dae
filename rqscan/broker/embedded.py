"""The embedded Redis of a home, as its users see it: have it, keep it, let it go.

Every process that uses the home holds a shared lock on ``users.lock`` for as long as it lives.
``keeper.lock`` is taken by who starts a keeper (`rqscan.broker.keeper`) and handed on to it and to
its server: while either lives there is no second server on the same data, and a lock that is free
again tells that they ended. The keeper stops its server once it gets ``users.lock`` alone. The
locks are the kernel's: no SIGKILL leaves one behind.
"""

import fcntl
import hashlib
import os
import socket
import stat
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

from rqscan.errors import HomeUnavailable, RedisUnavailable, RqscanError
from rqscan.settings import Settings

__all__ = [
    "ensure", "folder_of", "hand_on", "open_lock", "release", "revive", "revive_own",
    "socket_path", "try_lock",
]  # fmt: skip

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
        while not try_lock(users, fcntl.LOCK_SH):  # a keeper holds it until its server has ended
            _pause(home, deadline)
        _held[home] = users
    is_started = False
    while (answer := _ask(home)) in {"", "-LOADING"}:
        if answer:  # it loads its data, however long
            deadline = time.monotonic() + _START_S
        elif not is_started:
            is_started = revive(home)
        elif not _is_kept(home):
            log = (folder_of(home) / "log").read_text(errors="replace")
            reason = log.strip().rpartition("\n")[2]
            raise RedisUnavailable(f"the embedded Redis of {home} does not start: {reason}")
        _pause(home, deadline)
    return socket_path(home)


def hand_on() -> list[int]:
    """Let what this process holds pass an exec; give the descriptors."""
    for users in _held.values():
        os.set_inheritable(users, True)  # noqa: FBT003 - its own signature
    return [*_held.values()]


def release(home: Path, *, wait: bool = False) -> None:
    """Let the home's server go; with `wait`, see it gone (≤ 10 s) unless others still use it."""
    home = home.absolute()
    if (users := _held.pop(home, None)) is None:
        return
    is_last = try_lock(users, fcntl.LOCK_EX)
    os.close(users)
    deadline = time.monotonic() + _STOP_S
    while wait and is_last and _is_kept(home) and time.monotonic() < deadline:
        time.sleep(_POLL_S)


def revive(home: Path) -> bool:
    """Start a keeper, detached from us, unless one or its server lives; tell whether it did.

    It never waits: whose server died calls it and looks again.
    """
    home = home.absolute()
    kept = open_lock(home, "keeper.lock")
    try:
        if not try_lock(kept, fcntl.LOCK_EX):
            return False
        with (folder_of(home) / "log").open("ab") as log:
            if log.tell() > _LOG_BYTES:
                log.truncate(0)
            command = '"$0" -m rqscan.broker.keeper "$@" &'
            subprocess.run(  # by a shell that ends at once, so that the keeper is nobody's child
                ["/bin/sh", "-c", command, sys.executable, home, str(kept)],
                check=True,
                cwd=Path(__file__).parents[2],  # where -m finds rqscan
                umask=0o077,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                pass_fds=[kept],
            )
        return True
    finally:
        os.close(kept)


def revive_own(settings: Settings) -> None:
    """Do the same if the embedded server is the one in use, and bear that it fails: look again."""
    if settings.redis.url is None:
        with suppress(OSError, subprocess.SubprocessError, RqscanError):
            revive(Path(settings.home))


def folder_of(home: Path) -> Path:
    """Give the folder of the home's server; `open_lock` makes it, for its owner only."""
    return home / "redis"


def socket_path(home: Path) -> Path:
    """Give the path of the server's socket; a home with a long path has it in a short folder.

    Raises:
        HomeUnavailable: the short folder belongs to someone else.
    """
    path = folder_of(home) / "redis.sock"
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
    """Open a lock file in the home's folder; the lock ends with the last copy of the descriptor.

    Raises:
        HomeUnavailable: the folder cannot be made, or not be written.
    """
    folder = folder_of(home)
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        folder.chmod(0o700)
        return os.open(folder / name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise HomeUnavailable(
            f"cannot write the state folder {home} ({error.strerror}); make it writable, or set "
            "RQSCAN_HOME to another folder"
        ) from error


def try_lock(descriptor: int, how: int) -> bool:
    """Take a lock (`fcntl.LOCK_SH` or `LOCK_EX`) if that is possible at once."""
    try:
        fcntl.flock(descriptor, how | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _is_kept(home: Path) -> bool:
    """Tell whether a keeper or its server lives."""
    lock = open_lock(home, "keeper.lock")
    try:
        return not try_lock(lock, fcntl.LOCK_EX)
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


def _pause(home: Path, deadline: float) -> None:
    if time.monotonic() > deadline:
        raise RedisUnavailable(
            f"the embedded Redis of {home} did not answer within {_START_S:.0f} s; its log is "
            f"{folder_of(home)}/log"
        )
    time.sleep(_POLL_S)
