from datetime import timedelta

import pytest
from msgspec import structs
from rich.cells import cell_len

from rqscan.fleet.reports import JobReport, SpoolReport
from rqscan.model import Counts
from rqscan.monitor import trouble
from rqscan.monitor.records import Entries, Failure, Schedule, Server, Snapshot, Task, Worker
from rqscan.monitor.screen.fit import ENDLESS, fit
from rqscan.monitor.screen.state import State
from rqscan.tally import Idleness
from tests.shots import AT, IDLE, queue


def worker(number, state="busy", **fields) -> Worker:
    job = JobReport(id=f"nightly-{number}-1", kind="ports", age_s=31, limit_s=600, progress=0.4)
    return structs.replace(
        Worker(name=f"web{number:02}.100", host="web", state=state, heartbeat_age_s=1.5,
               queues=["scan.fast"], jobs=[job], job=job.id, job_age_s=31, clock_offset_s=0.0,
               rss_bytes=90 << 20, done=1402, failed=3, versions={"rqscan": "1"}),
        **fields,
    )  # fmt: skip


def fleet(workers=200) -> Snapshot:
    shot = Snapshot(
        at=AT,
        redis=Server(up=True, version="7.2.4", rtt_ms=0.8),
        queues=[queue("report", 0, workers=1), queue("scan.fast", 12102, paused=True)],
        workers=[*(worker(n) for n in range(workers)), worker(7, "lost", heartbeat_age_s=252)],
        failed=[Failure(group="ab", error="TimeoutError: connect to <ip>", count=31, queue="fast",
                        last_at=AT - timedelta(seconds=12), workers=["web01.100"], jobs=["j"])],
        schedules=[Schedule(name="nightly", next_at=AT + timedelta(hours=1), state="waiting",
                            last_at=AT - timedelta(minutes=3), lateness_s=0.0312, reason=IDLE,
                            outcome="waiting")],
        scans=[Task(scan_id="nightly-1", state="running", chunks=Counts(40, 9, 1), eta_s=90,
                    progress=0.25)],
        leader="db01.7",
        entries=Entries(count=1, planned=1, runs=1),
        counters={"rescued": 2, "lost": 1, "refused": 0, "fenced": 0},
    )  # fmt: skip
    return structs.replace(shot, trouble=list(trouble.find(shot)))


def text(lines) -> list[str]:
    return [line.plain for line in lines]


@pytest.mark.parametrize("width", [40, 41, 60, 80, 99, 140, 200])
@pytest.mark.parametrize("height", [8, 9, 12, 16, 24, 45, 60])
@pytest.mark.parametrize("is_ascii", [False, True])
def test_no_line_is_wider_and_no_frame_higher_than_the_screen(width, height, is_ascii) -> None:
    for shot in (fleet(), fleet(workers=0), Snapshot(at=AT, redis=Server(True, None, 0.0))):
        lines = text(fit(shot, width, height, is_ascii=is_ascii))
        assert len(lines) <= height
        assert max(map(cell_len, lines)) <= width
        assert not is_ascii or "".join(lines).isascii()


def test_the_smallest_screen_has_trouble_queues_and_workers() -> None:
    lines = text(fit(fleet(), 40, 8))
    assert lines[0].split() == ["rqscan", "top", "LIVE", "14:03:07", "UTC"]
    assert lines[1].split()[:4] == ["WAIT", "12102", "RUN", "192"]
    assert lines[3].startswith("! WORKER LOST web07.100: no beat for 252")
    assert lines[4].split()[:2] == ["QUEUE", "WAIT"]
    assert lines[5].split()[:2] == ["scan.fast", "12102"]
    assert lines[6].split()[:2] == ["WORKER", "STATE"]
    assert lines[7].split()[:2] == ["web07.100", "lost"]


