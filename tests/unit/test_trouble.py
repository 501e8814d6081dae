from datetime import UTC, datetime, timedelta

import pytest

from rqscan.fleet.reports import JobReport, SpoolReport
from rqscan.fleet.schedulers import Scheduler
from rqscan.monitor import trouble
from rqscan.monitor.figures import server
from rqscan.monitor.records import Entries, Queue, Schedule, Server, Snapshot, Trouble, Worker
from rqscan.tally import Idleness

AT = datetime(2026, 12, 1, 2, 0, tzinfo=UTC)


def snapshot(redis=None, **fields) -> Snapshot:
    said = {"up": True, "version": "7.0", "rtt_ms": 1} | (redis or {})
    return Snapshot(at=AT, redis=Server(**said), **fields)


def worker(name="db02.1", state="busy", beat_s=1.0, host="db02", **fields) -> Worker:
    return Worker(name=name, host=host, state=state, heartbeat_age_s=beat_s, **fields)


def queue(depth, workers, rates=(0, 0), **fields) -> Queue:
    come, go = rates
    about = {"paused": False} | fields
    return Queue(
        name="fast", depth=depth, oldest_s=None, running=0, in_per_s=come, out_per_s=go, failed=0,
        failed_1h=0, workers=workers, **about,
    )  # fmt: skip


def spool(**fields) -> SpoolReport:
    return SpoolReport(home="/var/lib/rqscan", **{"bytes": 4096} | fields)


def growing(first, middle, last) -> list[int]:
    return [first] * 5 + [first, *[middle] * 5, *[last] * 5]


def entry(due_in_s=60, **fields) -> Schedule:
    return Schedule(name="nightly", next_at=AT + timedelta(seconds=due_in_s), **fields)


def scheduler(number, entries) -> Scheduler:
    name, host = f"sched.{number}", f"web{number}"
    return Scheduler(name=name, host=host, pid=7, entries=entries, at=AT)


ODD = "has other entries on web1 than sched.3 on web3, which leads; let rqscan.toml be the same"
OUTSIDE = "target '192.0.2.1' is outside the scope"
NO_STORE = "cannot use the database: refused"
WAITS = "34 Mbit/s on eth0, 10 allowed; forced in 12 min"
IDLE = f"waiting for idle: {WAITS}"
OVERLAP = "the run before, scan nightly-20261201T010000Z, has not ended"


def job(age_s, limit_s=60) -> JobReport:
    return JobReport(id="s-0-1", kind="ports", age_s=age_s, limit_s=limit_s)


V1, V2 = {"rqscan": "1", "rq": "3"}, {"rqscan": "2", "rq": "3"}


CLOSED = "it died or its host did, its connection is closed: "
OPEN = "frozen or cut off, its connection is open: "
CLOCK = (
    "s off Redis': times are shown wrong there, certificates and logs mislead; "
    "set the clock of db02 by chrony or ntp (timedatectl set-ntp true)"
)
SAME = "install the same requirements on every host"
LATE = {"state": "lost", "beat_s": 250.2}
MIB = 1 << 20


