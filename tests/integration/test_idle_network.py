"""Rows wait for an idle network: real traffic on a wire between two namespaces."""

import json
import os
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path

import msgspec
import pytest
from msgspec.structs import replace

from rqscan.home import keep_id, known_id
from rqscan.scan.progress import read_progress
from rqscan.settings import DatabaseSettings, IdleSettings
from rqscan.store.spool import Spool
from rqscan.tally import Drainage, Go
from tests.rig import Rig
from tests.servers import wait_for
from tests.spools import a_record, in_store, plan, seen, settings_of

pytestmark = pytest.mark.namespaces

ROOT = Path(__file__).parents[2]
BOUND = 2_000_000  # bits/s
CHUNKS, ROWS = 20, 200
OUTAGE_S, PLANNED, SEEN = 600, 6_000, 20  # seconds, chunks, rows a chunk

SEND = """
import os, select, socket, time
wire = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
wire.connect(("192.0.2.1", 9))
bits, ends = 0, time.monotonic() + 1_200
while time.monotonic() < ends:
    if select.select([0], [], [], 0.01)[0]:
        bits, at = float(os.read(0, 64) or 0), time.monotonic()
    while bits and at < time.monotonic():
        wire.send(bytes(1208))  # 1250 with its headers
        at += 10_000 / bits
"""

FORWARD = """
import socket, sys, threading
def pump(source, sink):
    try:
        while data := source.recv(65536):
            sink.sendall(data)
    except OSError:
        pass
    source.close(), sink.close()
with socket.create_server(("192.0.2.10", 3306)) as listener:
    print("ready", flush=True)
    while True:
        near, far = listener.accept()[0], socket.socket(socket.AF_UNIX)
        far.connect(sys.argv[1])
        for pair in ((near, far), (far, near)):
            threading.Thread(target=pump, args=pair, daemon=True).start()
"""

JUDGE = """
import sys, threading
from rqscan.idle import SAMPLE_S, Traffic
from rqscan.tally import Link
traffic = Traffic(Link(interfaces=["wire"], below_bits_per_s=float(sys.argv[1])), 3)
while True:
    print(int(traffic.look()), traffic.words(), flush=True)
    threading.Event().wait(SAMPLE_S)
"""


class Traffic:
    """Sends to the scanner's end of the wire, at a rate that can be changed."""

    def __init__(self, scanner, target) -> None:
        scanner.run("iptables -A INPUT -p udp --dport 9 -j DROP")  # counted, and not answered
        self._sender = target.python(SEND)

    def be(self, bits_per_s: float) -> None:
        self._sender.stdin.write(f"{bits_per_s}\n")
        self._sender.stdin.flush()


@pytest.fixture
def traffic(two_hosts) -> Traffic:
    return Traffic(*two_hosts)


@pytest.fixture
def worker_side(two_hosts, settings, tmp_path):
    """Give commands on the scanner, whose rows wait for the wire."""
    rig = Rig(settings, tmp_path)
    rig.use_odd_kinds()
    rig.enter(two_hosts[0].inside([]))
    rig.env |= {
        "RQSCAN_SPOOL_MODE": "spool_first", "RQSCAN_IDLE_INTERFACES": "wire",
        "RQSCAN_IDLE_BELOW_BITS_PER_S": str(BOUND), "RQSCAN_WORKER_HEARTBEAT_S": "0.5",
    }  # fmt: skip
    yield rig
    rig.close()


def scan(rig: Rig, chunks: int, rows: int) -> None:
    argv = ("scan", f"127.0.0.1-127.0.0.{chunks}", "--kind", "rows", "-p", str(rows))
    assert rig.json(*argv)["state"] == "finished"


def shown(rig: Rig) -> dict:
    return rig.json("top", "--once")["workers"][0]["spool"]


def test_rows_go_when_the_traffic_ends_and_stay_when_it_begins(worker_side, traffic):
    rig = worker_side
    rig.env |= {"RQSCAN_SPOOL_DRAIN_ROWS_PER_S": "250"}  # some 20 s
    traffic.be(10 * BOUND)
    rig.worker("default", "-c", "4")
    scan(rig, 25, 200)

    words = " Mbit/s on wire, 2 allowed; forced in 5 min"  # once it has been measured
    held = wait_for(lambda: (x := shown(rig))["rows"] == 5000 and words in str(x["idle"]) and x)
    assert not held["idle"]["is_idle"]
    assert held["idle"]["forced_at"]
    status = rig.json("spool", "status")
    assert (status["rows"], status["idle"]["is_idle"]) == (5000, False)
    assert " Mbit/s on wire, 2 allowed; forced in " in status["idle"]["reason"]
    assert "no: " in rig.run("spool", "status").stdout

    traffic.be(0)
    wait_for(lambda: rig.json("spool", "status")["rows"] < 5000, 60)
    traffic.be(10 * BOUND)
    wait_for(lambda: (x := shown(rig))["idle"] and not x["idle"]["is_idle"], 60)
    left = rig.json("spool", "status")["rows"]
    assert left > 0
    for _ in range(3):
        assert not rig.json("spool", "status")["idle"]["is_idle"]  # looks for a second each time
    assert rig.json("spool", "status")["rows"] == left

    traffic.be(0)
    wait_for(lambda: rig.json("spool", "status")["rows"] == 0, 90)
    assert len(rig.json("results")) == 5000


