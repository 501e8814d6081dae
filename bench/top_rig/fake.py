"""A fleet that is only in Redis: workers, queues, jobs and failures, for every monitor the same.

What our workers write is written by their own scripts (`tests.scripted`), and completed by what
stock RQ's workers write besides: each reader finds what it looks for. Every job has its hash, those
that only wait too. The payload is stock RQ's pickle, which rq-dashboard decodes and we never read.
"""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from threading import Event, Thread
from typing import Any

import redis
from rq.job import Job

from rqscan import clock
from rqscan.broker import keys
from rqscan.broker.jobs import chunk_fields
from rqscan.broker.payload import RUN_CHUNK
from rqscan.fleet.presence import client_name, flat
from rqscan.fleet.reports import JobReport, SpoolReport
from rqscan.installed import versions
from rqscan.model import Chunk
from rqscan.settings import QueueSettings
from tests.scripted import ScriptedWorker

__all__ = ["BEAT_S", "CAUSES", "Shape", "beating", "fill"]

FILL = (Path(__file__).parent / "fill.lua").read_text("utf-8")
AT_ONCE = 10_000
BEAT_S = 2.0
FAR_S = 3_600
OLDEST = timedelta(minutes=20)
FINISHED, SCHEDULES = 100, 20

TRACEBACK = """Traceback (most recent call last):
  File "/opt/rqscan/rqscan/scan/execute.py", line 88, in run_chunk
    rows = kind.run(chunk.targets, params, run)
           ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^
  File "/opt/rqscan/jobs/ports.py", line 61, in ports
    for answer in sweep(targets, wanted, run.may_dial):
  File "/opt/rqscan/rqscan/probe/connect.py", line 140, in sweep
    raise error
"""
CAUSES = (
    "TimeoutError: connect to 10.0.{0}.17:443 after 5 s",
    "ConnectionRefusedError: [Errno 111] 10.1.{0}.3:22 refused the connection",
    "ssl.SSLCertVerificationError: certificate of 10.2.{0}.9 has expired",
    "MemoryError",
    "OSError: [Errno 24] Too many open files: {0}",
    "ValueError: banner of 10.3.{0}.1 is no text: b'\\xff\\xfe' at {0}",
    "rqscan.errors.FailedError: the work-horse {0} was killed by signal 9",
)


