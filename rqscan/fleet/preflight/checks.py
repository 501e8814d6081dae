"""Preflight: judges what is known of Redis, the store, the workers and this host.

Pure functions from facts (`fleet.preflight.facts`) to checks: what is fine, what to look at, what
is wrong, and what to do about it.
"""

from collections.abc import Iterator
from enum import StrEnum

from msgspec import Struct

from rqscan.fleet.judging import (
    CLOCK_FAIL_S,
    CLOCK_WARN_S,
    MEMORY_SHARE,
    SET_CLOCK,
    SHOWN,
    clocks_off,
    size,
    some,
    unlike_versions,
)
from rqscan.fleet.preflight.facts import Facts, HostFacts, RedisFacts, SpoolFacts, WorkerFacts
from rqscan.fleet.schedulers import unlike
from rqscan.fleet.spooling import HIGH

__all__ = ["Check", "Status", "check"]

OLDEST_REDIS = (6, 2)
"""The first with BLMOVE and CLIENT LIST ID, which workers use."""

DISK_FAIL_BYTES = 64 << 20


class Status(StrEnum):
    """What a check came to."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


class Check(Struct, frozen=True):
    """One thing that was looked at."""

    name: str
    status: Status
    value: str
    advice: str | None = None


def check(facts: Facts) -> Iterator[Check]:
    """Judge everything that is known."""
    yield from _redis(facts.redis)
    yield from _store(facts)
    yield from _spool(facts.spool)
    if facts.redis.error is None:
        yield from _workers(facts.workers)
        yield from _versions(facts.workers)
        yield from _clocks(facts)
        yield from _queues(facts)
        yield from _scheduler(facts)
    yield from _host(facts.host)


def _redis(
    redis: RedisFacts, name: str = "redis", setting: str = "redis.url (RQSCAN_REDIS_URL)"
) -> Iterator[Check]:
    if redis.error is not None:
        advice = f"check {setting} and that the server runs and lets us in"
        yield Check(name, Status.FAIL, redis.error, advice)
        return
    version = tuple(int(part) for part in (redis.version or "").split(".")[:2] if part.isdecimal())
    value = f"{redis.version or 'a version that it does not tell'} at {redis.where}"
    if version and version < OLDEST_REDIS:
        yield Check(name, Status.FAIL, value, "use Redis 6.2 or newer, or Valkey")
    elif redis.role not in {None, "master"}:
        advice = f"let {setting} lead to the server that takes writes"
        yield Check(name, Status.FAIL, f"{value} is a replica", advice)
    else:
        yield Check(name, Status.OK, value)
    if redis.refused:
        advice = "allow this user INFO and CONFIG GET, or check those settings by hand"
        yield Check(f"{name} settings", Status.WARN, redis.refused, advice)
    if redis.write_error:
        advice = "mend it (disk, memory, replicas): it takes no writes"
        yield Check(f"{name} writes", Status.FAIL, redis.write_error, advice)
    yield from _redis_settings(redis, name)


def _redis_settings(redis: RedisFacts, name: str) -> Iterator[Check]:
    if redis.appendonly is not None:
        value = f"appendonly {redis.appendonly}, appendfsync {redis.appendfsync}"
        is_safe = redis.appendonly == "yes" and redis.appendfsync != "no"
        advice = "set appendonly yes and appendfsync everysec: a crash then loses a second at most"
        status = Status.OK if is_safe else Status.WARN
        yield Check(f"{name} persistence", status, value, None if is_safe else advice)
    if redis.policy is not None:
        is_safe = redis.policy == "noeviction"
        status = Status.OK if is_safe else Status.FAIL if redis.most_bytes else Status.WARN
        advice = "set maxmemory-policy noeviction: any other may drop what is not done"
        yield Check(f"{name} eviction", status, redis.policy, None if is_safe else advice)
    if redis.used_bytes is not None:
        share = redis.used_bytes / redis.most_bytes if redis.most_bytes else 0.0
        value = f"{size(redis.used_bytes)} of {size(redis.most_bytes) if share else 'no limit'}"
        if share > MEMORY_SHARE:
            advice = "raise maxmemory, or shorten result_ttl_s and failure_ttl_s"
            status = Status.FAIL if share >= 1 else Status.WARN
            yield Check(f"{name} memory", status, value, advice)
        else:
            yield Check(f"{name} memory", Status.OK, value)


def _store(facts: Facts) -> Iterator[Check]:
    store = facts.store
    if store.error is not None:
        advice = "check database.url (RQSCAN_DATABASE_URL); workers go on without it meanwhile"
        yield Check("store", Status.FAIL, store.error, advice)
        return
    value = f"schema {store.version}, id {store.store_id or 'none yet'}"
    if store.pending and not store.version:
        value = "no tables yet; the first command that writes makes them"
        yield Check("store", Status.OK, value)
    elif store.pending:
        lacks = f"{value}, lacks {', '.join(store.pending)}"
        yield Check("store", Status.FAIL, lacks, "run: rqscan db migrate")
    elif facts.fleet_store and store.store_id and facts.fleet_store != store.store_id:
        wrong = f"id {store.store_id} here, {facts.fleet_store} in the fleet"
        advice = "let database.url be the same on all hosts of a fleet"
        yield Check("store", Status.FAIL, wrong, advice)
    else:
        yield Check("store", Status.OK, value)


def _spool(spool: SpoolFacts) -> Iterator[Check]:
    value = f"{spool.rows} rows wait for the store, {spool.share:.0%} of spool.max_bytes"
    if spool.error is not None:
        advice = "see to the disk of RQSCAN_HOME and who owns it"
        yield Check("spool", Status.FAIL, spool.error, advice)
    elif spool.share >= HIGH:
        advice = "workers of this home claim nothing; see to the store, or raise spool.max_bytes"
        yield Check("spool", Status.FAIL, value, advice)
    elif spool.late_s > 0:
        value += f", {spool.late_s:.0f} s longer than spool.max_delay_s"
        yield Check("spool", Status.WARN, value, "see why: rqscan spool drain")
    else:
        yield Check("spool", Status.OK, value if spool.rows else "nothing waits for the store")
    if spool.quarantined:
        value = f"{spool.quarantined} entries that the store refused"
        yield Check("quarantine", Status.WARN, value, "see them: rqscan spool quarantine list")
    if spool.stream:
        yield from _redis(spool.stream, "stream", "spool.redis_url (RQSCAN_SPOOL_REDIS_URL)")


def _workers(workers: list[WorkerFacts]) -> Iterator[Check]:
    if not workers:
        yield Check("workers", Status.WARN, "none is registered", "start one: rqscan worker QUEUE")
        return
    for worker in workers:
        on = f"{worker.name} on {worker.host or 'an unknown host'}"
        since = f"no beat for {worker.age_s:.0f} s"
        if worker.is_lost and not worker.answered:
            advice = "start it again, or forget it: after an hour it is no longer listed"
            yield Check("worker lost", Status.FAIL, f"{on}, {since}", advice)
        elif not worker.answered:
            advice = "it is frozen or cut off; look at its host"
            yield Check("worker silent", Status.FAIL, f"{on} does not answer, {since}", advice)
        if worker.mismatch:
            advice = "give it the fleet's database.url and the fleet's version of rqscan"
            yield Check("worker mismatched", Status.FAIL, f"{on}: {worker.mismatch}", advice)
    good = sum(one.answered and not one.mismatch for one in workers)
    status = Status.OK if good else Status.FAIL
    yield Check("workers", status, f"{good} of {len(workers)} answer and may work")


def _versions(workers: list[WorkerFacts]) -> Iterator[Check]:
    living = [one for one in workers if not one.is_lost]
    packages = sorted({package for one in living for package in one.versions})
    differing = 0
    for package, most, others in unlike_versions(living):
        differing += 1
        value = f"{package} {most} on most; {some(others)}"
        advice = "install the same requirements on every host"
        yield Check("versions", Status.WARN, value, advice)
    if living and not differing:
        one = living[0].versions
        value = ", ".join(f"{package} {one[package]}" for package in packages if package in one)
        yield Check("versions", Status.OK, value)


def _clocks(facts: Facts) -> Iterator[Check]:
    told = [(facts.host.name, facts.host.clock_offset_s)]
    told += [(one.host or one.name, one.clock_offset_s) for one in facts.workers if not one.is_lost]
    known = clocks_off(told)
    wrong = {host: off_s for host, off_s in known.items() if abs(off_s) > CLOCK_WARN_S}
    for host, off_s in wrong.items():
        status = Status.FAIL if abs(off_s) > CLOCK_FAIL_S else Status.WARN
        value = f"{host} is {off_s:+.1f} s off Redis' clock"
        yield Check("clock", status, value, SET_CLOCK.format(host))
    if not wrong:
        most_s = max(map(abs, known.values()))
        value = f"{len(known)} hosts are at most {most_s:.3f} s off Redis' clock"
        yield Check("clock", Status.OK, value)


def _queues(facts: Facts) -> Iterator[Check]:
    served = {name for one in facts.workers if not one.is_lost for name in one.queues}
    waiting = {name: depth for name, depth in facts.waiting.items() if depth}
    for name, depth in waiting.items():
        if name in facts.paused:
            advice = f"run: rqscan queue resume {name}"
            yield Check("queue paused", Status.WARN, f"{depth} jobs wait in {name}", advice)
        elif name not in served:
            advice = f"run: rqscan worker {name}"
            value = f"{depth} jobs wait in {name} and no worker listens"
            yield Check("queue unserved", Status.FAIL, value, advice)
    if all(name in served and name not in facts.paused for name in waiting):
        yield Check("queues", Status.OK, f"{sum(waiting.values())} jobs wait, each for a worker")


def _scheduler(facts: Facts) -> Iterator[Check]:
    odd = [f"{name} {why}" for name, why in unlike(facts.schedulers, facts.leader)]
    if facts.entries and not facts.leader:
        value = f"{facts.entries} entries to start and no scheduler"
        yield Check("scheduler", Status.FAIL, value, "run: rqscan scheduler")
    elif odd:
        advice = "give all the same rqscan.toml: which entries run must not depend on who leads"
        yield Check("scheduler", Status.WARN, some(odd), advice)
    else:
        yield Check("scheduler", Status.OK, facts.leader or "none, and none is needed")
    for name, why in list(facts.invalid.items())[:SHOWN]:
        advice = "it never runs; mend it, or remove it: rqscan schedule list"
        yield Check("schedule entry", Status.WARN, f"{name}: {why}", advice)
    if len(facts.invalid) > SHOWN:
        value = f"{len(facts.invalid) - SHOWN} more are invalid"
        yield Check("schedule entry", Status.WARN, value, "see them: rqscan schedule list")


def _host(host: HostFacts) -> Iterator[Check]:
    if host.home_error is not None:
        advice = "set RQSCAN_HOME to a folder that this user may write"
        yield Check("home", Status.FAIL, host.home_error, advice)
    else:
        yield Check("home", Status.OK, host.home)
        value = f"{size(host.free_bytes)} free at {host.home}"
        advice = f"make room: rows that wait for the store may need {size(host.wanted_bytes)}"
        if host.free_bytes < host.wanted_bytes:
            is_full = host.free_bytes < DISK_FAIL_BYTES
            yield Check("disk", Status.FAIL if is_full else Status.WARN, value, advice)
        else:
            yield Check("disk", Status.OK, value)
    if host.is_root:
        advice = "run workers as an ordinary user: what they run, runs as root too"
        yield Check("root", Status.WARN, "this runs as root", advice)
