"""The worker's link to Redis: how it comes up, and that it comes back, whatever went away."""

import os
import socket
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import redis
from redis.sentinel import Sentinel

from rqscan.broker.link import LOST
from rqscan.errors import ConfigError
from tests.loop import loop
from tests.servers import RedisServer

ROOT = Path(__file__).parents[2]


@pytest.fixture
def server(short_path):
    """Give a running Redis on a unix socket and a port."""
    folder = short_path / "tcp"
    folder.mkdir()
    with closing(RedisServer(folder, tcp=True)) as made:
        yield made.start()


@pytest.fixture
def silent():
    """Give the port of a server that accepts and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener


def descriptors():
    return len(list(Path("/proc/self/fd").iterdir()))


def url_of(server, way):
    urls = {"unix": f"{server.url}?db=3", "tcp": server.tcp_url, "tls": server.tls_url}
    return urls[way].replace("/0", "/3")


@pytest.mark.parametrize("way", ["unix", "tcp", "tls"])
def test_it_comes_up_and_comes_back(request, way):
    server = request.getfixturevalue("tls_server" if way == "tls" else "server")
    before = descriptors()
    with loop(redis.Redis.from_url(url_of(server, way)), name="bird") as one:
        assert not one.link.is_up
        assert one.link.send("PING") is None
        one.until(lambda: one.ups)
        assert (one.downs, one.link.is_waiting) == ([], False)
        me = one.ask("CLIENT", "INFO").decode()
        assert f"id={one.link.client_id} " in me
        assert " name=bird " in me
        assert " db=3 " in me
        with server.client() as client:
            info = client.info("server")
        assert one.link.run_id == info["run_id"]

        one.link.send("BLPOP", "nothing", 0, then=(lost := []).append)
        one.turn()
        server.kill()
        one.until(lambda: len(one.downs) > 3)
        assert lost == [LOST]
        assert "Connection refused" in one.downs[-1]
        server.start()
        one.until(lambda: one.ups == 2)
        assert one.link.run_id != info["run_id"]
        assert one.ask("SET", "a", "b" * 1_000_000) == b"OK"
        assert len(one.ask("GET", "a")) == 1_000_000
    assert descriptors() == before


@pytest.mark.parametrize("way", ["unix", "tcp", "tls"])
def test_it_comes_back_from_a_frozen_server(request, way):
    server = request.getfixturevalue("tls_server" if way == "tls" else "server")
    with loop(redis.Redis.from_url(url_of(server, way))) as one:
        one.until(lambda: one.ups)
        server.freeze()
        assert one.ask("PING") is LOST
        one.until(lambda: len(one.downs) > 2)
        assert all("no answer" in reason for reason in one.downs)
        server.thaw()
        one.until(lambda: one.ups == 2)
        assert one.ask("PING") == b"PONG"


def test_a_password_and_a_user_open_it_and_are_never_told(server):
    with server.client() as client:
        client.acl_setuser(
            "bird", enabled=True, passwords=["+s3cret"], keys=["*"], categories=["+@all"]
        )
        client.acl_setuser("deaf", enabled=True, passwords=["+s3cret"], commands=["+ping"])
        client.config_set("requirepass", "pa55")
    port = server.port
    provider = redis.UsernamePasswordCredentialProvider("bird", "s3cret")
    for client in (
        redis.Redis(port=port, host="127.0.0.1", password="pa55"),
        redis.Redis.from_url(f"redis://bird:s3cret@127.0.0.1:{port}"),
        redis.Redis(port=port, host="127.0.0.1", credential_provider=provider),
        redis.Redis.from_url(f"unix://bird:s3cret@{server.socket}"),
    ):
        with loop(client) as one:
            one.until(lambda: one.ups)
            assert one.downs == []
    for client, words in (
        (redis.Redis(port=port, host="127.0.0.1", password="pa66"), "AUTH was refused: WRONGPASS"),
        (redis.Redis(port=port, host="127.0.0.1"), "CLIENT was refused: NOAUTH"),
        (redis.Redis.from_url(f"redis://deaf:s3cret@127.0.0.1:{port}"), "refused: NOPERM"),
        (redis.Redis(port=port, host="127.0.0.1", password="pa55", db=99), "SELECT was refused"),
    ):
        with loop(client) as one:
            one.until(lambda: len(one.downs) > 1)
            assert one.ups == 0
            assert words in one.downs[0]
            assert not [word for word in ("pa55", "pa66", "s3cret") if word in str(one.downs)]


def test_a_server_that_knows_no_auth_does_not_make_us_tell_the_password(short_path):
    server = RedisServer(short_path, None, "--rename-command", "AUTH", "")
    with closing(server.start()), loop(server.client(password="s3cret")) as one:
        one.until(lambda: one.downs)
        assert one.downs == ["AUTH was refused: ERR unknown command 'AUTH'"]


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "Protocol error"),
        (b"*0\r\n" * 20, "as no Redis does"),
        (b"+OK\r\n:1\r\n-LOADING the dataset\r\n", "LOADING"),
        (b"+OK\r\n", "no answer for 1."),
    ],
)
def test_what_is_no_answer_of_redis_is_a_failure(silent, words, reason):
    with loop(redis.Redis(host="127.0.0.1", port=silent.getsockname()[1])) as one:
        one.turn()
        with silent.accept()[0] as theirs:
            theirs.sendall(words)
            one.until(lambda: one.downs)
        assert reason in one.downs[0]
        assert one.ups == 0


def test_a_silent_server_is_given_up_again_and_again(silent):
    for options in ({}, {"ssl": True}):
        client = redis.Redis(host="127.0.0.1", port=silent.getsockname()[1], **options)
        with loop(client) as one:
            one.until(lambda: one.downs)
            held = descriptors()
            one.until(lambda: len(one.downs) > 2)
            assert descriptors() <= held + 1
            assert all("no answer" in reason for reason in one.downs)


def test_a_full_queue_of_a_unix_socket_is_a_failure(short_path):
    path = str(short_path / "full.sock")
    with socket.socket(socket.AF_UNIX) as listener, socket.socket(socket.AF_UNIX) as first:
        listener.bind(path)
        listener.listen(0)
        first.connect(path)
        with loop(redis.Redis(unix_socket_path=path)) as one:
            one.until(lambda: len(one.downs) > 1)
            assert "temporarily unavailable" in one.downs[0]


def test_it_can_be_reset_and_closed(server):
    with loop(redis.Redis.from_url(server.tcp_url)) as one:
        one.link.reset()
        assert one.downs == []
        one.until(lambda: one.ups)
        one.link.send("PING", then=(answers := []).append)
        one.link.reset()
        assert one.downs == ["the other connection is gone"]
        assert answers == [LOST]
        one.until(lambda: one.ups == 2)
        one.link.close()
        assert one.link.deadline == float("inf")


def test_tls_trusts_whom_it_is_told_to_and_reads_renewed_files(tls_server, tmp_path):
    url = urlsplit(tls_server.tls_url)
    with loop(redis.Redis(host="127.0.0.1", port=url.port, ssl=True)) as one:
        one.until(lambda: one.downs)
        assert "self-signed certificate" in one.downs[0]
    trusted = tmp_path / "trusted.pem"
    client = redis.Redis(host="127.0.0.1", port=url.port, ssl=True, ssl_ca_certs=str(trusted))
    with loop(client) as one:
        one.until(lambda: one.downs)
        assert "No such file" in one.downs[0]
        trusted.write_bytes((tmp_path / "cert.pem").read_bytes())
        one.until(lambda: one.ups)


def test_a_client_that_asks_sentinels_is_refused():
    client = Sentinel([("127.0.0.1", 1)]).master_for("main")
    with pytest.raises(ConfigError, match="SentinelManagedConnection"):
        loop(client).__enter__()
    with (
        closing(redis.Redis(ssl=True, ssl_validate_ocsp=True)) as client,
        pytest.raises(ConfigError, match="OCSP"),
    ):
        loop(client).__enter__()


# What follows runs in network namespaces with files of their own in /etc.

PRELUDE = """
import os, socket, subprocess, sys
from contextlib import closing
from pathlib import Path
import psutil, redis
from rqscan.broker.link import LOST
from tests.loop import loop
from tests.servers import RedisServer

