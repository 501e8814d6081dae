"""Actions: what an order of the screen means, how many it touches, and carrying it out.

Each goes the way of the command of the same name, and tells what was answered.
"""

from collections.abc import Callable, Sequence
from contextlib import closing
from typing import Any

from msgspec import structs
from redis import Redis

from rqscan.broker import keys
from rqscan.broker.connect import outage
from rqscan.broker.control import ask as tell
from rqscan.broker.queues import ScanQueue
from rqscan.monitor.failed import groups
from rqscan.monitor.records import Snapshot
from rqscan.monitor.screen.state import Order, Question, Subject
from rqscan.scan.cancel import cancel
from rqscan.scan.removal import Removal
from rqscan.settings import Settings

__all__ = ["act", "ask"]

ANSWER_S = 2.0
"""Longest wait for the answers of workers."""


def ask(client: Redis, order: Order, shot: Snapshot) -> Question:
    """Find what an order means now, and put it as a question; a count of 0 says why there is none.

    Raises:
        RedisUnavailable: Redis is away.
    """
    with outage():
        return ASK[order.verb](client, order, shot)


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def _of_failed(client: Redis, order: Order, shot: Snapshot) -> Question:
    jobs: dict[str, list[str]] = {}
    for one in order.subjects:
        queue: Any = client.hget(keys.job(one.name), "origin") if one.pane == "job" else b""
        name = (queue or b"").decode(errors="replace")
        if name and client.zscore(keys.registry("failed", name), one.name) is not None:
            jobs.setdefault(name, []).append(one.name)
    wanted = {one.name for one in order.subjects if one.pane == "failed"}
    for group in groups(client, {one.queue for one in shot.failed if one.group in wanted}):
        if group.group in wanted:
            jobs.setdefault(group.queue, []).extend(reversed(group.jobs))
    count = sum(map(len, jobs.values()))
    effect = {
        "requeue": "each is put at the end of its queue with all its retries",
        "delete": "they are gone, and their chunks stand as cancelled",
    }[order.verb]
    words = f"{order.verb} {_count(count, 'failed job')} of {', '.join(jobs)}: {effect}"
    none = "none of them is among the failed any more"
    return Question(structs.replace(order, jobs=jobs), count, words if count else none)


def _of_jobs(_: Redis, order: Order, shot: Snapshot) -> Question:
    named = {one.name for one in order.subjects}
    found = [
        Subject(worker.name, job.id)
        for worker in shot.workers
        for job in worker.jobs
        if worker.state != "lost" and (worker.name in named or job.id in named)
    ]
    jobs = ", ".join(one.name for one in found)
    words = f"stop {_count(len(found), 'running job')} for good ({jobs}): none is run again"
    return Question(
        structs.replace(order, subjects=tuple(found)),
        len(found),
        words if found else "no job runs there",
    )


def _of_workers(_: Redis, order: Order, shot: Snapshot) -> Question:
    named = {one.name for one in order.subjects if one.pane == "workers"}
    found = [one.name for one in shot.workers if one.name in named and one.state != "lost"]
    running = sum(len(one.jobs) for one in shot.workers if one.name in found)
    words = (
        f"stop {_count(len(found), 'worker')} ({', '.join(found)}): "
        f"{_count(running, 'running job')} may end first, nothing more is claimed"
    )
    subjects = tuple(Subject("workers", name) for name in found)
    none = "there is no worker that lives; a host is opened with →, then choose its workers"
    return Question(structs.replace(order, subjects=subjects), len(found), words if found else none)


def _of_queues(client: Redis, order: Order, _: Snapshot) -> Question:
    names = [one.name for one in order.subjects]
    paused: Any = client.smembers(keys.PAUSED)
    if {name.encode() for name in names} <= paused:
        words = f"resume {_count(len(names), 'queue')} ({', '.join(names)}): jobs start again"
        return Question(structs.replace(order, verb="resume"), len(names), words)
    words = f"pause {_count(len(names), 'queue')} ({', '.join(names)}): no job of them starts"
    return Question(order, len(names), words)


