"""Faults of processes: work-horses, templates, workers, whole hosts and schedulers.

One that takes a worker away is only let loose while another worker serves.
"""

import time
from contextlib import suppress

import psutil

from bench.chaos.fleet import Host
from bench.chaos.stage import Fault, Stage, resume

__all__ = ["Deaths"]


class Deaths:
    """Kills, stops and freezes."""

    def __init__(self, stage: Stage) -> None:
        self.stage = stage
        self.weights: dict[Fault, float] = {
            self.kill_horse: 9, self.terminate_horse: 4, self.freeze_horse: 2,
            self.kill_template: 3, self.terminate_template: 1, self.freeze_template: 1,
            self.kill_worker_same_name: 5, self.kill_worker: 4, self.kill_host: 4,
            self.freeze_worker_briefly: 2, self.freeze_worker: 3, self.freeze_host: 1.5,
            self.stop_worker: 3,
            self.kill_scheduler: 1, self.stop_scheduler: 0.5, self.freeze_scheduler: 0.7,
        }  # fmt: skip

    # work-horses

    def _end_horse(self, end: str) -> str | None:
        found = [
            (host, pair) for host in self.stage.fleet.steady for pair in self.stage.horses(host)
        ]
        if not found:
            return None
        host, (horse, job) = self.stage.random.choice(found)
        jobs = [job] if job else self.stage.held(host)  # stock RQ's horses do not tell theirs
        getattr(horse, end)()
        if not self.stage.observer.redis_is_away:
            self.stage.observer.watch(jobs, "horse died", time.monotonic())
        return f"{horse.pid} of {host.name} with {jobs}"

    def kill_horse(self) -> str | None:
        return self._end_horse("kill")

    def terminate_horse(self) -> str | None:
        return self._end_horse("terminate")

    def freeze_horse(self) -> str | None:
        found = [pair for host in self.stage.fleet.steady for pair in self.stage.horses(host)]
        return self.stage.freeze([self.stage.random.choice(found)[0]], 2) if found else None

    # templates

    def _hamper(self) -> tuple[Host, psutil.Process] | None:
        """Choose a worker and its template."""
        found = [(host, one) for host in self.stage.fleet.steady for one in host.templates()]
        if not found:
            return None
        host, template = self.stage.random.choice(found)
        host.hampered_at = time.monotonic()
        return host, template

    def kill_template(self) -> str | None:
        return self._end_template("kill")

    def terminate_template(self) -> str | None:
        return self._end_template("terminate")

    def _end_template(self, end: str) -> str | None:
        if not (found := self._hamper()):
            return None
        host, template = found
        jobs = [job for horse, job in self.stage.horses(host) if horse.ppid() == template.pid]
        getattr(template, end)()
        self.stage.observer.watch(jobs, "template died", time.monotonic())
        return host.name

    def freeze_template(self) -> str | None:
        found = self._hamper()
        return self.stage.freeze([found[1]], 3) if found else None

    # workers and hosts

    def kill_worker_same_name(self) -> str | None:
        if host := self.stage.worker():
            self._kill(host, "worker died, back under its name", whole=self.stage.happens(0.5))
            self.stage.fleet.start(host, host.name)
        return host and host.name

    def kill_worker(self) -> str | None:
        return self._kill_for_a_while(whole=False)

    def kill_host(self) -> str | None:
        return self._kill_for_a_while(whole=True)

    def _kill_for_a_while(self, *, whole: bool) -> str | None:
        if host := self.stage.worker():
            was = host.name
            self._kill(host, "worker died, others rescue", whole=whole)
            name = was if self.stage.happens(0.3) else ""
            self.stage.later(
                self.stage.random.uniform(9, 14), lambda: self.stage.fleet.start(host, name)
            )
        return host and was

    def _kill(self, host: Host, cause: str, *, whole: bool) -> None:
        host.away = "down"
        children = host.tree()[1:] if whole else []
        host.kill()
        died_at = time.monotonic()
        for child in children:
            with suppress(psutil.NoSuchProcess):
                child.kill()
        self.stage.observer.watch(self.stage.held(host), cause, died_at)

    def freeze_worker_briefly(self) -> str | None:
        if host := self.stage.worker():
            host.hampered_at = time.monotonic()
            return self.stage.freeze(host.tree()[:1], 3)
        return None

    def freeze_worker(self) -> str | None:
        return self._freeze_for_long(whole=False)

    def freeze_host(self) -> str | None:
        return self._freeze_for_long(whole=True)

    def _freeze_for_long(self, *, whole: bool) -> str | None:
        if not (host := self.stage.worker()):
            return None
        tree = host.tree()
        frozen = tree if whole else tree[:1]
        for process in frozen:
            process.suspend()
        self.stage.silence(host, "frozen", lambda: [resume(process) for process in frozen])
        return host.name

    def stop_worker(self) -> str | None:
        if host := self.stage.worker():
            host.away = "stopping"
            host.process.terminate()
            self.stage.later(8, lambda: self._start_again(host))
        return host and host.name

    def _start_again(self, host: Host) -> None:
        host.kill()
        self.stage.fleet.start(host, host.name)

    # schedulers

    def _scheduler(self) -> Host | None:
        alive = [h for h in self.stage.fleet.hosts if h.role == "scheduler" and h.is_alive]
        return self.stage.random.choice(alive) if alive else None

    def kill_scheduler(self) -> str | None:
        if host := self._scheduler():
            host.away = "down"
            host.kill()
            self.stage.later(self.stage.random.uniform(0, 6), lambda: self.stage.fleet.start(host))
        return host and host.name

    def stop_scheduler(self) -> str | None:
        if host := self._scheduler():
            host.away = "stopping"
            host.process.terminate()
            self.stage.later(5, lambda: self._start_again(host))
        return host and host.name

    def freeze_scheduler(self) -> str | None:
        host = self._scheduler()
        return self.stage.freeze(host.tree()[:1], 12) if host else None
