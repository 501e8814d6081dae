"""Faults of the store: its server, the connections and links to it, and the drains into it."""

import os
import signal
import time
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import psutil
import pymysql

from bench.chaos.fleet import title
from bench.chaos.links import Links
from bench.chaos.stage import Fault, Stage
from bench.chaos.store import ACCOUNT, Store
from rqscan.home import drain_lock

__all__ = ["Databases"]

STOP_S = 1.5
"""So long a clean stop has before it is waited for."""

KILLING_S = 0.3
"""A connection lives for milliseconds: for so long each one that comes is killed."""

HUNT_S = 1.0
"""Longest wait for a drain that could be killed."""

READ_ONLY, WRITABLE = "SET GLOBAL read_only = 1", "SET GLOBAL read_only = 0"


class Databases:
    """Kills, freezes, locks and cuts; one trouble of the server at a time."""

    def __init__(self, stage: Stage, store: Store, *, has_links: bool) -> None:
        self.stage, self.store, self.links = stage, store, Links()
        self._is_ill = False
        self.weights: dict[Fault, float] = {
            self.kill_database: 4, self.restart_database: 2, self.freeze_database: 3,
            self.make_read_only: 2, self.lock_table: 2,
            self.kill_connections: 4, self.kill_drain: 5,
        }  # fmt: skip
        if has_links:
            self.weights[self.cut_database] = 3

    # the server

    def kill_database(self) -> str | None:
        if self._is_ill:
            return None
        self.store.server.kill()
        return self._ill_for(8, self.store.server.launch)

    def restart_database(self) -> str | None:
        if self._is_ill or not self.store.server.is_running:
            return None
        os.kill(self.store.server.pid, signal.SIGTERM)
        return self._ill_for(3, self._start_again, STOP_S)

    def _start_again(self) -> None:
        self.store.server.stop()
        self.store.server.launch()

    def freeze_database(self) -> str | None:
        if self._is_ill:
            return None
        self.store.server.freeze()
        return self._ill_for(15, self.store.server.thaw)

    def make_read_only(self) -> str | None:
        if self._is_ill or not (connection := self._connect()):
            return None
        span = self._ill_for(8, self._make_writable)
        with closing(connection), suppress(pymysql.OperationalError):  # it waits for who writes
            connection.cursor().execute(READ_ONLY)
        return span

    def _make_writable(self) -> None:
        with closing(self.store.admin()) as connection:
            connection.cursor().execute(WRITABLE)

    def lock_table(self) -> str | None:
        if self._is_ill or not (connection := self._connect(database=ACCOUNT)):
            return None
        table = self.stage.random.choice(["chunks", "observations"])
        cursor = connection.cursor()
        cursor.execute("SET lock_wait_timeout = 1")
        try:
            cursor.execute(f"LOCK TABLES {table} WRITE")
        except pymysql.OperationalError:  # somebody holds it who is frozen himself
            connection.close()
            return None
        return f"{table} {self._ill_for(12, connection.close)}"

    def _ill_for(self, most_s: float, mend: Callable[[], object], least_s: float = 0.5) -> str:
        def get_well() -> None:
            mend()
            self._is_ill = False

        self._is_ill = True
        seconds = self.stage.random.uniform(least_s, most_s)
        self.stage.later(seconds, get_well)
        return f"for {seconds:.1f} s"

    def _connect(self, **options: Any) -> Any:
        with suppress(pymysql.OperationalError):  # it is not up yet
            return self.store.admin(**options)
        return None

    # connections and links

    def kill_connections(self) -> str | None:
        if self._is_ill or not (connection := self._connect()):
            return None
        killed = set()
        until = time.monotonic() + KILLING_S
        with closing(connection):
            cursor = connection.cursor()
            while time.monotonic() < until:
                cursor.execute(
                    "SELECT id FROM information_schema.processlist WHERE user = %s", ACCOUNT
                )
                for (number,) in cursor.fetchall():
                    with suppress(pymysql.MySQLError):  # gone by itself
                        cursor.execute(f"KILL {number}")
                        killed.add(number)
                time.sleep(0.002)
        return f"{len(killed)}" if killed else None

    def cut_database(self) -> str | None:
        home = self.stage.random.choice([*self.store.homes.values()])
        rules = self.links.cut(home.address)
        seconds = self.stage.random.uniform(0.5, 25)
        self.stage.later(seconds, lambda: self.links.heal(rules))
        return f"{home.folder.name} for {seconds:.1f} s"

    # drains

    def kill_drain(self) -> str | None:
        until = time.monotonic() + HUNT_S
        while time.monotonic() < until:
            for home in self.store.homes.values():
                if drain := self._drain_of(home.folder):
                    time.sleep(self.stage.random.uniform(0, 0.05))
                    drain.kill()
                    return f"{drain.pid} of {home.folder.name}"
            time.sleep(0.005)
        return None

    def _drain_of(self, home: Path) -> psutil.Process | None:
        """Find who holds a home's right to drain, if it is a child of a worker."""
        with suppress(OSError, ValueError, psutil.NoSuchProcess):
            process = psutil.Process(int(drain_lock(str(home)).read_text()))
            workers = {host.process.pid for host in self.stage.fleet.workers if host.process}
            if process.ppid() in workers and "drain_chore" in title(process):
                return process
        return None
