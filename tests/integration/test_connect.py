"""The engine against real sockets: loopback, and namespaces where the kernel must be starved."""

import json
import os
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections import Counter
from contextlib import ExitStack
from itertools import islice
from pathlib import Path

import pytest

from rqscan.probe.connect import ProbeResult, scan_ports
from rqscan.states import ProbeState
from tests.servers import wait_for


def anyone(address):
    return True


def nobody(address):
    return False


def scan(addresses, ports, *, may_dial=anyone, **options):
    """Scan, and tell state and reason by (host, port)."""
    return {
        (host, port): (str(state), reason)
        for host, port, state, reason, _ in scan_ports(
            addresses, ports, may_dial=may_dial, **options
        )
    }


def listener(host="127.0.0.1", backlog=16):
    """Give a listening socket on a free port, and the port."""
    sock = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    sock.bind((host, 0))
    sock.listen(backlog)
    return sock, sock.getsockname()[1]


def closed_port(host="127.0.0.1"):
    """Give a port that nobody can listen on meanwhile, and the socket that holds it."""
    sock = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    sock.bind((host, 0))
    return sock, sock.getsockname()[1]


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_open_and_closed(host):
    with ExitStack() as held:
        is_open, is_closed = {}, {}
        for _ in range(20):
            for make, ports in ((listener, is_open), (closed_port, is_closed)):
                sock, port = make(host)
                held.enter_context(sock)
                ports[port] = sock
        results = list(scan_ports([host], [*is_open, *is_closed], may_dial=anyone))
    assert {r.port for r in results if r.state is ProbeState.OPEN} == set(is_open)
    assert len(results) == 40
    assert ProbeResult(host, min(is_closed), ProbeState.CLOSED, "refused", 1) in results
    assert ProbeResult(host, min(is_open), ProbeState.OPEN, "accepted", 1) in results


def test_every_probe_of_every_host_is_told_once_and_progress_adds_up():
    hosts, ports, told = [f"127.0.0.{i}" for i in range(1, 8)], range(1, 200), []
    seen = Counter(
        (r.host, r.port) for r in scan_ports(hosts, ports, may_dial=anyone, advance=told.append)
    )
    assert seen == Counter({(host, port): 1 for host in hosts for port in ports})
    assert sum(told) == len(hosts) * len(ports)
    assert min(told) > 0


def test_hosts_and_ports_come_interleaved():
    hosts = ["127.0.0.1", "127.0.0.2"]
    first = list(islice(scan_ports(hosts, range(1, 1001), may_dial=anyone), 100))
    assert 25 < sum(r.host == hosts[0] for r in first) < 75
    assert len({r.port for r in first if r.port > 500}) > 25


def test_a_port_that_resets_what_it_accepts_is_open():
    sock, port = listener(backlog=64)
    stop = threading.Event()

    def reset_all():
        sock.settimeout(0.05)
        while not stop.is_set():
            try:
                accepted, _ = sock.accept()
            except OSError:
                continue
            accepted.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            accepted.close()

    thread = threading.Thread(target=reset_all)
    thread.start()
    try:
        verdicts = Counter(scan(["127.0.0.1"], [port])["127.0.0.1", port] for _ in range(200))
    finally:
        stop.set()
        thread.join()
        sock.close()
    assert set(verdicts) <= {("open", "accepted"), ("open", "reset")}


def test_a_denied_host_gets_no_packet_and_one_result():
    asked = []

    def may_dial(address):
        asked.append(address)
        return address != "127.0.0.2"

    told = []
    with listener("127.0.0.2")[0] as denied, listener("127.0.0.3")[0] as allowed:
        ports = [denied.getsockname()[1], allowed.getsockname()[1]]
        hosts = ["127.0.0.2", "127.0.0.3"]
        results = list(scan_ports(hosts, ports, may_dial=may_dial, advance=told.append))
        for sock in (denied, allowed):
            sock.setblocking(False)
        allowed.accept()[0].close()  # the scan did reach the other one
        with pytest.raises(BlockingIOError):
            denied.accept()
    assert [r for r in results if r.host == "127.0.0.2"] == [
        ProbeResult("127.0.0.2", None, ProbeState.UNKNOWN, "out-of-scope", 0)
    ]
    assert sorted(asked) == hosts
    assert sum(told) == 4