def _of_waiting(client: Redis, order: Order, _: Snapshot) -> Question:
    counts = {one.name: int(client.llen(keys.queue(one.name))) for one in order.subjects}
    count = sum(counts.values())
    names = ", ".join(counts)
    words = f"empty {names}: all that waits then, {_count(count, 'job')} now; chunks are cancelled"
    return Question(order, count, words if count else f"nothing waits in {names}")


def _of_scans(_: Redis, order: Order, shot: Snapshot) -> Question:
    named = {one.name for one in order.subjects}
    scans = [one for one in shot.scans if one.scan_id in named]
    left = sum(one.chunks.total - one.chunks.done - one.chunks.failed for one in scans)
    words = f"cancel {', '.join(one.scan_id for one in scans)}: {_count(left, 'chunk')} not done"
    return Question(order, len(scans), words if scans else "it has ended")


ASK: dict[str, Callable[[Redis, Order, Snapshot], Question]] = {
    "requeue": _of_failed, "delete": _of_failed, "stop-job": _of_jobs, "stop": _of_workers,
    "pause": _of_queues, "empty": _of_waiting, "cancel": _of_scans,
}  # fmt: skip


def act(client: Redis, settings: Settings, order: Order) -> str:
    """Carry out an order that was answered with yes, and tell what came of it.

    Raises:
        RqscanError: of Redis, the store, or the settings; what was done so far stands.
    """
    with outage():
        return ACT[order.verb](client, settings, order)


def _requeue(client: Redis, settings: Settings, order: Order) -> str:
    with closing(Removal(settings, client)) as removal:
        return f"{_count(removal.requeue(order.jobs), 'job')} put back into the queue"


def _delete(client: Redis, settings: Settings, order: Order) -> str:
    with closing(Removal(settings, client)) as removal:
        return f"{_count(removal.delete(order.jobs), 'failed job')} deleted"


def _empty(client: Redis, settings: Settings, order: Order) -> str:
    with closing(Removal(settings, client)) as removal:
        done = [removal.empty(one.name) for one in order.subjects]
    stopping = sum(one.stopping for one in done)
    also = f"; {stopping} had started and are stopped" if stopping else ""
    return f"{_count(sum(one.removed for one in done), 'job')} removed{also}"


def _pause(client: Redis, _: Settings, order: Order) -> str:
    names = [one.name for one in order.subjects]
    for name in names:
        (ScanQueue.pause if order.verb == "pause" else ScanQueue.resume)(ScanQueue(name, client))
    return f"{', '.join(names)}: {'paused' if order.verb == 'pause' else 'open'}"


def _cancel(client: Redis, settings: Settings, order: Order) -> str:
    done = [cancel(settings, client, one.name) for one in order.subjects]
    queued, running = sum(one.queued for one in done), sum(one.running for one in done)
    return f"{queued} queued and {running} running chunks were cancelled"


def _stop(client: Redis, _: Settings, order: Order) -> str:
    names = [one.name for one in order.subjects]
    return _answers(client, "stop", {}, names, lambda data: f"is {data.get('state', 'told')}")


def _stop_jobs(client: Redis, _: Settings, order: Order) -> str:
    def said(data: dict[str, Any]) -> str:
        return f"{'stops' if data.get('stopped') else 'does not run'} {data.get('job_id')}"

    told = [
        _answers(client, "stop-job", {"job_id": job}, [worker], said)
        for worker, job in order.subjects
    ]
    return "; ".join(told)


def _answers(
    client: Redis,
    verb: str,
    args: dict[str, Any],
    names: Sequence[str],
    said: Callable[[dict[str, Any]], str],
) -> str:
    answers = {
        one.worker: one.error or said(one.data)
        for one, _ in tell(client, verb, args, workers=names, expected=names, timeout_s=ANSWER_S)
    }
    return "; ".join(
        f"{name} {answers.get(name, 'is SILENT: it did not answer')}" for name in names
    )


ACT: dict[str, Callable[[Redis, Settings, Order], str]] = {
    "requeue": _requeue, "delete": _delete, "empty": _empty, "pause": _pause, "resume": _pause,
    "cancel": _cancel, "stop": _stop, "stop-job": _stop_jobs,
}  # fmt: skip
