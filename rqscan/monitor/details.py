"""Details: all that is known of one subject, as a page; a job's payload is read here alone."""

import re
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime
from typing import Any

import msgspec
from msgspec import structs
from redis import Redis

from rqscan.broker import keys
from rqscan.broker.connect import outage
from rqscan.clock import iso
from rqscan.fleet.judging import size
from rqscan.monitor.failed import details
from rqscan.monitor.records import Snapshot, Worker
from rqscan.monitor.screen.columns import age
from rqscan.monitor.screen.state import Page, PageLine, Subject

__all__ = ["read"]

Lines = Iterator[PageLine]
Connect = Callable[[], Redis]

ENDS = 10
"""Jobs that are named at either end of a queue."""

WRAP = 240
"""Longest line of a page: it is wrapped where it is shown, and the cursor moves by lines."""

UNIT = re.compile(r"_(s|bytes)$")
"""Ends a name whose value is written with its unit."""

MAX_ARGUMENTS = 20_000
"""Characters that are shown of a job's arguments."""


def read(connect: Connect, subject: Subject, shot: Snapshot) -> Page:
    """Read what is known of a subject.

    Args:
        connect: gives a client of Redis, which reads bytes, where the snapshot does not tell all.
        subject: of the screen.
        shot: where most of it is told.

    Raises:
        RedisUnavailable: it is away.
    """
    with outage():
        if subject.pane == "job":
            return _job(connect(), subject)
        found = {
            "queues": _queue, "workers": _worker, "host": _host, "failed": _group,
            "schedule": _entry, "scans": _scan, "waits": _wait, "trouble": _trouble,
        }[subject.pane](connect, subject.name, shot)  # fmt: skip
        title = f"{TITLES.get(subject.pane, subject.pane)} {subject.name}"
        lines = tuple(_cut(found))
    at = next((i for i, line in enumerate(lines) if line.subject), 0)
    return Page(subject, title, lines, at if subject.pane in LISTS else 0)


TITLES = {
    "queues": "queue", "workers": "worker", "failed": "failed jobs", "scans": "scan",
    "waits": "waiting:", "schedule": "schedule entry",
}  # fmt: skip


LISTS = {"failed", "host", "trouble"}
"""Pages that are read to choose from: the cursor begins at the first choice."""


def _cut(lines: Iterable[PageLine]) -> Lines:
    for line in lines:
        for at in range(0, max(1, len(line.text)), WRAP):
            yield PageLine(line.text[at : at + WRAP], line.subject)


def _facts(known: dict[str, Any]) -> Lines:
    """Write what is known by name; the names' suffixes tell the units."""
    for name, value in known.items():
        if value not in (None, "", [], {}):
            words = UNIT.sub("", name).replace("_", " ")
            yield PageLine(f"{words:18}{_written(name, value)}")


def _written(name: str, value: Any) -> str:
    match value:
        case dict():
            found = ", ".join(f"{key} {_written(key, one)}" for key, one in value.items() if one)
        case list():
            found = ", ".join(_written(name, one) for one in value)
        case datetime():
            found = iso(value)
        case int() if name.endswith("bytes"):
            found = size(value)
        case int() | float() if name.endswith("_s"):
            found = f"{value:+.3f}" if name.endswith("offset_s") else age(value)
        case float():
            found = f"{value:.3f}"
        case _:
            found = str(value)
    return found


def _head(text: str) -> Lines:
    yield PageLine("")
    yield PageLine(text)


def _job(client: Redis, subject: Subject) -> Page:
    known = details(client, subject.name, is_any=True)
    title = f"job {subject.name}"
    if known is None:
        return Page(subject, title, (PageLine("Redis keeps nothing of this job any more."),))
    lines = [
        *_facts(
            {k: v for k, v in known.items() if k not in {"traceback", "call", "losses", "results"}}
        ),
        *_attempts(known),
        *_arguments(known["call"]),
        *(_head("traceback") if known["traceback"] else ()),
        *(PageLine(line) for line in known["traceback"].splitlines()),
    ]
    return Page(
        subject,
        title,
        tuple(_cut(lines)),
        is_failed=known["status"] in {"failed", "stopped"},
        is_running=known["status"] == "started",
    )


def _attempts(known: dict[str, Any]) -> Lines:
    if known["results"] or known["losses"]:
        yield from _head("attempts, the last first")
    for one in known["results"]:
        yield PageLine(f"{one['at']}  {one['end']} on {one['worker'] or '?'}  {one['error']}")
    for line in known["losses"]:
        yield PageLine(f"lost  {line}")


def _arguments(call: Any) -> Lines:
    yield from _head("arguments")
    if call is None:
        yield PageLine("not JSON: it is not read")
        return
    text = msgspec.json.format(msgspec.json.encode(call), indent=2).decode()
    yield from (PageLine(line) for line in text[:MAX_ARGUMENTS].splitlines())
    if len(text) > MAX_ARGUMENTS:
        yield PageLine(f"… {len(text)} characters in all")


