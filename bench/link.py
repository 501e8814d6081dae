"""The worker's link to Redis while Redis is away: the longest turn of the loop, and the way back.

Each fault lasts for some seconds, in namespaces of this program's own: no packet leaves them. The
longest turn is what our code took, without the wait for events; on a busy machine the process also
waits for a core in it, which the CPU time does not count. `back` runs from the moment at
which the fault has ended (a killed server: at which it answers) to the link being up.
"""

import os
import random
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import redis

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from tests.loop import loop  # noqa: E402 - the tests are found from here only
from tests.servers import RedisServer, wait_for  # noqa: E402

ROUNDS = 5
AWAY_S = (3.0, 7.0)
NAME = "redis.example"


def run(*words) -> None:
    subprocess.run(words, check=True, stderr=subprocess.DEVNULL)


class Host:
    """What can go wrong on it: a server, the packets to it, the name of it."""

    def __init__(self, folder: Path) -> None:
        run("ip", "link", "set", "lo", "up")
        self.hosts = folder / "hosts"
        self.hosts.write_text("")
        run("mount", "--bind", self.hosts, "/etc/hosts")
        (folder / "resolv.conf").write_text("nameserver 127.0.0.1\n")
        run("mount", "--bind", folder / "resolv.conf", "/etc/resolv.conf")
        self.dns = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.dns.bind(("127.0.0.1", 53))  # and never answers
        run("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1",
            "-subj", "/CN=bench", "-addext", f"subjectAltName=DNS:{NAME},IP:127.0.0.1",
            "-keyout", folder / "key", "-out", folder / "cert")  # fmt: skip
        self.server = RedisServer(folder, tcp=True)
        self.server.add_tls(folder / "key", folder / "cert")
        self.server.start()

    def names(self, *names: str) -> None:
        self.hosts.write_text("".join(f"127.0.0.1 {name}\n" for name in names))

    def drop(self, verb: str, what: str) -> None:
        run("iptables", verb, "INPUT", "-p", "tcp", what, str(self.server.port), "-j", "DROP")


def measure(url: str, begin: Callable[[], None] | None, end: Callable[[], None]):
    """Give the longest turn in ms (wall, CPU), the failed tries, the time to be back in s."""
    over = threading.Event()
    with loop(redis.Redis.from_url(url)) as one:

        def turn() -> None:
            while not over.is_set():
                if one.link.is_up and not one.link.is_waiting:
                    one.link.send("PING")  # as a beat would
                one.turn()

        # The fault is made here: a server dies with the thread that has started it.
        thread = threading.Thread(target=turn)
        thread.start()
        if begin is not None:
            wait_for(lambda: one.link.is_up, what=one)
            begin()
        time.sleep(random.uniform(*AWAY_S))
        end()
        ended = time.monotonic()
        wait_for(lambda: one.link.is_up, what=one)
        back_s = time.monotonic() - ended
        over.set()
        thread.join()
        return one.longest_s * 1e3, one.longest_cpu_s * 1e3, len(one.downs), back_s


def faults(host: Host):
    server = host.server
    tcp = f"redis://{NAME}:{server.port}"
    tls = server.tls_url.replace("127.0.0.1", NAME)

    def lose_name() -> None:
        host.names()
        host.drop("-A", "--dport")

    def find_name() -> None:
        host.names(NAME)
        host.drop("-D", "--dport")

    yield "killed, unix", server.url, server.kill, server.start
    yield "killed, TCP", tcp, server.kill, server.start
    yield "killed, TLS", tls, server.kill, server.start
    yield "frozen, unix", server.url, server.freeze, server.thaw
    yield "frozen, TCP", tcp, server.freeze, server.thaw
    yield "frozen, TLS", tls, server.freeze, server.thaw
    for what, option in (("to", "--dport"), ("from", "--sport")):
        begin, end = ((lambda v=verb, o=option: host.drop(v, o)) for verb in ("-A", "-D"))
        yield f"packets {what} it dropped", tcp, begin, end
    yield "the same and its name gone", tcp, lose_name, find_name
    found = [f"r{number}.example" for number in range(ROUNDS)]
    new = "redis://r{}.example:" + str(server.port)
    yield "name new and DNS silent", new, None, lambda: host.names(*found)


def inside() -> None:
    random.seed(4)
    folder = Path(tempfile.mkdtemp(prefix="rq-", dir="/tmp"))
    try:
        host = Host(folder)
        with closing(host.server), closing(host.dns):
            print(f"{ROUNDS} rounds each     longest turn ms   CPU ms   failed tries   back s")
            for fault, url, begin, end in faults(host):
                rounds = []
                for number in range(ROUNDS):
                    host.names(NAME)
                    rounds.append(measure(url.format(number), begin, end))
                longest, cpu, failed, back = (max(column) for column in zip(*rounds, strict=True))
                print(
                    f"{fault:26} {longest:15.1f}   {cpu:6.1f}   {failed:12}   {back:14.2f}",
                    flush=True,
                )
    finally:
        shutil.rmtree(folder)


def main() -> None:
    if "inside" in sys.argv:
        inside()
        return
    tools = ("unshare", "ip", "iptables", "mount", "openssl")
    if missing := [tool for tool in tools if not shutil.which(tool)]:
        sys.exit(f"bench: not installed: {', '.join(missing)}")
    user = ["--user", "--map-root-user"] if os.geteuid() else []
    argv = ["unshare", *user, "--net", "--mount", sys.executable, __file__, "inside"]
    sys.exit(subprocess.run(argv, check=False).returncode)


if __name__ == "__main__":
    main()