folder = Path(sys.argv[1])
server = RedisServer(folder, None, "--bind", "127.0.0.1", "127.0.0.2", tcp=True)
port = str(server.port)

def run(*words):
    subprocess.run(words, check=True)

def drop(verb, *options):
    run("iptables", verb, "INPUT", "-p", "tcp", *options, port, "-j", "DROP")

def write(name, text):
    (folder / name).write_text(text)
    if not os.path.samefile(folder / name, "/etc/" + name):
        run("mount", "--bind", folder / name, "/etc/" + name)

def descriptors():
    return len(os.listdir("/proc/self/fd"))

def children():
    return [child for child in psutil.Process().children() if child.pid != server.pid]
"""


def run_inside(namespace, folder, program):
    argv = ["unshare", "--mount", sys.executable, "-W", "error", "-c", PRELUDE + program, folder]
    done = subprocess.run(
        namespace().inside(argv), capture_output=True, text=True, check=False, timeout=120,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


@pytest.mark.namespaces
def test_it_comes_back_when_packets_pass_again(namespace, short_path):
    run_inside(
        namespace,
        short_path,
        """
with closing(server.start()), loop(redis.Redis.from_url(server.tcp_url)) as one:
    drop("-A", "--dport")
    one.until(lambda: len(one.downs) > 3)
    assert all(reason.endswith("no answer") for reason in one.downs), one.downs
    drop("-D", "--dport")
    one.until(lambda: one.ups)
    drop("-A", "--sport")  # a link half open: what we say arrives
    assert one.ask("SET", "a", 1) is LOST
    one.until(lambda: len(one.downs) > 6)
    drop("-D", "--sport")
    one.until(lambda: one.ups == 2)
    assert one.ask("GET", "a") == b"1"