@pytest.mark.parametrize(
    ("shot", "expected"),
    [
        (snapshot(), []),
        (snapshot(workers=[worker(), worker(state="idle")]), []),
        (
            snapshot(workers=[worker(**LATE, jobs=[job(260.4), job(12)])]),
            [("worker lost", "db02.1",
              "no beat for 250 s, held s-0-1 for 10 s, s-0-1 for 0 s by then")],
        ),
        (
            snapshot(workers=[worker(**LATE, jobs=[job(7500)] * 5, is_connected=False)]),
            [("worker lost", "db02.1", CLOSED + "no beat for 250 s, held "
              + ", ".join(["s-0-1 for 2 h"] * 3) + " and 2 more by then")],
        ),
        (
            snapshot(workers=[worker(state="lost", beat_s=900, is_connected=True)]),
            [("worker lost", "db02.1", OPEN + "no beat for 15 min")],
        ),
        (
            snapshot(workers=[worker("a", **LATE), worker("b"), worker("c", **LATE)]),
            [("worker lost", "a", "no beat for 250 s"), ("worker lost", "c", "no beat for 250 s")],
        ),
        (
            snapshot(workers=[
                worker("a", **LATE, is_connected=False, jobs=[job(259.4)]), worker("x", host="web"),
                worker("b", "lost", 90, is_connected=False, jobs=[job(100)]),
            ]),
            [("host lost", "db02", ("its 2 workers: killed or the host died, "
              "connections are closed: no beat for 90 s, "
              "held s-0-1 for 10 s, s-0-1 for 9 s by then"))],
        ),
        (
            snapshot(workers=[worker("a", **LATE, is_connected=False),
                              worker("b", **LATE, is_connected=True)]),
            [("host lost", "db02", ("its 2 workers: frozen or cut off, "
              "connections are open: no beat for 250 s"))],
        ),
        (
            snapshot(workers=[worker("a", **LATE, host=None), worker("b", **LATE, host=None)]),
            [("worker lost", "a", "no beat for 250 s"), ("worker lost", "b", "no beat for 250 s")],
        ),
        (
            snapshot(workers=[worker(state="stale", beat_s=5.25)]),
            [("worker stale", "db02.1", "no beat for 5.2 s", "warn")],
        ),
        (
            snapshot(workers=[worker(state="stale", beat_s=5.25, is_connected=True,
                                     jobs=[job(30)])]),
            [("worker stale", "db02.1", OPEN + "no beat for 5.2 s, holds s-0-1 for 30 s", "warn")],
        ),
        (
            snapshot(workers=[worker(state="mismatched")]),
            [("worker mismatched", "db02.1", "its record is of another version")],
        ),
        (
            snapshot(workers=[worker(state="mismatched", mismatch="store a here, b in the fleet")]),
            [("worker mismatched", "db02.1", "store a here, b in the fleet")],
        ),
        (snapshot(workers=[worker(holds="the spool is nearly full")]),
         [("claims held", "db02.1", "the spool is nearly full")]),
        (snapshot(workers=[worker(jobs=[job(61)])]), []),
        (snapshot(workers=[worker(jobs=[job(900, limit_s=0)])]), []),
        (
            snapshot(workers=[worker(jobs=[job(70)])]),
            [("job over limit", "s-0-1", "runs for 70 s on db02.1, its limit is 60 s")],
        ),
        (snapshot(workers=[worker(clock_offset_s=0.9)]), []),
        (
            snapshot(workers=[worker("a", clock_offset_s=-92.0), worker("b", clock_offset_s=-91)]),
            [("clock off", "db02", "+92.0 " + CLOCK)],
        ),
        (snapshot(workers=[worker(clock_offset_s=2.5)]),
         [("clock off", "db02", "-2.5 " + CLOCK, "warn")]),
        (snapshot(workers=[worker(clock_offset_s=2.5, **LATE)]),
         [("worker lost", "db02.1", "no beat for 250 s")]),
        (snapshot(workers=[worker(spool=spool())]), []),
        (snapshot(workers=[worker(spool=spool(rows=5, oldest_s=8.0))]), []),
        (
            snapshot(workers=[worker("a", spool=spool(rows=500, oldest_s=42.0)),
                              worker("b", spool=spool(rows=500, oldest_s=42.0))]),
            [("spool filling", "db02", ("500 rows wait for the store, the oldest for 43 s, "
              "4 KiB of 1.0 GiB; none was drained of late, see why: rqscan doctor"), "warn")],
        ),
        (
            snapshot(workers=[worker(spool=spool(
                rows=500, oldest_s=5.0, bytes=600 * MIB, drain_rows_per_s=25.0, eta_s=20.0,
                idle=Idleness(is_idle=False, reason=IDLE)))]),
            [("spool filling", "db02", ("500 rows wait for the store, the oldest for 6 s, "
              "600 MiB of 1.0 GiB; drained in 20 s at 25 rows/s"), "warn")],
        ),
        (
            snapshot(workers=[worker(spool=spool(
                rows=500, oldest_s=900.0, idle=Idleness(is_idle=False, reason=WAITS)))]),
            [("rows wait", "db02", f"500 rows wait for an idle network: {WAITS}", "note")],
        ),
        (snapshot(workers=[worker(spool=spool(
            rows=500, oldest_s=900.0, idle=Idleness(is_idle=True, reason="calm")))]), []),
        (
            snapshot(workers=[worker(spool=spool(quarantined=2))]),
            [("rows quarantined", "db02", ("the database refused rows 2 times; "
              "see them with: rqscan spool quarantine list"), "warn")],
        ),
        (snapshot(queues=[queue(0, 0), queue(5, 1), queue(None, 0)]), []),
        (
            snapshot(queues=[queue(5, 0)]),
            [("queue unserved", "fast",
              "5 jobs wait and no worker listens; run: rqscan worker fast")],
        ),
        (
            snapshot(queues=[queue(5, 0, (40.1, 0))]),
            [("queue unserved", "fast", ("5 jobs wait and no worker listens, "
              "40 more come each second; run: rqscan worker fast"))],
        ),
        (snapshot(queues=[queue(0, 0, paused=True)]), []),
        (
            snapshot(queues=[queue(5, 0, paused=True)]),
            [("queue paused", "fast", "5 jobs wait; run: rqscan queue resume fast", "note")],
        ),
        (
            snapshot(queues=[queue(90, 3, (2, 1.5), depths=growing(10, 50, 90))]),
            [("queue grows", "fast", ("90 jobs wait, 80 more than 10 minutes ago: "
              "2 come and 1.5 go each second; add workers"), "warn")],
        ),
        (snapshot(queues=[queue(90, 3, (1, 2), depths=growing(10, 50, 90))]), []),
        (snapshot(queues=[queue(90, 3, (2, 1), depths=growing(10, 95, 90))]), []),
        (snapshot(queues=[queue(90, 3, (2, 1), depths=[10, 90])]), []),
        (snapshot(schedules=[entry(-9.9)], leader="a"), []),
        (snapshot(schedules=[entry(-60, paused=True)], leader="a"), []),
        (snapshot(schedules=[entry(-60)]), []),  # a second trouble beside the missing leader
        (
            snapshot(schedules=[entry(-11)], leader="a"),
            [("schedule overdue", "nightly", "was due 11 s ago")],
        ),
        (snapshot(entries=Entries(count=5, planned=None, runs=None)), []),
        (
            snapshot(entries=Entries(count=5, planned=3, runs=1)),
            [("no scheduler", "schedule",
              "3 entries to start, 1 runs to make and no leader; run: rqscan scheduler")],
        ),
        (
            snapshot(entries=Entries(count=1, planned=1)),
            [("no scheduler", "schedule",
              "1 entries to start and no leader; run: rqscan scheduler")],
        ),
        (
            snapshot(schedules=[entry(state="invalid", reason="cron '61 * * * *' is wrong")]),
            [("entry invalid", "nightly", "cron '61 * * * *' is wrong", "warn")],
        ),
        (
            snapshot(schedules=[entry(outcome="refused", reason=OUTSIDE)]),
            [("run refused", "nightly", OUTSIDE, "warn")],
        ),
        (
            snapshot(schedules=[entry(outcome="failed", reason="KeyError: 'x'")]),
            [("run failed", "nightly", "KeyError: 'x'", "warn")],
        ),
        (snapshot(schedules=[entry(outcome="refused", reason="")]), []),
        (snapshot(schedules=[entry(outcome="refused", reason=OUTSIDE, paused=True)]), []),
        (snapshot(schedules=[entry(outcome="refused", reason=OUTSIDE, state="disabled")]), []),
        (snapshot(schedules=[entry(outcome="skipped", reason=OVERLAP)]), []),
        (
            snapshot(schedules=[entry(state="waiting", outcome="waiting", reason=NO_STORE)]),
            [("run waits", "nightly", NO_STORE, "warn")],
        ),
        (snapshot(schedules=[entry(state="waiting", outcome="waiting", reason=IDLE)]), []),
        (snapshot(schedules=[entry(state="waiting", outcome="waiting", reason=OVERLAP)]), []),
        (snapshot(schedulers=[scheduler(1, "ab"), scheduler(2, "ab")], leader="sched.1"), []),
        (
            snapshot(
                schedulers=[scheduler(1, "ab"), scheduler(2, "cd"), scheduler(3, "cd")],
                leader="sched.3",
            ),
            [("schedulers differ", "sched.1", ODD, "warn")],
        ),
        (
            snapshot(workers=[worker("a", versions=V1), worker("b", versions=V1),
                              worker("c", versions=V2), worker("d")]),
            [("versions differ", "rqscan", f"c on db02 has 2, most 1; {SAME}", "warn")],
        ),
        (
            snapshot(workers=[worker(f"w{n}", versions=V1 | {"python": "3.1" + str(n == 0)})
                              for n in range(2)] + [worker("x", versions=V1)] * 2),
            [("versions differ", "python", ("w0 on db02 has 3.1True, "
              f"w1 on db02 has 3.1False, most none; {SAME}"), "warn")],
        ),
        (snapshot(workers=[worker("a", versions=V1), worker("c", "lost", 9, versions=V2)]),
         [("worker lost", "c", "no beat for 9 s")]),
        (snapshot({"eviction": "noeviction", "memory_bytes": 5, "memory_limit_bytes": 0}), []),
        (
            snapshot({"eviction": "allkeys-lru", "memory_limit_bytes": 10}),
            [("Redis evicts", "redis", ("maxmemory-policy is allkeys-lru: it may drop what is not "
              "done; set it to noeviction"), "fail")],
        ),
        (
            snapshot({"memory_bytes": 95 * MIB, "memory_limit_bytes": 100 * MIB}),
            [("Redis memory", "redis", ("95 MiB of 100 MiB (95%); raise maxmemory, or shorten "
              "result_ttl_s and failure_ttl_s"), "warn")],
        ),
        (
            snapshot({"is_replica": True, "unsaved": "aof_last_write_status is err"}),
            [("Redis is a replica", "redis",
              "it takes no writes; let redis.url lead to the server that does"),
             ("Redis cannot save", "redis", ("aof_last_write_status is err: it may refuse writes; "
              "see to its disk and its log"))],
        ),
    ],
)  # fmt: skip
def test_trouble_is_found_and_named_with_its_cause(shot, expected) -> None:
    assert trouble.find(shot) == [Trouble(*one) for one in expected]