def test_rows_are_forced_by_the_deadline_if_the_traffic_never_ends(worker_side, traffic):
    rig = worker_side
    rig.env |= {"RQSCAN_SPOOL_MAX_DELAY_S": "6"}
    traffic.be(10 * BOUND)
    rig.worker("default")
    scan(rig, 1, 5)
    assert rig.json("spool", "status")["rows"] == 5
    wait_for(lambda: len(rig.json("results")) == 5)


@pytest.mark.slow
@pytest.mark.timeout(1_100)
@pytest.mark.parametrize("mode", ["direct", "spool_first"])
def test_ten_minutes_without_the_database_under_load(
    worker_side, traffic, mariadb, redis_server, mode
):
    rig, url = worker_side, mariadb.database_url()
    rig.env |= {
        "RQSCAN_DATABASE_URL": url, "RQSCAN_SPOOL_MODE": mode, "RQSCAN_SPOOL_MAX_DELAY_S": "3600",
    }  # fmt: skip
    traffic.be(10 * BOUND)
    worker = rig.worker("default", "-c", "1")
    argv = ("scan", f"127.0.0.1-127.0.{PLANNED >> 8}.{PLANNED & 255}", "--kind", "rows")
    scan_id = rig.json(*argv, "-p", str(SEEN), "--no-wait")["scan_id"]

    def done() -> int:
        with redis_server.client() as client:
            counted = read_progress(client, scan_id).chunks
        assert not counted.failed
        return counted.done

    wait_for(lambda: done() > 20)
    mariadb.kill()
    back_at, before = time.monotonic() + OUTAGE_S, 0
    while time.monotonic() < back_at:
        before = wait_for(lambda least=before + 30: (n := done()) > least and n)
    assert PLANNED // 2 < before < PLANNED  # there was work all the time
    mariadb.start()
    assert worker.process.poll() is None
    wait_for(lambda: done() == PLANNED, 300)
    if mode == "spool_first":
        held = rig.json("spool", "status")
        assert (held["rows"], held["idle"]["is_idle"]) == (PLANNED * SEEN, False)
        traffic.be(0)
    wait_for(lambda: rig.json("spool", "status")["rows"] == 0, 120)
    rows, states = in_store(settings_of(rig.env["RQSCAN_HOME"], url))
    assert rows == [(chunk, port) for chunk in range(PLANNED) for port in range(1, SEEN + 1)]
    assert states == {"finished": PLANNED}
    assert rig.json("scans")[0]["state"] == "finished"


@pytest.mark.slow
def test_traffic_right_at_the_bound_does_not_flap(two_hosts, traffic):
    traffic.be(BOUND)
    judge = two_hosts[0].python(JUDGE, str(BOUND))
    lines = [judge.stdout.readline() for _ in range(20)]
    assert sum(a[0] != b[0] for a, b in pairwise(lines)) <= 1, lines
    traffic.be(10 * BOUND)
    wait_for(lambda: judge.stdout.readline().startswith("0 2"), 30)
    traffic.be(0)
    wait_for(lambda: judge.stdout.readline().startswith("1 0"), 30)


@pytest.fixture
def spooled(two_hosts, mariadb, home):
    """Give settings by which the database is at the other end of the wire, with rows for it."""
    target = two_hosts[1].python(FORWARD, str(mariadb.socket))
    assert target.stdout.readline() == "ready\n"
    beside = settings_of(home, mariadb.database_url(), mode="spool_first", drain_rows_per_s=1_000)
    plan(beside, CHUNKS)
    name = beside.database.url.partition("?")[0].rpartition("/")[2]
    settings = replace(
        beside, database=DatabaseSettings(url=f"mysql+pymysql://root@192.0.2.10/{name}"),
        idle=IdleSettings(below_bits_per_s=300_000),
    )  # fmt: skip
    keep_id(settings, known_id(beside))
    for chunk in range(CHUNKS):
        Spool(settings).append(a_record(chunk, *(seen(chunk * ROWS + n) for n in range(ROWS))))
    return settings, beside


def drain_within(namespace, settings) -> Drainage:
    argv = [sys.executable, "-m", "rqscan.fleet.drain_chore", "drain", str(os.getpid())]
    done = subprocess.run(
        namespace.inside(argv), input=msgspec.msgpack.encode((settings, Go.WHILE_IDLE)),
        capture_output=True, check=False, timeout=90, env=os.environ | {"PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return msgspec.convert(json.loads(done.stdout), Drainage)


def test_a_drain_does_not_give_way_to_its_own_bytes(two_hosts, spooled):
    settings, beside = spooled
    before = two_hosts[0].run("ip -s -j link show wire")
    done = drain_within(two_hosts[0], settings)
    after = two_hosts[0].run("ip -s -j link show wire")
    sent = [json.loads(text)[0]["stats64"]["tx"]["bytes"] for text in (before, after)]
    assert (sent[1] - sent[0]) * 8 / done.worked_s > 1.5 * settings.idle.below_bits_per_s
    assert (done.backlog.rows, done.is_idle) == (0, True)
    assert done.link.interfaces == ["wire"]
    assert len(in_store(beside)[0]) == CHUNKS * ROWS


def test_a_drain_gives_way_to_the_bytes_of_others(two_hosts, traffic, spooled):
    settings, beside = spooled
    traffic.be(20_000_000)
    done = drain_within(two_hosts[0], replace(settings, spool=replace(
        settings.spool, drain_rows_per_s=100
    )))  # fmt: skip
    assert not done.is_idle
    assert done.moved.rows == len(in_store(beside)[0]) == CHUNKS * ROWS - done.backlog.rows
    assert done.backlog.rows > 0
