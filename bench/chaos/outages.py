"""Faults of what lies between and behind: links to Redis, keys in it, and Redis itself."""

import os
import time
from contextlib import suppress
from pathlib import Path

import psutil

from bench.chaos.links import Links
from bench.chaos.stage import Fault, Stage
from rqscan.broker import keys

__all__ = ["Outages"]


class Outages:
    """Cuts links, loses keys, ends Redis."""

    def __init__(self, stage: Stage) -> None:
        self.stage, self.links = stage, Links()
        self.of_links: dict[Fault, float] = {
            self.cut_link: 2, self.half_open_link: 1.5, self.power_cut: 2.5,
        }  # fmt: skip
        self.of_keys: dict[Fault, float] = {self.lose_presence: 1.5}
        self.of_redis: dict[Fault, float] = {
            self.kill_redis: 15, self.restart_redis: 10, self.freeze_redis: 15,
        }  # fmt: skip
        self.of_data: dict[Fault, float] = {self.empty_redis: 8, self.rewind_redis: 8}

    # links

    def cut_link(self) -> str | None:
        if not (host := self.stage.worker()):
            return None
        rules = self.links.cut(host.address)
        self.stage.silence(host, "cut off", lambda: self.links.heal(rules))
        return host.name

    def power_cut(self) -> str | None:
        """A host dies with all that runs there, and its connections get no end."""
        if not (host := self.stage.worker()):
            return None
        name = host.name
        rules = self.links.half_open(host.process.pid, self.stage.server.port)
        self.stage.later(20, lambda: self.links.heal(rules))
        jobs = self.stage.held(host)
        for process in host.tree()[1:]:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        host.away = "down"
        host.kill()
        self.stage.observer.watch(jobs, "host without power", time.monotonic())

        boot_s = self.stage.random.choice([0.1, 10])
        self.stage.later(boot_s, lambda: self.stage.fleet.start(host, name))
        return name

    def half_open_link(self) -> str | None:
        if not (host := self.stage.worker()):
            return None
        host.hampered_at = time.monotonic()
        rules = self.links.half_open(host.process.pid, self.stage.server.port)
        self.stage.later(15, lambda: self.links.heal(rules))
        return f"{host.name}, {len(rules) // 2} connections"

    # Redis

    def lose_presence(self) -> str | None:
        """What tells that workers live is gone; not the time of the last beat, whose loss is that
        of all data: nobody is rescued from for a while then.
        """
        if self.stage.observer.redis_is_away:
            return None
        client = self.stage.observer.client
        lost = [keys.PRESENCE, keys.HOLDERS, keys.WORKERS, keys.SWEEPER]
        lost += [keys.workers_of(queue) for queue in self.stage.observer.queues]
        for host in self.stage.fleet.workers:
            host.hampered_at = time.monotonic()
            lost += [keys.worker(host.name), keys.record(host.name)]
            lost += [keys.executions_of(host.name)]
        chosen = [key for key in lost if self.stage.happens(0.7)]
        return f"{client.delete(*chosen)} keys"

    def _redis_goes(self) -> bool:
        if self.stage.observer.redis_is_away or any(
            h.away == "cut off" for h in self.stage.fleet.workers
        ):
            return False
        self.stage.observer.expect_outage()
        return True

    def kill_redis(self) -> str | None:
        if not self._redis_goes():
            return None
        self.stage.server.kill()
        return self._redis_back_in(self.stage.random.uniform(0.1, 6))

    def _redis_back_in(self, seconds: float) -> str:
        self.stage.later(seconds, self.stage.server.start)
        return f"for {seconds:.1f} s"

    def restart_redis(self) -> str | None:
        if not self._redis_goes():
            return None
        self.stage.server.stop()
        return self._redis_back_in(0.05)

    def freeze_redis(self) -> str | None:
        if not self._redis_goes():
            return None
        seconds = self.stage.random.uniform(0.5, 8)
        self.stage.server.freeze()
        self.stage.later(seconds, self.stage.server.thaw)
        return f"for {seconds:.1f} s"

    def empty_redis(self) -> str | None:
        if not self._redis_goes():
            return None
        self.stage.server.kill()
        for file in self._log_files():
            file.unlink()
        return self._redis_back_in(self.stage.random.uniform(0.1, 2))

    def rewind_redis(self) -> str | None:
        """The last second of the log is missing after a restart."""
        if self.stage.observer.redis_is_away:
            return None
        sizes = {file: file.stat().st_size for file in self._log_files()}
        self.stage.later(1, lambda: self._rewind(sizes))
        return "by 1 s"

    def _rewind(self, sizes: dict[Path, int]) -> None:
        if not self._redis_goes():
            return
        self.stage.server.kill()
        if set(self._log_files()) == set(sizes):
            for file, size in sizes.items():
                os.truncate(file, size)
        self.stage.server.start()

    def _log_files(self) -> list[Path]:
        return [*self.stage.server.folder.glob("appendonlydir/*")]