def test_a_lost_worker_comes_before_all_else() -> None:
    shot = snapshot(
        queues=[queue(5, 0)],
        workers=[worker("a", "stale", 5), worker("b", "lost", 9)],
    )
    assert [t.what for t in trouble.find(shot)] == ["worker lost", "queue unserved", "worker stale"]


def test_what_fails_comes_before_what_is_late_and_notes_are_last() -> None:
    shot = snapshot(
        queues=[queue(5, 0, paused=True)],
        workers=[worker("a", "stale", 5), worker("b", jobs=[job(70)])],
        schedules=[entry(-60)],
        leader="a",
    )
    levels = [(one.what, one.level) for one in trouble.find(shot)]
    assert levels == [
        ("schedule overdue", "fail"), ("job over limit", "fail"), ("worker stale", "warn"),
        ("queue paused", "note"),
    ]  # fmt: skip


def test_a_spool_is_judged_by_what_it_may_hold() -> None:
    shot = snapshot(workers=[worker(spool=spool(rows=1, bytes=6 * MIB))])
    assert trouble.find(shot) == []
    (found,) = trouble.find(shot, 10 * MIB)
    assert found.what == "spool filling"
    assert found.cause.startswith("1 rows wait for the store, 6 MiB of 10 MiB; none was drained")