def test_only_denied_hosts_and_nothing_at_all():
    assert scan(["127.0.0.2"], [1], may_dial=nobody) == {
        ("127.0.0.2", None): ("unknown", "out-of-scope")
    }
    assert scan([], [1]) == scan(["127.0.0.1"], []) == {}


def test_a_name_is_refused_rather_than_looked_up():
    with pytest.raises(ValueError, match="localhost"):
        scan(["localhost"], [1])


def test_a_scan_given_up_leaves_no_descriptor():
    before = len(list(Path("/proc/self/fd").iterdir()))
    running = scan_ports(["127.0.0.1"], range(1, 1000), may_dial=anyone)
    next(running)
    running.close()
    assert len(list(Path("/proc/self/fd").iterdir())) == before


# What follows runs in a child or a namespace of its own.

SCAN = """
import json, sys
from rqscan.probe.connect import scan_ports
from rqscan.probe import timing
def scan(addresses, ports, **options):
    return scan_ports(addresses, ports, may_dial=bool, **options)
def told(results):
    print(json.dumps([list(r) for r in results]))
"""


def child(program, **options):
    root = str(Path(__file__).parents[2])
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", SCAN + program],
        capture_output=True, text=True, check=False, timeout=60,
        env=os.environ | {"PYTHONPATH": root}, **options,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_too_few_descriptors_delay_and_never_decide():
    with ExitStack() as held:
        socks = [listener() for _ in range(30)]
        for sock, _ in socks:
            held.enter_context(sock)
        ports = [port for _, port in socks]
        results = child(f"""
import os, resource, threading
resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
running = scan(["127.0.0.1"], [*range(1, 500), *{ports}])
results = [next(running)]
taken = []
try:
    while True:
        taken.append(os.open("/dev/null", os.O_RDONLY))  # all that was left
except OSError:
    pass
def give_back():
    for fd in taken: os.close(fd)
timer = threading.Timer(0.5, give_back)
timer.start()
results += running
timer.join()
told(results)
""")
    assert len(results) == 529
    assert {r[1] for r in results if r[2] == "open"} >= set(ports)
    assert {r[2] for r in results} == {"open", "closed"}


def test_descriptors_that_never_come_back_end_as_our_own_fault():
    results = child("""
import os, resource
timing.PATIENCE_S = 0.2
resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
running = scan(["127.0.0.1"], range(1, 1000))
results = [next(running)]
taken = []
try:
    while True:
        taken.append(os.open("/dev/null", os.O_RDONLY))
except OSError:
    pass
results += running
for fd in taken: os.close(fd)
told(results)
""")
    assert len(results) == 999
    assert ["unknown", "emfile", 1] in [r[2:] for r in results]
    assert {tuple(r[2:4]) for r in results} <= {("unknown", "emfile"), ("closed", "refused")}


@pytest.mark.namespaces
def test_local_ports_run_out_and_come_back(namespace):
    """All local ports lead to one open port: it is delayed, the others are not."""
    inside = namespace()
    inside.set("net/ipv4/ip_local_port_range", "40000 40099")
    running = inside.python(
        SCAN
        + """
import socket, struct
server = socket.socket()
server.bind(("127.0.0.1", 5000))
server.listen(4096)
clients = []
try:
    while True:
        client = socket.socket()
        clients.append(client)
        client.connect(("127.0.0.1", 5000))
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
except OSError:
    taken = len(clients) - 1
results = []
for result in scan(["127.0.0.1"], range(4900, 5100)):
    results.append(result)
    if len(results) == 199:  # all but one
        for client in clients: client.close()
server.close()
told([taken, r.port, *r[2:]] for r in results)
"""
    )
    results = json.loads(running.communicate(timeout=60)[0])
    assert len(results) == 200
    assert results[0][0] == 100
    assert results[-1][1:] == [5000, "open", "accepted", 1]
    assert {tuple(r[2:4]) for r in results[:-1]} == {("closed", "refused")}


