"""A worker's writes without a worker: beats, claims and ends by the very scripts that it uses."""

import zlib
from typing import Any

import msgspec
import redis

from rqscan.broker import keys, scripts
from rqscan.broker.payload import PROTOCOL
from rqscan.fleet.presence import Presence
from rqscan.fleet.reports import JobReport

__all__ = ["ScriptedWorker"]

LEASE_S = 90


class ScriptedWorker:
    """Writes what the worker `name` on `queue` would; `fields` are of its presence."""

    def __init__(
        self, client: redis.Redis, name: str, queue: str = "wakaka", **fields: Any
    ) -> None:
        self._client, self.name, self._queue = client, name, queue
        self.jobs: dict[str, str] = {}  # id → token
        self._record = Presence(
            **{
                "name": name, "host": "web", "pid": 100, "boot": "b", "client_id": 1,
                "lease_s": 6.5, "state": "idle", "queues": [queue], "concurrency": 2, "jobs": [],
                "versions": {"rqscan": "0.1.0", "rq": "3.0.0"}, "clock_offset_s": 0.25,
                "utc_offset_s": 0, "rss_bytes": 90 << 20, "done": 5, "failed": 1,
            }
            | fields
        )  # fmt: skip

    @property
    def _store(self) -> bytes:
        """The fleet's store, whichever it is."""
        found: Any = self._client.hget(keys.STORE, "store_id")
        return found or b""

    def _run(self, script: scripts.Script, own: list[str], *args: Any) -> Any:
        return self._client.eval(script.text, len(own), *own, *args)

    def beat(self, *jobs: JobReport) -> None:
        state = "busy" if jobs else self._record.state
        record = msgspec.structs.replace(self._record, jobs=list(jobs), state=state)
        own = [keys.worker(self.name), keys.WORKERS, keys.executions_of(self.name), keys.PRESENCE]
        own += [keys.record(self.name), keys.HOLDERS, keys.SWEEPER, keys.LAST_BEAT, keys.GRACE]
        own += [keys.SERVED, keys.PAUSED, keys.SUSPENDED, keys.STORE, keys.MARKER]
        own += [keys.look("scripted"), keys.DEPUTY, keys.workers_of(self._queue)]
        held = [part for job in self.jobs.items() for part in (self._queue, *job)]
        encoded = msgspec.json.encode(record)
        self._run(
            scripts.BEAT, own, self.name, "e", LEASE_S, encoded, 4.2, 6500, 2500, 1,
            self._store, PROTOCOL, "", self._queue, 2, 9, "state", state, *held,
        )  # fmt: skip

    def claim(self, want: int) -> list[str]:
        own = [keys.worker(self.name), keys.executions_of(self.name), keys.SUSPENDED]
        own += [keys.PAUSED, keys.STORE, keys.queue(self._queue), keys.bell(self._queue)]
        tokens = [f"{self.name}-{len(self.jobs) + i}" for i in range(want)]
        answer = self._run(
            scripts.CLAIM, own, self.name, "e", want, LEASE_S, self._store, PROTOCOL, 1, 0,
            self._queue, *tokens,
        )  # fmt: skip
        assert answer[0] == b"ok"
        taken = {job.decode(): token.decode() for _, job, token, *_ in answer[1:]}
        self.jobs |= taken
        return list(taken)

    def end(
        self,
        job: str,
        how: str,
        error: str = "",
        failure_ttl_s: int = 604_800,
        answer: bytes | None = None,
    ) -> None:
        states = [keys.registry(state, self._queue) for state in ("wip", "finished", "failed")]
        own = [keys.job(job), keys.queue(self._queue), *states, keys.worker(self.name)]
        own += [keys.executions_of(self.name), keys.results(job), keys.bell(self._queue)]
        own += [keys.COUNTERS, keys.registry("scheduled", self._queue)]
        fields = ["exc_info", zlib.compress(f"Traceback\n  line\n{error}\n".encode())]
        got = self._run(
            scripts.FINISH, own, job, self.jobs.pop(job), how, 3600, failure_ttl_s, "0.5",
            self._queue, 3, 7, 70, 0, 0, 0, 0, 0, 0, 2, *fields,
        )  # fmt: skip
        assert (got[0] if isinstance(got, list) else got) == (answer or how.encode())