@dataclass(frozen=True)
class Shape:
    """How large a fleet is."""

    workers: int
    hosts: int
    queues: int
    jobs: int
    failed: int

    def __str__(self) -> str:
        return (f"{self.workers:,} workers, {self.queues} queues, {self.jobs:,} jobs, "
                f"{self.failed:,} failed")  # fmt: skip

    def share(self, whole: int, queue: int) -> int:
        """Give how many of `whole` fall to a queue."""
        return whole // self.queues + (queue < whole % self.queues)

    def queue(self, number: int) -> str:
        return f"scan.{number % self.queues:02d}"

    def is_busy(self, worker: int) -> bool:
        return worker % 3 != 0

    def of(self, queue: int) -> range:
        """Give the workers whose first queue it is."""
        return range(queue, self.workers, self.queues)

    def second(self, worker: int) -> str:
        return self.queue(worker + max(1, self.queues // 2))

    def name(self, worker: int) -> str:
        return f"node{worker % self.hosts:02d}.{1000 + worker}"


def fill(client: redis.Redis, shape: Shape) -> list[str]:
    """Write the fleet and give the names of its workers; they live while `beating` runs."""
    client.flushall()
    put = client.register_script(FILL)
    for number in range(shape.queues):
        queue, began = shape.queue(number), clock.now() - OLDEST
        running = sum(map(shape.is_busy, shape.of(number)))
        whole = sum(shape.share(n, number) for n in (shape.jobs, shape.failed)) + running
        for first in range(0, whole, AT_ONCE):
            at = clock.iso(began + OLDEST * 0.9 * (first / whole))
            put(args=[queue, f"scan{number:03d}", first, min(AT_ONCE, whole - first), at,
                      *_template(client, queue, number)])  # fmt: skip
        _scan(client, f"scan{number:03d}", whole, began)
        _counts(client, queue, clock.now().timestamp())
    client.sadd(keys.QUEUES, *(keys.queue(shape.queue(n)) for n in range(shape.queues)))
    for number in range(shape.queues):
        for worker in shape.of(number):
            _worker(client, shape, number, worker)
    for number in range(SCHEDULES):
        _schedule(client, f"nightly-{number:02d}", number)
    client.set(keys.LEADER, '{"name": "node00.scheduler", "host": "node00", "pid": 7}')
    return [shape.name(worker) for worker in range(shape.workers)]


def _template(client: redis.Redis, queue: str, number: int) -> list[Any]:
    """Give what the hashes of all jobs of a queue share, the payload as well."""
    targets = [f"10.0.0.{n}" for n in range(8)]
    chunk = Chunk(scan_id=f"scan{number:03d}", chunk=0, kind="ports", targets=targets, params={})
    fields = chunk_fields(chunk, queue, QueueSettings(), client)
    kwargs = {"kind": "ports", "targets": targets, "params": {"ports": "1-1024"}}
    fields |= {"data": Job.create(RUN_CHUNK, kwargs=kwargs, connection=client).to_dict()["data"]}
    return flat({k: v for k, v in fields.items() if k not in {"description", "status"}})


def _scan(client: redis.Redis, scan: str, total: int, began: datetime) -> None:
    fields = {"total": 2 * total, "done": total, "started_at": clock.iso(began)}
    client.hset(keys.progress(scan), mapping=fields)
    client.zadd(keys.SCANS, {scan: began.timestamp()})


def _counts(client: redis.Redis, queue: str, at: float) -> None:
    """Write what a busy fleet has counted, and will have while it is watched."""
    with client.pipeline(transaction=False) as pipe:
        for name, seconds, past_s in (("stat", keys.STAT_S, 180), ("minute", 60, 2_100)):
            per_s = {f"{queue}:in": 31, f"{queue}:out": 30, f"{queue}:failed": 0.2}
            counts = {field: int(seconds * rate) for field, rate in per_s.items()}
            for bucket in range(int((at - past_s) / seconds), int((at + FAR_S) / seconds)):
                pipe.hset(f"{keys.OWN}{name}:{bucket}", mapping=counts)
        finished = {f"{queue}-done-{n}": at + FAR_S + n for n in range(FINISHED)}
        pipe.zadd(keys.registry("finished", queue), finished)
        pipe.execute()


def _worker(client: redis.Redis, shape: Shape, number: int, worker: int) -> None:
    """Have a worker live, fail its share of the queue's jobs, and run one if it is a busy one."""
    name, queue, second = shape.name(worker), shape.queue(number), shape.second(worker)
    queues, host = list(dict.fromkeys([queue, second])), name.partition(".")[0]
    one = ScriptedWorker(
        client, name, queue, queues=queues, host=host, pid=1000 + worker, boot=name,
        concurrency=1, lease_s=5.5, clock_offset_s=0.001, clock_error_s=0.0002, done=900, failed=5,
        versions=versions(), store_id="5f0c6f5e3b9e4d0d9a1c",
        spool=SpoolReport(home=f"/var/lib/rqscan/{host}"),
    )  # fmt: skip
    one.beat()
    turn = (worker - number) // shape.queues
    mine = range(turn, shape.share(shape.failed, number), len(shape.of(number)))
    for job, n in zip(one.claim(len(mine)) if mine else [], mine, strict=True):
        one.end(job, "failed", TRACEBACK + CAUSES[n % len(CAUSES)].format(n % 250))
    running = one.claim(1) if shape.is_busy(worker) else []
    one.beat(*(JobReport(id=job, kind="ports", age_s=31.0, limit_s=3600) for job in running))
    with client.pipeline(transaction=False) as pipe:
        me, now = keys.worker(name), clock.now()
        pipe.hset(me, mapping=_as_rq_has_it(host, 1000 + worker, queues, now))
        pipe.expire(me, FAR_S)  # nobody beats for RQ's readers, who drop what has expired
        for of in queues:
            pipe.sadd(keys.workers_of(of), me)
        for job in running:  # and who put into failed what nobody renews
            pair = f"{job}:{one.jobs[job]}"
            pipe.zadd(keys.registry("wip", queue), {pair: now.timestamp() + FAR_S})
        pipe.execute()


def _as_rq_has_it(host: str, pid: int, queues: list[str], now: datetime) -> dict[str, Any]:
    return {
        "hostname": host, "ip_address": "10.0.0.1", "pid": pid, "queues": ",".join(queues),
        "birth": clock.iso(now - timedelta(days=3)), "version": "3.0.0",
        "python_version": "3.11.7 (main, Nov 20 2026, 09:00:00) [GCC 12.2.0]",
        "successful_job_count": 900, "failed_job_count": 5, "total_working_time": 230_000.5,
    }  # fmt: skip


def _schedule(client: redis.Redis, name: str, number: int) -> None:
    now = clock.now()
    fields = {
        "state": "scheduled", "paused": "0", "reason": "", "outcome": "fired", "lateness_s": "0.01",
        "last_at": clock.iso(now - timedelta(hours=1)),
    }  # fmt: skip
    client.zadd(keys.SCHEDULE, {name: now.timestamp() + FAR_S + 60 * number})
    client.hset(keys.schedule_entry(name), mapping=fields)


@contextmanager
def beating(client: redis.Redis, names: list[str]) -> Iterator[None]:
    """Keep the workers alive: a connection each, open for commands, and all beats in one command.

    A fleet's own load on Redis is none of a monitor's cost, so it is as small as can be.
    """
    pool, over = client.connection_pool, Event()

    def beat() -> None:
        while not over.is_set():
            client.zadd(keys.PRESENCE, dict.fromkeys(names, clock.now().timestamp()))
            over.wait(BEAT_S)

    with ExitStack() as stack:
        for name in names:
            link = pool.connection_class(**pool.connection_kwargs | {"protocol": 2})
            stack.callback(link.disconnect)
            for command in (
                ("CLIENT", "SETNAME", client_name(name)),
                ("SUBSCRIBE", keys.commands_of(name)),
            ):
                link.send_command(*command)
                link.read_response()
        thread = Thread(target=beat)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()