@pytest.mark.namespaces
def test_the_whole_ephemeral_range_has_the_one_open_port_that_it_has(namespace):
    running = namespace().python(
        SCAN
        + """
import socket
from pathlib import Path
low, high = map(int, Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split())
with socket.socket() as sock:
    sock.bind(("127.0.0.1", 0))
    sock.listen(8)
    print(sock.getsockname()[1], high - low + 1)
    told(scan(["127.0.0.1"], range(low, high + 1)))
"""
    )
    first, second = running.communicate(timeout=60)[0].splitlines()
    port, size = map(int, first.split())
    results = json.loads(second)
    assert len(results) == size
    assert [r[1:] for r in results if r[2] != "closed"] == [[port, "open", "accepted", 1]]


@pytest.mark.namespaces
def test_self_connects_are_dialled_again(namespace):
    """With 20 local ports to choose from, many of these dials meet themselves."""
    inside = namespace()
    inside.set("net/ipv4/ip_local_port_range", "40000 40019")
    running = inside.python(
        SCAN + 'told(r for i in range(30) for r in scan(["127.0.0.1"], range(40000, 40020)))'
    )
    results = json.loads(running.communicate(timeout=60)[0])
    assert len(results) == 600
    assert {tuple(r[2:]) for r in results} == {("closed", "refused", 1)}


@pytest.mark.namespaces
def test_what_this_host_refuses_is_no_fact_about_the_target(namespace):
    inside = namespace()
    for how, net in (("unreachable", 10), ("prohibit", 20), ("blackhole", 30)):
        inside.run(f"ip route add {how} 198.51.100.{net}/32")
    running = inside.python(
        SCAN + 'told(scan([f"198.51.100.{i}" for i in (10, 20, 30, 40)] + ["2001:db8::1"], [80]))'
    )
    verdicts = {r[0]: r[2:] for r in json.loads(running.communicate(timeout=60)[0])}
    assert verdicts == {
        "198.51.100.10": ["unknown", "local-ehostunreach", 1],
        "198.51.100.20": ["unknown", "local-eacces", 1],
        "198.51.100.30": ["unknown", "local-einval", 1],
        "198.51.100.40": ["unknown", "local-enetunreach", 1],
        "2001:db8::1": ["unknown", "local-enetunreach", 1],
    }


@pytest.mark.namespaces
def test_a_stopped_scanner_takes_no_answer_for_silence(namespace):
    """The answers come while the scanner is stopped, its time-outs pass meanwhile too."""
    inside = namespace()
    drop = "INPUT -p tcp --syn -j DROP"
    inside.run(f"iptables -A {drop}")
    listening = inside.python("""
import select, socket
socks = []
for port in range(5000, 5050):
    sock = socket.socket()
    sock.bind(("127.0.0.1", port))
    sock.listen(16)
    socks.append(sock)
print("ready")
while socks:  # each gets one connection
    for sock in select.select(socks, [], [])[0]:
        sock.accept()
        socks.remove(sock)
print("all came")
input()
""")
    assert listening.stdout.readline() == "ready\n"
    started = time.monotonic()
    scanning = inside.python(
        SCAN + 'told(scan(["127.0.0.1"], range(5000, 5100), timeout_s=2.5, tries=1))'
    )

    def all_sent():
        for line in inside.run("iptables -L INPUT -nvx").splitlines():
            if "DROP" in line:
                return int(line.split()[0]) >= 100
        return False

    wait_for(all_sent, 20, "all probes to be sent")
    sent_at = time.monotonic()
    os.kill(scanning.pid, signal.SIGSTOP)
    inside.run(f"iptables -D {drop}")
    assert listening.stdout.readline() == "all came\n"  # by the kernel's own second SYN
    assert sent_at - started < 20
    wait_for(lambda: time.monotonic() > sent_at + 2.6, what="every time-out to pass")
    os.kill(scanning.pid, signal.SIGCONT)
    results = json.loads(scanning.communicate(timeout=60)[0])
    assert {r[1] for r in results if r[2:4] == ["open", "accepted"]} == set(range(5000, 5050))
    assert {r[1] for r in results if r[2:4] == ["closed", "refused"]} == set(range(5050, 5100))