def test_each_trouble_has_a_line_while_they_take_a_quarter_of_the_screen() -> None:
    def shown(trouble, height):
        shot = structs.replace(fleet(workers=0), trouble=trouble)
        return [line for line in text(fit(shot, 120, height)) if line.startswith(("!", "-"))]

    lost = [trouble.Trouble("worker lost", f"w{n}", "died") for n in range(5)]
    kinds = [trouble.Trouble(f"kind {n}", "x", "y", "warn") for n in range(8)]
    assert shown(lost, 24) == [f"! WORKER LOST w{n}: died" for n in range(5)]
    assert shown([*lost, *lost], 24) == [
        "! WORKER LOST 10 w0, w1, w2, w3, w4, w0, w1, w2, w3, w4: died"
    ]
    assert shown([*kinds, lost[0]], 24)[-2:] == ["! KIND 7 x: y", "! WORKER LOST w0: died"]
    assert shown([*lost, *kinds], 12) == [
        "! WORKER LOST 5 w0, w1, w2, w3, w4: died",
        "! KIND 0 x: y",
        "! KIND 1 x: y",
        "! AND 1 kind 2, 1 kind 3, 1 kind 4, 1 kind 5, 1 kind 6, 1 kind 7",
    ]
    assert shown([trouble.Trouble("idle wait", "web", "rows", "note")], 24) == [
        "- idle wait web: rows"
    ]
    notes = [trouble.Trouble("idle wait", host, f"rows of {host}", "note") for host in "ab"]
    assert shown(notes, 24) == ["- idle wait 2 a, b: rows of a"]
    assert shown(notes, ENDLESS) == [f"- idle wait {host}: rows of {host}" for host in "ab"]


def test_columns_are_dropped_from_the_right_but_for_the_last() -> None:
    def titles(width):
        return next(line for line in text(fit(fleet(), width, 24)) if "QUEUE" in line).split()

    assert titles(120)[:11] == ["QUEUE", "WAIT", "RUN", "OLDEST", "FAIL", "+1h", "IN/s", "OUT/s",
                                "DRAIN", "WORKERS", "WAIT"]  # fmt: skip
    assert titles(120)[-1] == "STATE"
    assert titles(40) == ["QUEUE", "WAIT", "RUN", "OLDEST", "STATE"]
    assert titles(26) == ["QUEUE", "WAIT", "STATE"]
    assert titles(10) == ["QUEUE"]


def test_a_large_screen_shows_each_part() -> None:
    lines = text(fit(fleet(), 200, 60))
    assert len(lines) == 60
    assert lines[0] == "rqscan top  redis 7.2.4  rtt 0.8ms  LIVE 14:03:07 UTC"
    for part in (
        "WORKERS 201  busy 200  lost 1  RESCUED JOBS 2  LOST JOBS 1  REFUSED JOBS 0",
        "LEADER db01.7  ENTRIES 1  OVERDUE 0  RUNS TO MAKE 1  SCHEDULERS 0",
        "  nightly   waiting  1h00m  3m00s  31ms  01 15:03:07  waiting",
        "  nightly  in 12 min  waiting for idle: 34 Mbit/s on eth0, 10 allowed",
        "scan.fast  12102   96   5m31s",
        "paused",
        "  40%     1  10m00s  +0.0s  1402     3",
        "TimeoutError: connect to <ip>",
        " 25% █████░░░░░░░░░░░░░░░",
        "JOB  (1-42 of 201)",
        "1m30s",
    ):
        assert any(part in line for line in lines), part
    first_worker = next(i for i, line in enumerate(lines) if line.startswith("  WORKER ")) + 1
    assert lines[first_worker].split()[:2] == ["web07.100", "lost"]


def test_all_rows_are_there_when_the_height_has_no_end() -> None:
    lines = text(fit(fleet(), 120, 10**9))
    assert sum(line.startswith("  web") for line in lines) == 201
    assert not any(" of " in line for line in lines)


@pytest.mark.parametrize("width", [40, 80])
def test_the_status_stands_whatever_the_width(width) -> None:
    frozen, stale = State(is_frozen=True), trouble.away(fleet(), "refused")
    assert text(fit(fleet(), width, 8, frozen))[0].endswith("  FROZEN 14:03:07 UTC")
    assert text(fit(stale, width, 8, frozen))[0].endswith("  STALE 0.0s 14:03:07 UTC")


def entry(name, next_in_s=None, **fields) -> Schedule:
    next_at = None if next_in_s is None else AT + timedelta(seconds=next_in_s)
    return Schedule(name=name, next_at=next_at, **fields)