@pytest.mark.parametrize(
    ("info", "expected"),
    [
        (None, (None, None, None, None, None)),
        (("# Server\r\nredis_version:7.2.4\r\nrole:master\r\nused_memory:5\r\n"
         "rdb_last_bgsave_status:ok\r\n"), ("7.2.4", 5, None, False, None)),
        (("role:slave\r\nused_memory:x\r\nmaxmemory_policy:a:b\r\n"
         "aof_last_write_status:err\r\nrdb_last_bgsave_status:err\r\n"),
         (None, None, "a:b", True,
          "rdb_last_bgsave_status is err, aof_last_write_status is err")),
    ],
)  # fmt: skip
def test_a_server_is_known_by_its_info(info, expected) -> None:
    one = server(info, 1.0)
    found = (one.version, one.memory_bytes, one.eviction, one.is_replica, one.unsaved)
    assert found == expected


def test_many_bad_entries_do_not_hide_a_worker_s_trouble() -> None:
    bad = entry(outcome="refused", reason=OUTSIDE)
    shot = snapshot(schedules=[bad] * 9, workers=[worker("a", "stale", 5)])
    assert [t.what for t in trouble.find(shot)] == ["worker stale"] + ["run refused"] * 9


def test_away_keeps_the_figures_and_says_so_first() -> None:
    shot = snapshot(queues=[queue(5, 0)], trouble=[Trouble("queue unserved", "fast", "")])
    old = trouble.away(shot, "refused")
    assert (old.redis.up, old.queues, old.at) == (False, shot.queues, shot.at)
    assert [t.what for t in old.trouble] == ["Redis away", "queue unserved"]
