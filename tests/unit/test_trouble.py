from datetime import UTC, datetime, timedelta

import pytest

from rqscan.fleet.reports import JobReport
from rqscan.fleet.schedulers import Scheduler
from rqscan.monitor import trouble
from rqscan.monitor.records import Entries, Queue, Schedule, Server, Snapshot, Trouble, Worker

AT = datetime(2026, 12, 1, 2, 0, tzinfo=UTC)


def snapshot(**fields) -> Snapshot:
    return Snapshot(at=AT, redis=Server(up=True, version="7.0", rtt_ms=1), **fields)


def worker(name="db02.1", state="busy", beat_s=1.0, **fields) -> Worker:
    return Worker(name=name, host="db02", state=state, heartbeat_age_s=beat_s, **fields)


def queue(depth, workers) -> Queue:
    return Queue(
        name="fast", depth=depth, oldest_s=None, running=0, in_per_s=0, out_per_s=0, failed=0,
        failed_1h=0, paused=False, workers=workers,
    )  # fmt: skip


def entry(due_in_s=60, **fields) -> Schedule:
    return Schedule(name="nightly", next_at=AT + timedelta(seconds=due_in_s), **fields)


def scheduler(number, entries) -> Scheduler:
    name, host = f"sched.{number}", f"web{number}"
    return Scheduler(name=name, host=host, pid=7, entries=entries, at=AT)


ODD = "has other entries on web1 than sched.3 on web3, which leads; let rqscan.toml be the same"
OUTSIDE = "target '192.0.2.1' is outside the scope"
NO_STORE = "cannot use the database: refused"
IDLE = "waiting for idle: 34 Mbit/s on eth0, 10 allowed; forced in 12 min"
OVERLAP = "the run before, scan nightly-20261201T010000Z, has not ended"


def job(age_s, limit_s=60) -> JobReport:
    return JobReport(id="s-0-1", kind="ports", age_s=age_s, limit_s=limit_s)


V1, V2 = {"rqscan": "1", "rq": "3"}, {"rqscan": "2", "rq": "3"}


