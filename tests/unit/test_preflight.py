"""What `rqscan doctor` makes of what it learns."""

import json
from datetime import UTC, datetime, timedelta

import pytest
from msgspec.structs import replace

from rqscan.fleet.preflight.checks import check
from rqscan.fleet.preflight.facts import (
    Facts,
    HostFacts,
    RedisFacts,
    SpoolFacts,
    StoreFacts,
    WorkerFacts,
)
from rqscan.fleet.schedulers import Scheduler, living

REDIS = RedisFacts(
    where="redis://r", version="7.2.4", role="master", appendonly="yes", appendfsync="everysec",
    policy="noeviction", used_bytes=10 << 20, most_bytes=0,
)  # fmt: skip
HOST = HostFacts(
    name="h0", clock_offset_s=0.01, home="/h", home_error=None, free_bytes=8 << 30,
    wanted_bytes=1 << 30, is_root=False,
)  # fmt: skip
STORE = StoreFacts(version=2, store_id="s1")
WORKER = WorkerFacts(
    name="w1", answered=True, is_lost=False, age_s=1.0, host="h1", versions={"rq": "3.0"},
    clock_offset_s=0.02, queues=["default"],
)  # fmt: skip
AT = datetime(2026, 12, 1, tzinfo=UTC)
ODD = [Scheduler(name=f"s{n}", host=f"h{n}", pid=n, entries=f"digest {n}", at=AT) for n in (1, 2)]
GOOD = Facts(redis=REDIS, store=STORE, host=HOST, workers=[WORKER], waiting={"default": 3})


def found(facts):
    return {one.name: one for one in check(facts)}


def test_a_fleet_in_good_health_has_nothing_to_do():
    checks = list(check(GOOD))
    assert {one.status for one in checks} == {"ok"}
    assert [one.advice for one in checks] == [None] * len(checks)


@pytest.mark.parametrize(
    ("changed", "name", "status", "words"),
    [
        ({"error": "cannot use Redis"}, "redis", "fail", "cannot use Redis"),
        ({"version": "6.0.16"}, "redis", "fail", "6.0.16"),
        ({"role": "slave"}, "redis", "fail", "replica"),
        ({"refused": "NOPERM no config"}, "redis settings", "warn", "NOPERM"),
        ({"write_error": "aof_last_write_status is err"}, "redis writes", "fail", "err"),
        ({"appendonly": "no"}, "redis persistence", "warn", "appendonly no"),
        ({"appendfsync": "no"}, "redis persistence", "warn", "appendfsync no"),
        ({"policy": "allkeys-lru"}, "redis eviction", "warn", "allkeys-lru"),
        ({"policy": "allkeys-lru", "most_bytes": 1 << 30}, "redis eviction", "fail", "allkeys"),
        ({"most_bytes": 10 << 20}, "redis memory", "fail", "10 MiB of 10 MiB"),
    ],
)
def test_a_fault_of_redis_is_told(changed, name, status, words):
    one = found(replace(GOOD, redis=replace(REDIS, **changed)))[name]
    assert (one.status, words in one.value, bool(one.advice)) == (status, True, True)


@pytest.mark.parametrize(
    ("changed", "name", "status", "words"),
    [
        ({"is_lost": True, "answered": False, "age_s": 70.0}, "worker lost", "fail", "w1 on h1"),
        ({"answered": False}, "worker silent", "fail", "w1 on h1 does not answer"),
        ({"mismatch": "store a here, b in the fleet"}, "worker mismatched", "fail", "store a here"),
        ({"clock_offset_s": -600.0}, "clock", "fail", "h1 is +600.0 s off"),
        ({"clock_offset_s": 2.0}, "clock", "warn", "h1 is -2.0 s off"),
        ({"queues": []}, "queue unserved", "fail", "3 jobs wait in default"),
    ],
)
def test_a_fault_of_a_worker_is_told(changed, name, status, words):
    one = found(replace(GOOD, workers=[replace(WORKER, **changed)]))[name]
    assert (one.status, words in one.value, bool(one.advice)) == (status, True, True)


