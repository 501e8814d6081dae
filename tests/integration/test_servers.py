"""The test servers themselves: what other tests build upon."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pymysql
import pytest
import redis

from rqscan.settings import Settings
from tests.databases import MariaDB
from tests.servers import RedisServer, missing, redis_binaries, wait_for


@pytest.mark.parametrize("kind", ["redis", "valkey"])
def test_redis_keeps_its_data_when_killed(short_path: Path, kind: str) -> None:
    if kind not in redis_binaries():
        missing(kind)
    server = RedisServer(short_path, redis_binaries()[kind]).start()
    client = server.client()
    client.set("a", 1)
    server.kill()
    with pytest.raises(redis.ConnectionError):
        client.get("a")
    server.start()
    assert client.get("a") == b"1"
    server.freeze()
    with pytest.raises(redis.TimeoutError):
        server.client(socket_timeout=0.1).get("a")
    server.thaw()
    assert client.get("a") == b"1"
    assert client.config_get("maxmemory-policy") == {"maxmemory-policy": "noeviction"}
    server.close()
    assert not server.is_running


def test_redis_has_a_port_when_asked(short_path: Path) -> None:
    server = RedisServer(short_path, tcp=True).start()
    with redis.Redis.from_url(server.tcp_url) as client:
        assert client.ping()
    server.close()


def test_mariadb_keeps_committed_rows_when_killed(mariadb: MariaDB) -> None:
    url = mariadb.database_url()
    name = url.split("localhost/")[1].split("?")[0]
    assert url == f"mysql+pymysql://root@localhost/{name}?unix_socket={mariadb.socket}"
    assert mariadb.database_url() != url
    connection = pymysql.connect(unix_socket=str(mariadb.socket), user="root", database=name)
    connection.cursor().execute("CREATE TABLE t (a INT)")
    connection.cursor().execute("INSERT INTO t VALUES (7)")
    connection.commit()
    mariadb.kill()
    with pytest.raises(pymysql.OperationalError):
        connection.cursor().execute("SELECT 1")
    mariadb.start()
    connection.connect()
    cursor = connection.cursor()
    cursor.execute("SELECT a FROM t")
    assert cursor.fetchall() == ((7,),)
    connection.close()
    mariadb.kill()  # and leave it so, for the next test


def test_mariadb_is_back_after_a_test_that_killed_it(mariadb: MariaDB) -> None:
    assert mariadb.database_url()


def test_settings_point_at_the_fixtures(settings: Settings, redis_server: RedisServer) -> None:
    assert settings.redis.url == redis_server.url
    assert redis_server.client().ping()
    assert not any(name.startswith("RQSCAN_") for name in os.environ)


def test_a_server_dies_with_the_process_that_started_it(short_path: Path) -> None:
    code = (
        "import sys, signal; from pathlib import Path; from tests.servers import RedisServer\n"
        "server = RedisServer(Path(sys.argv[1])).start(); print(server.pid, flush=True)\n"
        "signal.pause()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, str(short_path)], stdout=subprocess.PIPE, text=True
    ) as starter:
        assert starter.stdout
        pid = int(starter.stdout.readline())
        assert Path(f"/proc/{pid}").exists()
        starter.send_signal(signal.SIGKILL)
    wait_for(lambda: _is_gone(pid), what="the server's death")


def _is_gone(pid: int) -> bool:
    try:
        return "\nState:\tZ" in Path(f"/proc/{pid}/status").read_text()
    except FileNotFoundError:
        return True