""",
    )


@pytest.mark.namespaces
def test_a_name_is_found_once_it_resolves_and_remembered_when_it_does_no_more(
    namespace, short_path
):
    run_inside(
        namespace,
        short_path,
        """
write("hosts", "127.0.0.1 localhost")
write("resolv.conf", "nameserver 127.0.0.1")
before = descriptors()
with closing(server.start()):
    client = redis.Redis(host="redis.example", port=server.port)
    dns = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with closing(dns), loop(client) as one:
        one.until(lambda: len(one.downs) > 1)
        assert one.downs[1].endswith("Temporary failure in name resolution"), one.downs
        dns.bind(("127.0.0.1", 53))  # from now on it is silent
        one.until(lambda: one.downs[-1].endswith("no answer from DNS"))
        one.until(lambda: len(one.downs) > 9)
        assert 0 < len(children()) < 6, children()
        write("hosts", "::1 redis.example\\n127.0.0.1 redis.example")  # the first refuses
        one.until(lambda: one.ups)
        one.until(lambda: not children())

        write("hosts", "")
        server.kill()
        one.until(lambda: len(one.downs) > 13)
        server.start()
        one.until(lambda: one.ups == 2)  # at the address from before

        drop("-A", "-d", "127.0.0.1", "--dport")
        write("hosts", "127.0.0.2 redis.example")
        assert one.ask("PING") is LOST
        one.until(lambda: one.ups == 3)  # where it has moved to
        write("hosts", "")
        dns.recv(512)
        one.link.reset()
        run("iptables", "-A", "INPUT", "-p", "tcp", "-j", "DROP")
        one.until(children)
    assert children() == []
assert descriptors() == before
""",
    )


@pytest.mark.namespaces
def test_a_connection_to_itself_is_none(namespace, short_path):
    run_inside(
        namespace,
        short_path,
        """
Path("/proc/sys/net/ipv4/ip_local_port_range").write_text(f"{port} {port}")
with loop(redis.Redis.from_url(server.tcp_url)) as one:
    one.until(lambda: len(one.downs) > 2)
    assert one.downs[0].endswith("Connection refused"), one.downs
""",
    )
