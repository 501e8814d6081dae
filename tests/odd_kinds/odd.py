import contextlib
import ctypes
import gc
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

from msgspec import Struct

from rqscan import clock
from rqscan.errors import UsageError
from rqscan.model import Observation
from rqscan.scan.kinds import kind

FOLDER = Path(os.environ.get("ODD_FOLDER", "."))
LONG_S = 300


class Params(Struct, frozen=True, forbid_unknown_fields=True):
    ports: str = "1"  # `rqscan scan -p`: what a test wants to say


def odd(**limits):
    def register(function):
        name = function.__name__
        return kind(name, params=Params, probes_per_host=lambda _: 100, **limits)(function)

    return register


def wait(seconds=LONG_S):
    threading.Event().wait(seconds)


def seen(host, **data):
    return Observation(host=host, state="open", data=data, observed_at=clock.now())


@odd()
def swallow(addresses, params, run):
    while True:
        with contextlib.suppress(Exception):
            wait(0.01)
    yield


@odd()
def stubborn(addresses, params, run):
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    (FOLDER / "stubborn").touch()
    wait()
    yield


@odd()
def polite(addresses, params, run):
    def leave(*_):
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, leave)
    (FOLDER / "polite").touch()
    wait()
    yield


@odd()
def family(addresses, params, run):
    """Start children: in its group, in a session of its own, and an orphan in one of its own."""
    for argv in (["sleep"], ["setsid", "sleep"], ["sh", "-c", 'setsid sleep "$0" &']):
        subprocess.Popen([*argv, params.ports])
    tidy = (
        f"trap 'touch {FOLDER}/tidied; exit' TERM; touch {FOLDER}/ready; sleep {params.ports}&wait"
    )
    subprocess.Popen(["sh", "-c", tidy])
    wait()
    yield


@odd()
def leaves(addresses, params, run):
    """Finish, with a child that stays."""
    subprocess.Popen(["setsid", "sleep", params.ports])
    yield seen(addresses[0], pid=os.getpid())


@odd(stall_timeout_s=1)
def deadlock(addresses, params, run):
    run.advance(1)
    lock = threading.Lock()
    lock.acquire()
    lock.acquire()
    yield


@odd(stall_timeout_s=1)
def hang(addresses, params, run):
    """Hang in C, with the interpreter's lock held: no Python handler of a signal ever runs."""
    mutex = ctypes.create_string_buffer(256)
    for _ in range(2):
        ctypes.PyDLL(None).pthread_mutex_lock(mutex)
    yield


@odd(stall_timeout_s=4)  # more than a machine at its limit lets pass between two steps
def slow(addresses, params, run):
    for _ in range(35):
        wait(0.2)
        run.advance(10)  # past what was planned too
    yield seen(addresses[0])


@odd(retries=2)
def flaky(addresses, params, run):
    """Fail as often as `ports` says, then succeed."""
    with (FOLDER / "flaky").open("a+") as file:
        file.write("x")
        tries = file.tell()
    if tries <= int(params.ports):
        raise OSError(f"try {tries} fails")
    yield seen(addresses[0])


@odd(retries=5)
def wrong(addresses, params, run):
    raise UsageError("it will never do")
    yield


@odd()
def modules(addresses, params, run):
    yield seen(addresses[0], pid=os.getpid(), modules=sorted(sys.modules))


class Litter:
    def __init__(self):
        self.myself = self


@odd()
def litters(addresses, params, run):
    """Leave 5,000 objects behind that only the collector finds, and tell how many there are."""
    for _ in range(5_000):
        Litter()
    yield seen(addresses[0], left=sum(type(one) is Litter for one in gc.get_objects()))


@odd()
def greedy(addresses, params, run):
    taken = []
    while True:
        taken.append(bytearray(10_000_000))
    yield


@odd()
def signalled(addresses, params, run):
    os.kill(os.getpid(), int(params.ports))
    yield


@odd()
def patricide(addresses, params, run):
    os.kill(os.getppid(), signal.SIGKILL)
    signal.pause()  # our own end is on its way
    yield


@kind("rows", params=Params, probes_per_host=lambda _: 65_536)  # one address a chunk
def rows(addresses, params, run):
    """See as many ports as `ports` says, after a while."""
    wait(0.1)
    run.advance(65_536)
    for port in range(1, int(params.ports) + 1):
        yield Observation(
            host=addresses[0], port=port, state="open", data={}, observed_at=clock.now()
        )