def test_a_schedule_begins_with_what_is_overdue_and_what_waits() -> None:
    entries = [
        entry("late", -75.5, state="scheduled", outcome="fired", lateness_s=0.25,
              last_at=AT - timedelta(hours=2)),
        entry("just", -3, state="scheduled"),
        entry("soon", 30, state="scheduled", outcome="skipped"),
        entry("waits", 90_000, state="waiting", outcome="waiting", reason="the run before"),
        entry("bad", state="invalid", reason="no such zone"),
        entry("off", state="paused", paused=True),
    ]  # fmt: skip
    counts = Entries(count=9000, planned=8998, overdue=1)
    shot = Snapshot(at=AT, redis=fleet().redis, leader="a", schedules=entries, entries=counts)
    assert [line.rstrip() for line in text(fit(shot, 80, 18))] == [
        "rqscan top  redis 7.2.4  rtt 0.8ms  LIVE 14:03:07 UTC",
        "WAIT 0  RUN 0  FAIL 0  +1h 0  IN/s 0  OUT/s 0  OLDEST -",
        "WORKERS 0",
        "LEADER a  ENTRIES 9000  OVERDUE 1  RUNS TO MAKE 0  SCHEDULERS 0",
        "  SCHEDULE  STATE          IN   LAST   LATE         NEXT  OUTCOME  (1-6 of 9000)",
        "  late      overdue    -1m15s  2h00m  250ms  01 14:01:51  fired",
        "  waits     waiting     1d01h      -      -  02 15:03:07  waiting",
        "  just      scheduled   -3.0s      -      -  01 14:03:04  -",
        "  soon      scheduled     30s      -      -  01 14:03:37  skipped",
        "  bad       invalid         -      -      -            -  -",
        "  off       paused          -      -      -            -  -",
        "  WAITING  FORCED  WHY",
        "  waits         -  the run before",
    ]


def test_rows_that_wait_for_idleness_say_so_once_for_each_host() -> None:
    idle = Idleness(is_idle=False, reason="jobs run or wait here; forced in 12 min")

    def keeper(number, rows, **fields) -> Worker:
        spool = SpoolReport(rows=rows, idle=idle)
        return worker(number, **{"spool": spool, "spool_rows": rows} | fields)

    calm = SpoolReport(rows=5, idle=structs.replace(idle, is_idle=True))
    workers = [
        keeper(1, 7), keeper(2, 40), keeper(3, 30), keeper(4, 2, host="db"),
        keeper(5, 9, host="gone", state="lost"), keeper(6, 0, host="empty"),
        worker(7, host="calm", spool=calm, spool_rows=5),
    ]  # fmt: skip
    shot = Snapshot(at=AT, redis=fleet().redis, workers=workers)
    lines = text(fit(shot, 80, 40))
    first = next(i for i, line in enumerate(lines) if line.startswith("  WAITING"))
    assert [line.strip() for line in lines[first + 1 :]] == [
        "2 rows of db    in 12 min  waiting for idle: jobs run or wait here",
        "40 rows of web  in 12 min  waiting for idle: jobs run or wait here",
    ]


def test_what_others_wrote_cannot_steer_the_terminal() -> None:
    evil = "\x1b]0;x\x07\u202eweb\u200b\r\n\x9b2J"
    shot = Snapshot(
        at=AT,
        redis=Server(up=True, version=evil, rtt_ms=1),
        queues=[queue(evil, 1)],
        workers=[worker(1, name=evil, state=evil)],
        failed=[structs.replace(fleet().failed[0], error=evil, workers=[evil])],
        leader=evil,
        trouble=[trouble.Trouble(evil, evil, evil)],
    )
    shown = "".join(text(fit(shot, 200, 60)))
    assert shown.isprintable()
    assert "]0;xweb" in shown


def test_wide_characters_count_as_two_cells() -> None:
    shot = structs.replace(fleet(), queues=[queue("扫描扫描扫描扫描扫描扫描扫描", 1)])
    lines = text(fit(shot, 40, 24))
    assert max(map(cell_len, lines)) <= 40
