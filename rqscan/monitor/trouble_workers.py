"""Trouble with workers, and with the hosts that they are on."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence

from rqscan.fleet.judging import (
    CLOCK_FAIL_S,
    CLOCK_WARN_S,
    SET_CLOCK,
    clocks_off,
    lasting,
    size,
    some,
    unlike_versions,
)
from rqscan.fleet.reports import SpoolReport
from rqscan.monitor.records import Trouble, Worker

__all__ = ["of_living", "of_lost"]

LIMIT_GRACE_S = 2.0
"""A worker kills at the limit; a beat reports that up to so much later."""

SPOOLED_S = 10.0
"""Rows that the store takes are not kept for so long."""

SPOOL_SHARE = 0.5
"""Of what a spool may hold: from there on it fills."""

SHOWN = 3
"""So many jobs of a lost worker or host are named."""


def of_lost(workers: Sequence[Worker]) -> Iterator[Trouble]:
    """Find who is lost: a host with more than one worker is told once if all of them are."""
    of_host = defaultdict(list)
    for one in workers:
        of_host[one.host].append(one)
    for one in workers:
        there = of_host[one.host]
        if one.state != "lost":
            continue
        if one.host is None or len(there) == 1 or any(each.state != "lost" for each in there):
            cause = f"{_why([one])}no beat for {lasting(one.heartbeat_age_s)}{_held([one])}"
            yield Trouble("worker lost", one.name, cause)
        elif one is there[0]:
            since_s = min(each.heartbeat_age_s for each in there)
            cause = f"{_why(there)}no beat for {lasting(since_s)}{_held(there)}"
            yield Trouble("host lost", one.host, f"its {len(there)} workers: {cause}")


def of_living(workers: Sequence[Worker], spool_bytes: int) -> Iterator[Trouble]:
    """Find what is wrong with those that are not lost.

    Args:
        workers: all of them.
        spool_bytes: what a spool may hold.
    """
    living = [one for one in workers if one.state != "lost"]
    for one in living:
        yield from _of_worker(one)
    yield from _of_spools(living, spool_bytes)
    yield from _of_clocks(living)
    for package, most, others in unlike_versions(living):
        advice = "install the same requirements on every host"
        cause = f"{some(others)}, most {most}; {advice}"
        yield Trouble("versions differ", package, cause, "warn")


def _of_worker(one: Worker) -> Iterator[Trouble]:
    if one.state == "stale":
        held = ", ".join(f"{job.id} for {lasting(job.age_s)}" for job in one.jobs[:SHOWN])
        cause = f"{_why([one])}no beat for {one.heartbeat_age_s:.1f} s"
        yield Trouble("worker stale", one.name, cause + (f", holds {held}" if held else ""), "warn")
    if one.state == "mismatched":
        cause = one.mismatch or "its record is of another version"
        yield Trouble("worker mismatched", one.name, cause)
    if one.holds:
        yield Trouble("claims held", one.name, one.holds)
    for job in one.jobs:
        if 0 < job.limit_s < job.age_s - LIMIT_GRACE_S:
            cause = f"runs for {job.age_s:.0f} s on {one.name}, its limit is {job.limit_s} s"
            yield Trouble("job over limit", job.id, cause)


def _of_clocks(living: Iterable[Worker]) -> Iterator[Trouble]:
    told = ((one.host or one.name, one.clock_offset_s) for one in living if one.clock_offset_s)
    for host, ahead_s in clocks_off(told).items():
        if abs(ahead_s) > CLOCK_WARN_S:
            means = "times are shown wrong there, certificates and logs mislead"
            cause = f"{ahead_s:+.1f} s off Redis': {means}; {SET_CLOCK.format(host)}"
            yield Trouble(
                "clock off", host, cause, "fail" if abs(ahead_s) > CLOCK_FAIL_S else "warn"
            )


def _of_spools(living: Iterable[Worker], most_bytes: int) -> Iterator[Trouble]:
    seen = set()
    for one in living:
        where = one.host or one.name
        if one.spool is None or (where, one.spool.home) in seen:  # told by each that shares it
            continue
        seen.add((where, one.spool.home))
        yield from _of_spool(where, one.spool, one.heartbeat_age_s, most_bytes)


def _of_spool(where: str, spool: SpoolReport, age_s: float, most_bytes: int) -> Iterator[Trouble]:
    oldest_s = (spool.oldest_s or 0.0) + age_s
    waits = spool.idle is not None and not spool.idle.is_idle
    is_late = spool.rows > 0 and spool.oldest_s is not None and oldest_s > SPOOLED_S
    if (is_late and not spool.idle) or spool.bytes > most_bytes * SPOOL_SHARE:
        oldest = f", the oldest for {lasting(oldest_s)}" if spool.oldest_s is not None else ""
        rows = f"{spool.rows} rows wait for the store{oldest}"
        room = f"{size(spool.bytes)} of {size(most_bytes)}"
        pace = "none was drained of late, see why: rqscan doctor"
        if spool.eta_s is not None and spool.drain_rows_per_s:
            pace = f"drained in {lasting(spool.eta_s)} at {spool.drain_rows_per_s:g} rows/s"
        yield Trouble("spool filling", where, f"{rows}, {room}; {pace}", "warn")
    elif waits and spool.rows and spool.idle:
        cause = f"{spool.rows} rows wait for an idle network: {spool.idle.reason}"
        yield Trouble("rows wait", where, cause, "note")
    if spool.quarantined:
        advice = "see them with: rqscan spool quarantine list"
        cause = f"the database refused rows {spool.quarantined} times; {advice}"
        yield Trouble("rows quarantined", where, cause, "warn")


def _held(workers: Iterable[Worker]) -> str:
    """Name what they had when they were last heard of: it may be in other hands since."""
    jobs = [(job.age_s - one.heartbeat_age_s, job.id) for one in workers for job in one.jobs]
    named = [f"{name} for {lasting(max(0.0, age_s))}" for age_s, name in sorted(jobs)[::-1]]
    return f", held {some(named, SHOWN)} by then" if jobs else ""


def _why(workers: Sequence[Worker]) -> str:
    """Say what their connections tell of why they are silent."""
    known = {one.is_connected for one in workers}
    is_one = len(workers) == 1
    if True in known:
        return f"frozen or cut off, {'its connection is' if is_one else 'connections are'} open: "
    if known == {False} and is_one:
        return "it died or its host did, its connection is closed: "
    return "killed or the host died, connections are closed: " if known == {False} else ""
