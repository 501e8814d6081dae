"""Network namespaces, each with a loopback of its own and no way out.

A namespace lives as long as the process that holds it; the kernel takes its interfaces with it.
Addresses are those set aside for documentation.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.servers import wait_for

ROOT = Path(__file__).parents[2]
HELD_S = "1200"  # a holder that outlives its test run ends by itself


class Namespace:
    """One network namespace: commands and Python programs run inside it."""

    def __init__(self, outer: "Namespace | None" = None) -> None:
        needs_user = outer is None and os.geteuid() != 0
        user = ["--user", "--map-root-user"] if needs_user else []
        self._enter_user = ["--user", "--preserve-credentials"] if os.geteuid() != 0 else []
        argv = ["unshare", *user, "--net", "sleep", HELD_S]
        self._holder = subprocess.Popen(outer.inside(argv) if outer else argv)
        self.pid = self._holder.pid
        self._children: list[subprocess.Popen] = []
        try:
            wait_for(self._is_ready, 20)
            self.run("ip link set lo up")
        except BaseException:
            self.close()
            raise

    def _is_ready(self) -> bool:
        if self._holder.poll() is not None:
            raise OSError("unshare was refused")
        return Path(f"/proc/{self.pid}/comm").read_text().strip() == "sleep"

    def inside(self, argv: list[str]) -> list[str]:
        return ["nsenter", "--target", str(self.pid), *self._enter_user, "--net", *argv]

    def set(self, name: str, value: str) -> None:
        """Set a kernel parameter of the namespace; `sysctl` is not everywhere."""
        self.run("sh -c", f"echo {value} > /proc/sys/{name}")

    def run(self, *words: str) -> str:
        """Run a command inside to its end; give what it printed."""
        argv = self.inside([*words[0].split(), *words[1:]])
        done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=60)
        assert done.returncode == 0, f"{words}: {done.stderr or done.stdout}"
        return done.stdout

    def python(self, program: str, *args: str) -> subprocess.Popen:
        """Start a Python program inside, with warnings as errors; its stdin and stdout are ours."""
        child = subprocess.Popen(
            self.inside([sys.executable, "-W", "error", "-c", program, *args]),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | {"PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"},
        )
        self._children.append(child)
        return child

    def close(self) -> None:
        for process in [*self._children, self._holder]:
            process.kill()
            process.communicate()


@pytest.fixture
def namespace() -> Iterator[Callable[..., Namespace]]:
    """Give a maker of namespaces; those with `outer` can be linked to it."""
    made: list[Namespace] = []

    def make(outer: Namespace | None = None) -> Namespace:
        made.append(Namespace(outer))
        return made[-1]

    why = None
    if missing := [
        tool for tool in ("unshare", "nsenter", "ip", "iptables") if not shutil.which(tool)
    ]:
        why = f"missing: {', '.join(missing)}"
    else:
        try:
            make().run("iptables -L -n")
        except (AssertionError, OSError) as error:
            why = f"neither root nor user namespaces: {error}"
    if why and os.environ.get("CI"):
        pytest.fail(why)
    if why:
        pytest.skip(why)
    yield make
    for one in reversed(made):
        one.close()


@pytest.fixture
def two_hosts(namespace) -> tuple[Namespace, Namespace]:
    """Give a scanner at 192.0.2.1 and a target that has 192.0.2.10 to .19, on one wire."""
    scanner = namespace()
    target = namespace(scanner)
    scanner.run("ip link add wire type veth peer name wire netns", str(target.pid))
    for one, last in ((scanner, 1), (target, 2)):
        one.run(f"ip link set wire address 02:00:00:00:00:0{last}")
        one.run("ip link set wire up")
    scanner.run("ip address add 192.0.2.1/24 dev wire")
    scanner.run("ip address add 2001:db8::1/64 dev wire nodad")
    for last in range(10, 20):
        target.run(f"ip address add 192.0.2.{last}/24 dev wire")
    target.run("ip address add 2001:db8::10/64 dev wire nodad")
    # neighbour discovery takes its time on a fresh link
    scanner.run("ip neigh add 2001:db8::10 lladdr 02:00:00:00:00:02 dev wire")
    target.run("ip neigh add 2001:db8::1 lladdr 02:00:00:00:00:01 dev wire")
    # Each refusal is told; newer kernels limit them by namespace too.
    target.set("net/ipv4/icmp_ratelimit", "0")
    for name in ("icmp_msgs_burst", "icmp_msgs_per_sec"):
        path = f"/proc/sys/net/ipv4/{name}"
        target.run("sh -c", f"[ ! -e {path} ] || echo 100000 > {path}")
    return scanner, target
