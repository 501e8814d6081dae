"""A fleet at work on a database, for tests that take away what it needs."""

from pathlib import Path

from msgspec.structs import replace

from rqscan.scan.progress import read_progress
from rqscan.settings import DatabaseSettings
from rqscan.store.database import Database
from tests.rig import Rig
from tests.servers import wait_for

__all__ = ["CHUNKS", "ROWS", "Fleet"]

ROWS, CHUNKS = 20, 40


class Fleet:
    """A worker with three horses on a MariaDB, and a scan of 40 chunks with 20 rows each."""

    def __init__(self, settings, mariadb, redis_server, folder, rows=ROWS, **env: str) -> None:
        url = mariadb.database_url()
        self.settings = replace(settings, database=DatabaseSettings(url=url))
        self.redis = redis_server
        self.rig = Rig(self.settings, folder)
        self.rig.use_odd_kinds()
        self.rig.env |= {"RQSCAN_WORKER_HEARTBEAT_S": "0.5"} | env
        self.rows = rows
        self.worker = self.start()
        wait_for(lambda: list(Path(settings.home).glob("store-*")))  # it knows its store from now
        argv = ("scan", f"127.0.0.1-127.0.0.{CHUNKS}", "--kind", "rows", "-p", str(rows))
        self.scan_id = self.rig.json(*argv, "--no-wait")["scan_id"]

    def start(self, horses: int = 3, **env: str):
        return self.rig.worker("default", "-c", str(horses), **env)

    def progress(self):
        with self.redis.client() as client:
            return read_progress(client, self.scan_id)

    def wait_until_done(self, count: int = CHUNKS) -> None:
        wait_for(lambda: self.progress().chunks.done >= count, 60, f"{count} chunks")

    def spool(self):
        return self.rig.json("spool", "status")

    def arrived(self) -> list[tuple[str, int]]:
        """Give host and port of each row in the table; what is there twice comes twice."""
        opened = Database.open(self.settings)
        with opened as database, database.transaction(read_only=True) as connection:
            cursor = connection.cursor()
            cursor.execute("SELECT host, port FROM observations ORDER BY host_key, port")
            return list(cursor.fetchall())

    @property
    def expected(self) -> list[tuple[str, int]]:
        hosts = [f"127.0.0.{n}" for n in range(1, CHUNKS + 1)]
        return [(host, port) for host in hosts for port in range(1, self.rows + 1)]
