"""Fixtures for every tier: servers, a home, settings; and an environment without the user's own."""

import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings as hypothesis_settings

from rqscan.settings import RedisSettings, Settings
from tests.databases import MariaDB
from tests.rig import Rig
from tests.servers import RedisServer, missing, missing_right, wait_for

hypothesis_settings.register_profile("no timings", deadline=None)
hypothesis_settings.load_profile("no timings")

# A shell's background job ignores ^C, and so would all that the tests start, whom they send it.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def _no_settings_of_the_user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no setting of the one who runs the tests in, and nothing into their folders."""
    for name in os.environ:
        if name.startswith("RQSCAN_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))


@pytest.fixture(autouse=True)
def _root_where_marked(request: pytest.FixtureRequest) -> None:
    """Skip what needs uid 0 and does not have it; on CI that would be a silent hole."""
    if request.node.get_closest_marker("root") and os.geteuid() != 0:
        missing_right("uid 0, to become an ordinary user")


@pytest.fixture
def short_path() -> Iterator[Path]:
    """Give an empty folder with a path short enough for unix sockets; `tmp_path` is not."""
    folder = Path(tempfile.mkdtemp(prefix="rq-", dir="/tmp"))
    yield folder
    wait_for(lambda: is_removed(folder), 10, f"{folder} to be gone")


def is_removed(folder: Path) -> bool:
    """Remove a folder into which the last processes of a test may still write as they end."""
    shutil.rmtree(folder, ignore_errors=True)
    return not folder.exists()


@pytest.fixture
def home(short_path: Path) -> Path:
    """Give a fresh RQSCAN_HOME."""
    folder = short_path / "home"
    folder.mkdir(mode=0o700)
    return folder


@pytest.fixture
def redis_server(short_path: Path) -> Iterator[RedisServer]:
    """Give a running Redis with no data, on a unix socket."""
    folder = short_path / "redis"
    folder.mkdir()
    server = RedisServer(folder)
    yield server.start()
    server.close()


@pytest.fixture
def stream_server(short_path: Path) -> Iterator[RedisServer]:
    """Give a second running Redis, for a host's stream."""
    folder = short_path / "stream"
    folder.mkdir()
    server = RedisServer(folder)
    yield server.start()
    server.close()


@pytest.fixture
def certificate(tmp_path: Path) -> tuple[Path, Path]:
    """Make a key and a certificate of 127.0.0.1 that signs itself."""
    if not shutil.which("openssl"):
        missing("openssl")
    key, certificate = tmp_path / "key.pem", tmp_path / "cert.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1",
         "-subj", "/CN=rqscan test", "-addext", "subjectAltName=IP:127.0.0.1",
         "-keyout", key, "-out", certificate],
        check=True, capture_output=True,
    )  # fmt: skip
    return key, certificate


@pytest.fixture
def tls_server(short_path: Path, certificate: tuple[Path, Path]) -> Iterator[RedisServer]:
    """Give a running Redis that has a port for TLS."""
    folder = short_path / "tls"
    folder.mkdir()
    server = RedisServer(folder)
    server.add_tls(*certificate)
    yield server.start()
    server.close()


@pytest.fixture(scope="session")
def mariadb() -> Iterator[MariaDB]:
    """Give a running MariaDB; `database_url` makes a fresh database in it."""
    folder = Path(tempfile.mkdtemp(prefix="rq-", dir="/tmp"))
    try:
        server = MariaDB(folder).start()
        yield server
        server.close()
    finally:
        shutil.rmtree(folder)


@pytest.fixture(autouse=True)
def _mariadb_is_back(request: pytest.FixtureRequest) -> Iterator[None]:
    """Bring MariaDB back for the next test if this one has killed or frozen it."""
    yield
    if "mariadb" in request.fixturenames:
        server: MariaDB = request.getfixturevalue("mariadb")
        if server.is_running:
            server.thaw()
        else:
            server.start()


@pytest.fixture
def settings(home: Path, redis_server: RedisServer) -> Settings:
    """Give the settings of a home with its own Redis, and with SQLite for a store."""
    return Settings(home=str(home), redis=RedisSettings(url=redis_server.url))


@pytest.fixture
def rig(settings: Settings, tmp_path: Path) -> Iterator[Rig]:
    """Run commands in a home with its own Redis; what was started is ended."""
    made = Rig(settings, tmp_path)
    yield made
    made.close()