@pytest.mark.parametrize(
    ("shot", "expected"),
    [
        (snapshot(), []),
        (snapshot(workers=[worker(), worker(state="idle")]), []),
        (
            snapshot(workers=[worker(state="lost", beat_s=250.2, job="s-0-1", job_age_s=260.4)]),
            [("worker lost", "db02.1", "no beat for 250 s, held s-0-1")],
        ),
        (
            snapshot(workers=[worker(state="lost", beat_s=9)]),
            [("worker lost", "db02.1", "no beat for 9 s")],
        ),
        (
            snapshot(workers=[worker(state="stale", beat_s=5.25)]),
            [("worker stale", "db02.1", "no beat for 5.2 s")],
        ),
        (
            snapshot(workers=[worker(state="mismatched")]),
            [("worker mismatched", "db02.1", "its record is of another version")],
        ),
        (
            snapshot(workers=[worker(state="mismatched", mismatch="store a here, b in the fleet")]),
            [("worker mismatched", "db02.1", "store a here, b in the fleet")],
        ),
        (snapshot(workers=[worker(jobs=[job(61)])]), []),
        (snapshot(workers=[worker(jobs=[job(900, limit_s=0)])]), []),
        (
            snapshot(workers=[worker(jobs=[job(70)])]),
            [("job over limit", "s-0-1", "runs for 70 s on db02.1, its limit is 60 s")],
        ),
        (snapshot(workers=[worker(clock_offset_s=0.9)]), []),
        (
            snapshot(workers=[worker(clock_offset_s=-92.0)]),
            [("clock off", "db02.1", "the clock of db02 is +92.0 s off Redis'")],
        ),
        (snapshot(queues=[queue(0, 0), queue(5, 1), queue(None, 0)]), []),
        (
            snapshot(queues=[queue(5, 0)]),
            [
                (
                    "queue unserved",
                    "fast",
                    "5 jobs wait and no worker listens; run: rqscan worker fast",
                )
            ],
        ),
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
            [
                (
                    "no scheduler",
                    "schedule",
                    "3 entries to start, 1 runs to make and no leader; run: rqscan scheduler",
                )
            ],
        ),
        (
            snapshot(entries=Entries(count=1, planned=1)),
            [
                (
                    "no scheduler",
                    "schedule",
                    "1 entries to start and no leader; run: rqscan scheduler",
                )
            ],
        ),
        (
            snapshot(schedules=[entry(state="invalid", reason="cron '61 * * * *' is wrong")]),
            [("entry invalid", "nightly", "cron '61 * * * *' is wrong")],
        ),
        (
            snapshot(schedules=[entry(outcome="refused", reason=OUTSIDE)]),
            [("run refused", "nightly", OUTSIDE)],
        ),
        (
            snapshot(schedules=[entry(outcome="failed", reason="KeyError: 'x'")]),
            [("run failed", "nightly", "KeyError: 'x'")],
        ),
        (snapshot(schedules=[entry(outcome="refused", reason="")]), []),
        (snapshot(schedules=[entry(outcome="refused", reason=OUTSIDE, paused=True)]), []),
        (snapshot(schedules=[entry(outcome="refused", reason=OUTSIDE, state="disabled")]), []),
        (snapshot(schedules=[entry(outcome="skipped", reason=OVERLAP)]), []),
        (
            snapshot(schedules=[entry(state="waiting", outcome="waiting", reason=NO_STORE)]),
            [("run waits", "nightly", NO_STORE)],
        ),
        (snapshot(schedules=[entry(state="waiting", outcome="waiting", reason=IDLE)]), []),
        (snapshot(schedules=[entry(state="waiting", outcome="waiting", reason=OVERLAP)]), []),
        (snapshot(schedulers=[scheduler(1, "ab"), scheduler(2, "ab")], leader="sched.1"), []),
        (
            snapshot(
                schedulers=[scheduler(1, "ab"), scheduler(2, "cd"), scheduler(3, "cd")],
                leader="sched.3",
            ),
            [
                (
                    "schedulers differ",
                    "sched.1",
                    ODD,
                )
            ],
        ),
        (
            snapshot(workers=[worker("a", versions=V1), worker("b", versions=V1),
                              worker("c", versions=V2)]),
            [("versions differ", "rqscan", "1 on 2, 2 on 1 workers")],
        ),
        (snapshot(workers=[worker("a", versions=V1), worker("c", "lost", 9, versions=V2)]),
         [("worker lost", "c", "no beat for 9 s")]),
    ],
)  # fmt: skip
def test_trouble_is_found_and_named_with_its_cause(shot, expected) -> None:
    assert list(trouble.find(shot)) == [Trouble(*one) for one in expected]


def test_a_lost_worker_comes_before_all_else() -> None:
    shot = snapshot(
        queues=[queue(5, 0)],
        workers=[worker("a", "stale", 5), worker("b", "lost", 9)],
    )
    assert [t.what for t in trouble.find(shot)] == ["worker lost", "queue unserved", "worker stale"]


def test_many_bad_entries_do_not_hide_a_worker_s_trouble() -> None:
    bad = entry(outcome="refused", reason=OUTSIDE)
    shot = snapshot(schedules=[bad] * 9, workers=[worker("a", "stale", 5)])
    assert [t.what for t in trouble.find(shot)] == ["worker stale"] + ["run refused"] * 9


def test_away_keeps_the_figures_and_says_so_first() -> None:
    shot = snapshot(queues=[queue(5, 0)], trouble=[Trouble("queue unserved", "fast", "")])
    old = trouble.away(shot, "refused")
    assert (old.redis.up, old.queues, old.at) == (False, shot.queues, shot.at)
    assert [t.what for t in old.trouble] == ["Redis away", "queue unserved"]
