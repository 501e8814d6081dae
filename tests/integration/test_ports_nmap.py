"""The kind `ports` against the truth (sockets that we opened) and against nmap's connect scan."""

import json
import re
import shutil
import socket
import subprocess
from contextlib import ExitStack

import pytest

from jobs.ports import PortsParams, ports
from rqscan.model import COVERAGE
from rqscan.scan.kinds import Run
from tests.servers import missing

NMAP = [shutil.which("nmap") or "nmap", "-sT", "-T4", "-n", "-Pn", "-oG", "-"]

SCAN = """
import json, sys
from jobs.ports import PortsParams, ports
from rqscan.scan.kinds import Run
hosts, params = json.loads(sys.argv[1])
run = Run(may_dial=bool, advance=int)
seen = ports(hosts, PortsParams(**params), run)
print(json.dumps([[o.host, o.port, o.state, o.data] for o in seen]))
"""


def open_by_nmap(grepable):
    """Read nmap's grepable output: the open (host, port) pairs."""
    return {
        (host, int(port))
        for host, told in re.findall(r"^Host: (\S+) .*?Ports: (.*)$", grepable, re.MULTILINE)
        for port in re.findall(r"(\d+)/open/tcp", told)
    }


def test_the_open_set_is_nmaps_and_the_truth():
    if not shutil.which("nmap"):
        missing("nmap")
    hosts, wanted = ["127.0.0.11", "127.0.0.12", "127.0.0.13"], []
    with ExitStack() as held:
        truth = set()
        for host in hosts:
            for _ in range(10):
                sock = held.enter_context(socket.socket())
                sock.bind((host, 0))
                wanted.append(sock.getsockname()[1])
                if len(wanted) % 2:
                    sock.listen(64)
                    truth.add((host, wanted[-1]))
        text = ",".join(map(str, wanted))
        told = []
        run = Run(may_dial=bool, advance=told.append)
        seen = list(ports(hosts, PortsParams(ports=text), run))
        nmap = subprocess.run(
            [*NMAP, "-p", text, *hosts], capture_output=True, text=True, check=True, timeout=60
        )
    # another program may listen on one of these ports on every address
    mine = {(o.host, o.port) for o in seen if o.state == "open"}
    assert mine >= truth
    assert mine == open_by_nmap(nmap.stdout)
    assert sum(told) == 3 * len(set(wanted))
    assert {o.data["reason"] for o in seen if o.state == "open"} == {"accepted"}


def test_each_host_has_one_coverage_row_that_adds_up():
    with socket.socket() as sock:
        sock.bind(("127.0.0.14", 0))
        sock.listen(8)
        port = sock.getsockname()[1]
        run = Run(may_dial=lambda address: address != "127.0.0.15", advance=int)
        hosts = ["127.0.0.14", "127.0.0.15"]
        # below the ephemeral ports, where others come and go
        seen = list(ports(hosts, PortsParams(ports=f"1-9,{port}"), run))
    assert [(o.host, o.port) for o in seen if o.state == "open"] == [("127.0.0.14", port)]
    coverage = [o for o in seen if o.state == COVERAGE]
    assert seen[-2:] == coverage
    assert {o.host: o.data for o in coverage} == {
        "127.0.0.14": {"probes": 10, "counts": {"closed": {"refused": 9}}},
        "127.0.0.15": {"probes": 10, "counts": {"unknown": {"out-of-scope": 10}}},
    }
    assert {o.port for o in coverage} == {None}


@pytest.mark.namespaces
def test_hosts_that_answer_refuse_drop_and_reject(two_hosts):
    scanner, target = two_hosts
    answers, refuses, drops, rejects, nets, six = (
        "192.0.2.10", "192.0.2.11", "192.0.2.12", "192.0.2.13", "192.0.2.14", "2001:db8::10",
    )  # fmt: skip
    for host, action in (
        (drops, "DROP"),
        (rejects, "REJECT --reject-with icmp-host-prohibited"),
        (nets, "REJECT --reject-with icmp-net-unreachable"),
    ):
        target.run(f"iptables -A INPUT -p tcp -d {host} -j {action}")
    listening = target.python(f"""
import socket
socks = []
for host in ({answers!r}, {drops!r}, {rejects!r}, {six!r}):
    for port in (2000, 2010, 2030):
        sock = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
        sock.bind((host, port))
        sock.listen(64)
        socks.append(sock)
print("ready")
input()
""")
    assert listening.stdout.readline() == "ready\n"
    hosts = [answers, refuses, drops, rejects, nets, six]
    params = {"ports": "2000-2039", "timeout_ms": 500}
    done = scanner.python(SCAN, json.dumps([hosts, params])).communicate(timeout=60)[0]
    seen = json.loads(done)
    mine = {(host, port) for host, port, state, _ in seen if state == "open"}
    assert mine == {(host, port) for host in (answers, six) for port in (2000, 2010, 2030)}
    assert {host: data["counts"] for host, _, state, data in seen if state == COVERAGE} == {
        answers: {"closed": {"refused": 37}},
        refuses: {"closed": {"refused": 40}},
        drops: {"no-response": {"timeout": 40}},
        rejects: {"filtered": {"host-unreachable": 40}},
        nets: {"filtered": {"net-unreachable": 40}},
        six: {"closed": {"refused": 37}},
    }
    if shutil.which("nmap"):
        four = scanner.run(*NMAP, "-p", "2000-2039", *hosts[:-1])
        assert open_by_nmap(four) == {(host, port) for host, port in mine if host != six}
        assert open_by_nmap(scanner.run(*NMAP, "-6", "-p", "2000-2039", six)) == {
            (host, port) for host, port in mine if host == six
        }


@pytest.mark.namespaces
def test_a_silent_port_is_tried_again_on_a_new_socket(two_hosts):
    """Of the SYNs only the eleventh passes: with ten ports that is a second try."""
    scanner, target = two_hosts
    target.run(
        "iptables -A INPUT -p tcp --syn -m statistic --mode nth --every 99 --packet 10 -j ACCEPT"
    )
    target.run("iptables -A INPUT -p tcp --syn -j DROP")
    params = {"ports": "2000-2009", "timeout_ms": 300, "tries": 2}
    done = scanner.python(SCAN, json.dumps([["192.0.2.10"], params])).communicate(timeout=60)[0]
    counts = json.loads(done)[-1][3]["counts"]
    assert counts == {"closed": {"refused": 1}, "no-response": {"timeout": 9}}
    lines = target.run("iptables -L INPUT -nvx").splitlines()
    assert sum(int(line.split()[0]) for line in lines if " tcp " in line) == 20
