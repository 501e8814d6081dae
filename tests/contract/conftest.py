"""A real MariaDB for the store's tests: one server a session, a fresh database a test."""

import itertools
import os
import shutil
import socket
import subprocess
import tempfile
import time
from pathlib import Path

import pymysql
import pytest


class Mariadb:
    def __init__(self, folder: Path) -> None:
        self.socket = folder / "s.sock"
        self._numbers = itertools.count()
        data = f"--datadir={folder / 'data'}"
        user = "--user=root" if os.getuid() == 0 else f"--user={os.getuid()}"
        subprocess.run(
            ["mariadb-install-db", "--no-defaults", "--auth-root-authentication-method=normal",
             "--skip-test-db", "--innodb-log-file-size=4M", data, user],
            check=True, capture_output=True,
        )  # fmt: skip
        self.process = subprocess.Popen(
            ["mariadbd", "--no-defaults", "--skip-networking", f"--socket={self.socket}", data,
             "--innodb-flush-method=nosync", "--innodb-flush-log-at-trx-commit=0",
             f"--pid-file={folder / 'pid'}", user],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        deadline = time.monotonic() + 20
        while True:
            assert self.process.poll() is None
            assert time.monotonic() < deadline
            with socket.socket(socket.AF_UNIX) as probe:
                if probe.connect_ex(str(self.socket)) == 0:
                    return
            time.sleep(0.02)

    def connect(self, **options):
        return pymysql.connect(unix_socket=str(self.socket), user="root", **options)

    def database_url(self) -> str:
        name = f"rqscan_{next(self._numbers)}"
        connection = self.connect()
        connection.cursor().execute(f"CREATE DATABASE {name}")
        connection.close()
        return f"mysql+pymysql://root@localhost/{name}?unix_socket={self.socket}"


@pytest.fixture(scope="session")
def mariadb():
    folder = Path(tempfile.mkdtemp(prefix="rqm-", dir="/tmp"))
    server = Mariadb(folder)
    yield server
    server.process.terminate()
    server.process.wait(20)
    shutil.rmtree(folder)