def _queue(connect: Connect, name: str, shot: Snapshot) -> Lines:
    found = next((one for one in shot.queues if one.name == name), None)
    yield from _facts(structs.asdict(found) if found else {})
    listening = [one for one in shot.workers if name in one.queues]
    yield from _head(f"{len(listening)} workers listen")
    yield from map(_of_worker, listening)
    yield from _head("failed jobs by error")
    for one in shot.failed:
        if one.queue == name:
            yield PageLine(f"{one.count:6}  {one.error}", Subject("failed", one.group))
    client = connect()
    first: Any = client.lrange(keys.queue(name), 0, ENDS - 1)
    last: Any = [job for job in client.lrange(keys.queue(name), -ENDS, -1) if job not in first]
    yield from _head("jobs that run next")
    yield from map(_of_job, first)
    if last:
        yield from _head("jobs that run last")
        yield from map(_of_job, last)


def _of_job(raw: bytes) -> PageLine:
    name = raw.decode(errors="replace")
    return PageLine(f"  {name}", Subject("job", name))


def _of_worker(one: Worker) -> PageLine:
    words = f"  {one.name}  {one.state}  beat {age(one.heartbeat_age_s)}  {len(one.jobs)} jobs"
    return PageLine(words, Subject("workers", one.name))


def _worker(_: Connect, name: str, shot: Snapshot) -> Lines:
    found = next((one for one in shot.workers if one.name == name), None)
    if found is None:
        yield PageLine("It is not listed any more.")
        return
    for one in shot.trouble:
        if one.object in {name, found.host, *(job.id for job in found.jobs)}:
            yield PageLine(f"! {one.what}: {one.cause}")
    yield from _facts(
        {k: v for k, v in structs.asdict(found).items() if k not in {"jobs", "spool", "spool_rows"}}
    )
    spool = structs.asdict(found.spool) if found.spool and found.spool.rows else {}
    idle = spool.pop("idle", None)
    yield from _facts({f"spool_{name}": value for name, value in spool.items()})
    yield from _facts({"spool_waits_for": idle.reason} if idle else {})
    yield from _head(f"{len(found.jobs)} jobs run")
    for job in found.jobs:
        done = "" if job.progress is None else f"{job.progress:.0%} done, "
        limit = age(job.limit_s) if job.limit_s else "no limit"
        words = f"  {job.id}  {job.kind}  {done}for {age(job.age_s)}, limit {limit}"
        yield PageLine(words, Subject("job", job.id))


def _host(_: Connect, name: str, shot: Snapshot) -> Lines:
    yield from (_of_worker(one) for one in shot.workers if (one.host or "?") == name)


def _group(_: Connect, name: str, shot: Snapshot) -> Lines:
    found = next((one for one in shot.failed if one.group == name), None)
    if found is None:
        yield PageLine("None of these jobs is among the failed any more.")
        return
    yield PageLine(found.error)
    yield from _facts(
        {k: v for k, v in structs.asdict(found).items() if k not in {"jobs", "error"}}
    )
    yield from _head(f"{len(found.jobs)} jobs, the newest first")
    yield from (PageLine(f"  {job}", Subject("job", job)) for job in found.jobs)


def _entry(connect: Connect, name: str, shot: Snapshot) -> Lines:
    found = next((one for one in shot.schedules if one.name == name), None)
    yield from _facts(structs.asdict(found) if found else {})
    yield from _head("as the leader has written it")
    yield from _facts(_texts(connect().hgetall(keys.schedule_entry(name))))
    yield PageLine("")
    yield PageLine(f"its runs: rqscan schedule history {name}")


def _scan(connect: Connect, name: str, shot: Snapshot) -> Lines:
    found = next((one for one in shot.scans if one.scan_id == name), None)
    yield from _facts(structs.asdict(found) if found else {"state": "ended"})
    yield from _facts(_texts(connect().hgetall(keys.progress(name))))
    yield PageLine("")
    yield PageLine(f"what it found: rqscan results {name}")


def _wait(_: Connect, name: str, shot: Snapshot) -> Lines:
    for entry in shot.schedules:
        if entry.name == name:
            yield PageLine(entry.reason or "")
    for one in shot.workers:
        if one.spool and one.spool.idle and one.host and name.endswith(f"rows of {one.host}"):
            yield PageLine(f"{one.name}: {one.spool.idle.reason}")


def _trouble(_: Connect, __: str, shot: Snapshot) -> Lines:
    workers, queues = {one.name for one in shot.workers}, {one.name for one in shot.queues}
    entries, hosts = {one.name for one in shot.schedules}, {one.host for one in shot.workers}
    for one in shot.trouble:
        pane = (
            "workers" if one.object in workers
            else "queues" if one.object in queues
            else "schedule" if one.object in entries
            else "host" if one.object in hosts
            else "job" if one.what.startswith("job") else None
        )  # fmt: skip
        link = Subject(pane, one.object) if pane else None
        yield PageLine(f"{one.level:5} {one.what:18} {one.object}: {one.cause}", link)
    if not shot.trouble:
        yield PageLine("Nothing is wrong.")


def _texts(raw: Any) -> dict[str, str]:
    return {k.decode(errors="replace"): v.decode(errors="replace") for k, v in raw.items()}