@pytest.mark.parametrize(
    ("changed", "name", "status", "words"),
    [
        ({"store": StoreFacts(error="cannot use it")}, "store", "fail", "cannot use it"),
        ({"store": StoreFacts(version=1, pending=["0002_x"])}, "store", "fail", "0002_x"),
        ({"fleet_store": "s2"}, "store", "fail", "s1 here, s2 in the fleet"),
        (
            {"spool": SpoolFacts(rows=7, share=0.8)},
            "spool",
            "fail",
            "7 rows wait for the store, 80%",
        ),
        ({"spool": SpoolFacts(rows=7, late_s=90)}, "spool", "warn", "90 s longer than"),
        ({"spool": SpoolFacts(error="cannot use it")}, "spool", "fail", "cannot use it"),
        ({"spool": SpoolFacts(quarantined=2)}, "quarantine", "warn", "2 entries"),
        ({"spool": SpoolFacts(stream=replace(REDIS, error="no"))}, "stream", "fail", "no"),
        (
            {"spool": SpoolFacts(stream=replace(REDIS, appendonly="no"))},
            "stream persistence",
            "warn",
            "appendonly no",
        ),
        ({"workers": []}, "workers", "warn", "none"),
        ({"paused": ["default"]}, "queue paused", "warn", "3 jobs"),
        ({"entries": 2}, "scheduler", "fail", "2 entries"),
        ({"entries": 2, "schedulers": ODD}, "scheduler", "fail", "2 entries"),
        (
            {"entries": 2, "leader": "s2", "schedulers": ODD},
            "scheduler",
            "warn",
            "s1 has other entries on h1 than s2 on h2, which leads",
        ),
        ({"schedulers": ODD}, "scheduler", "warn", "s2 has other entries on h2 than s1 on h1"),
        ({"invalid": {"a": "no zone"}}, "schedule entry", "warn", "a: no zone"),
        ({"invalid": {str(n): "" for n in range(9)}}, "schedule entry", "warn", "4 more"),
        ({"host": replace(HOST, home_error="cannot write /h")}, "home", "fail", "cannot write /h"),
        ({"host": replace(HOST, free_bytes=1 << 28)}, "disk", "warn", "256 MiB free"),
        ({"host": replace(HOST, free_bytes=1 << 20)}, "disk", "fail", "1 MiB free"),
        ({"host": replace(HOST, is_root=True)}, "root", "warn", "root"),
    ],
)
def test_another_fault_is_told(changed, name, status, words):
    one = found(replace(GOOD, **changed))[name]
    assert (one.status, words in one.value, bool(one.advice)) == (status, True, True)


def test_versions_that_differ_are_told_with_who_has_them():
    others = [replace(WORKER, name=f"w{n}") for n in range(2, 4)]
    odd = replace(WORKER, name="odd", host="h9", versions={"rq": "2.9"})
    one = found(replace(GOOD, workers=[WORKER, *others, odd]))["versions"]
    assert (one.status, one.value) == ("warn", "rq 3.0 on most; odd on h9 has 2.9")


def test_a_clock_of_a_lost_worker_is_of_no_concern():
    lost = replace(WORKER, name="gone", is_lost=True, answered=False, clock_offset_s=900.0)
    assert found(replace(GOOD, workers=[WORKER, lost]))["clock"].status == "ok"


def test_schedulers_live_that_were_seen_in_the_last_half_minute():
    def said(age_s):
        at = age_s if age_s == "x" else AT.timestamp() - age_s
        return json.dumps({"host": "h", "pid": 7, "entries": "ab", "at": at, "new": 1})

    known = {"b": said(30), "a": said(-0.5), "old": said(30.1), "odd": said("x"), "c": b"\xff"}
    first, second = living(known, AT)
    assert (first.name, first.at - AT) == ("a", timedelta(seconds=0.5))
    assert (second.name, AT - second.at) == ("b", timedelta(seconds=30))


def test_schedulers_with_the_same_entries_are_fine():
    same = [replace(one, entries="ab") for one in ODD]
    facts = replace(GOOD, leader="s1", entries=2, schedulers=same)
    assert (found(facts)["scheduler"].status, found(facts)["scheduler"].value) == ("ok", "s1")
