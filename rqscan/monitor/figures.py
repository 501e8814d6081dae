"""Figures: Redis' answers → the records of a snapshot.

Anybody may write to Redis: `read` is where that is expected, so nothing above it need be.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from rqscan.broker.payload import chunk_of
from rqscan.model import Counts, Progress
from rqscan.monitor.records import Moment, Schedule, Server, Task, Worker

__all__ = ["age_s", "begun", "drain_s", "read", "scan", "schedule", "server"]

SAVES = ("rdb_last_bgsave_status", "aof_last_write_status", "aof_last_bgrewrite_status")


def read(kind: Any, value: Any, default: Any = None, *, is_json: bool = False) -> Any:
    """Give what Redis holds as `kind`, and the default for what none of us has written."""
    try:
        if is_json:
            return msgspec.json.decode(value or "", type=kind)
        return msgspec.convert(value, kind, strict=False)
    except msgspec.MsgspecError:
        return default


def server(info: str | None, rtt_ms: float) -> Server:
    """Give Redis by its INFO."""
    lines = (line.partition(":") for line in (info or "").splitlines() if ":" in line)
    said = {name: value for name, _, value in lines}
    failing = [f"{name} is {said[name]}" for name in SAVES if said.get(name, "ok") != "ok"]
    role = said.get("role")
    return Server(
        up=True,
        version=said.get("redis_version"),
        rtt_ms=rtt_ms,
        memory_bytes=read(int, said.get("used_memory")),
        memory_limit_bytes=read(int, said.get("maxmemory")),
        eviction=said.get("maxmemory_policy"),
        clients=read(int, said.get("connected_clients")),
        is_replica=role != "master" if role else None,
        unsaved=", ".join(failing) or None,
    )


def age_s(since: str | None, at: float) -> float | None:
    """Give how long ago a moment was that is written down."""
    moment = read(Moment, since) if since else None
    return max(0.0, round(at - moment.timestamp(), 3)) if moment else None


def drain_s(depth: int | None, in_per_s: float, out_per_s: float) -> float | None:
    """Tell how long a queue takes to be empty at these rates; None: for ever, or it is."""
    if not depth or out_per_s <= in_per_s:
        return None
    return round(depth / (out_per_s - in_per_s), 1)


def begun(workers: Iterable[Worker]) -> dict[str, float]:
    """Give by scan what its running chunks have done, in chunks."""
    found: dict[str, float] = defaultdict(float)
    for one in workers:
        for job in one.jobs:
            if job.progress and one.state != "lost" and (chunk := chunk_of(job.id)):
                found[chunk[0]] += min(1.0, job.progress)
    return found


def scan(scan_id: str, at: float, fields: dict[str, str], running: float = 0.0) -> Task:
    """Give a scan by its counts, with the part of its running chunks that is done.

    The rest is taken to go as fast as what is done.
    """
    counts, began = read(Counts, fields, Counts(0)), read(Moment, fields.get("started_at"))
    ended = counts.done + counts.failed + counts.cancelled + running
    eta_s = None
    if began and ended:
        eta_s = max(0.0, round((at - began.timestamp()) / ended * (counts.total - ended), 1))
    state = Progress(scan_id=scan_id, chunks=counts, started_at=began).state
    progress = round(min(1.0, ended / counts.total), 4) if counts.total else 0.0
    return Task(scan_id=scan_id, state=state, chunks=counts, eta_s=eta_s, progress=progress)


def schedule(name: str, fire_at: float, fields: Mapping[str, str | None]) -> Schedule:
    """Give an entry by when it is to be fired, in Unix seconds, and by what Redis holds of it."""
    next_at = read(Moment, fire_at)  # none if it is infinite
    said = {field: value for field, value in fields.items() if value}
    if said.get("outcome") == "waiting" and said.get("state") != "invalid":
        said["state"] = "waiting"
    bare = Schedule(name=name, next_at=next_at)
    found: Schedule = read(Schedule, said | {"name": name, "next_at": next_at}, bare)
    return found
