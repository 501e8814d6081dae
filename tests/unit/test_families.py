"""What a snapshot becomes for Prometheus, and what the dashboard, alerts and docs make of it."""

import json
import re
import threading
from datetime import UTC, datetime
from pathlib import Path

import pytest

from rqscan.fleet.reports import JobReport, SpoolReport
from rqscan.model import Counts
from rqscan.monitor.prometheus import metrics
from rqscan.monitor.prometheus.families import MAX_SCANS, families, redis_up
from rqscan.monitor.records import Failure, Server, Snapshot, Task, Trouble, Worker

DOCS = Path(__file__).resolve().parents[2] / "docs"
AT = datetime(2026, 12, 1, 2, 0, tzinfo=UTC)


def shot(**fields) -> Snapshot:
    return Snapshot(at=AT, redis=Server(up=True, version="7.0", rtt_ms=1), **fields)


def worker(name="w1", state="busy", beat_s=1.0, **fields) -> Worker:
    return Worker(name=name, host="db", state=state, heartbeat_age_s=beat_s, **fields)


def told(snapshot: Snapshot) -> dict[str, dict]:
    return {one.name.removeprefix("rqscan_"): one.figures for one in families(snapshot)}


@pytest.fixture(scope="module")
def known() -> dict[str, set[str]]:
    """Give the labels of each metric that there is, by the name of its series."""
    suffixes = metrics.SUFFIXES
    found = {
        one.name + suffixes.get(one.type, ""): set(one.labels)
        for one in (redis_up(is_up=True), *families(shot()))
    }
    return found | {"rqscan_scrape_duration_seconds": set()}


def test_of_a_lost_worker_nothing_is_told_that_ended_with_it() -> None:
    spool = SpoolReport(home="/h", rows=7)
    facts = {"concurrency": 4, "rss_bytes": 9, "clock_offset_s": 0.1, "done": 5, "spool": spool}
    found = told(shot(workers=[worker(**facts), worker("gone", "lost", 60.0, **facts)]))
    for name in ("places", "resident_memory_bytes", "clock_offset_seconds", "claims_held"):
        assert list(found[f"worker_{name}"]) == [("w1", "db")]
    assert found["worker_jobs_done"] == {("w1", "db"): 5, ("gone", "db"): 5}
    assert found["worker_state"] == {("w1", "db", "busy"): 1, ("gone", "db", "lost"): 1}
    assert (found["workers"]["busy",], found["workers"]["lost",]) == (1, 1)


def test_what_workers_of_a_home_tell_of_its_spool_is_told_once_and_as_of_the_newest_beat() -> None:
    old, new = SpoolReport(home="/h", rows=7, oldest_s=9.0), SpoolReport(home="/h")
    workers = [worker(beat_s=1, spool=new), worker("w2", beat_s=3, spool=old)]
    found = told(shot(workers=workers))
    assert (found["spool_rows"], found["spool_oldest_age_seconds"]) == ({("db", "/h"): 0}, {})


def test_a_figure_that_is_not_known_is_left_out_and_no_is_0() -> None:
    found = told(shot(workers=[worker(is_connected=None), worker("w2", is_connected=False)]))
    assert found["worker_connected"] == {("w2", "db"): 0}
    assert found["worker_oldest_job_age_seconds"] == {}
    assert found["redis_memory_bytes"] == {}


def test_names_that_look_alike_make_no_series_twice() -> None:
    found = told(shot(workers=[worker("\ufffd", done=1), worker("\ufffd", done=2)]))
    assert found["worker_jobs_done"] == {("\ufffd", "db"): 2}


def test_trouble_with_a_job_is_told_as_trouble_of_who_has_it() -> None:
    job = JobReport(id="s-0-1", kind="ports", age_s=70, limit_s=60)
    failed = Failure(
        group="g", error="E", count=1, last_at=AT, queue="q", workers=[], jobs=["s-0-2"]
    )
    trouble = [
        Trouble("job over limit", "s-0-1", "runs for 70 s"),
        Trouble("job odd", "s-0-2", "failed", "warn"),
        Trouble("clock off", "w1", "92 s"),
    ]
    found = told(shot(workers=[worker(jobs=[job])], failed=[failed], trouble=trouble))
    assert found["trouble"] == {
        ("job over limit", "w1", "fail"): 1,
        ("job odd", "q", "warn"): 1,
        ("clock off", "w1", "fail"): 1,
    }
    assert found["troubles"]["clock off", "fail"] == 1


def test_scans_with_series_of_their_own_are_bounded_and_all_are_counted() -> None:
    scans = [
        Task(scan_id=str(n), state="running", chunks=Counts(4, 1), eta_s=None)
        for n in range(MAX_SCANS + 1)
    ]
    found = told(shot(scans=scans))
    assert found["scans"] == {("running",): MAX_SCANS + 1}
    assert len(found["scan_chunks"]) == 4 * MAX_SCANS
    assert found["scan_chunks"]["0", "open"] == 3


@pytest.mark.parametrize(("shared_s", "looks"), [(60.0, 1), (-1.0, 4)])
def test_scrapers_that_come_together_share_a_look(monkeypatch, shared_s, looks) -> None:
    monkeypatch.setattr(metrics, "SHARED_S", shared_s)
    calls, is_looking, go_on = [], threading.Event(), threading.Event()

    def look() -> Snapshot:
        calls.append(1)
        is_looking.set()
        assert go_on.wait(30)
        return shot()

    collector = metrics.SnapshotCollector(look)
    got: list[int] = []
    threads = [
        threading.Thread(target=lambda: got.append(len(list(collector.collect()))))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    assert is_looking.wait(30)
    go_on.set()
    for thread in threads:
        thread.join(30)
    assert len(calls) == looks
    assert len(got) == 4
    assert len(set(got)) == 1


def test_a_fault_while_looking_harms_no_later_scrape() -> None:
    shots = [shot()]
    collector = metrics.SnapshotCollector(shots.pop)
    list(collector.collect())
    collector._until = 0.0
    with pytest.raises(IndexError):
        collector.collect()
    shots.append(shot())
    assert list(collector.collect())


def expressions() -> dict[str, str]:
    """Give each query of the dashboard and of the alerts, by where it is."""
    board = json.loads((DOCS / "grafana-dashboard.json").read_text())
    found = {
        f"{panel['title']} {target['refId']}": target["expr"]
        for panel in board["panels"]
        for target in panel.get("targets", [])
    }
    found |= {f"${one['name']}": one["query"]["query"] for one in board["templating"]["list"]}
    alerts = (DOCS / "prometheus-alerts.yml").read_text()
    rules = re.findall(r"- alert: (\w+)\n +expr: (.*(?:\n {10,}\S.*)*)", alerts)
    assert len(rules) == alerts.count("alert:")
    return found | dict(rules)


@pytest.mark.parametrize("where", expressions())
def test_what_dashboard_and_alerts_ask_for_is_told(known, where) -> None:
    expression = expressions()[where]
    asked = re.findall(r"\b(rqscan_[a-z_]+)\b(?:\{([^}]*)\})?", expression)
    versions = {label for label in known["rqscan_worker_info"] if label.endswith("_version")}
    names = [(name, matchers) for name, matchers in asked if name not in versions]
    assert names
    for name, matchers in names:
        labels = set(re.findall(r"(\w+)(?==|!=|=~)", re.sub('"[^"]*"', '""', matchers)))
        assert name in known, where
        assert labels <= known[name] | {"job"}, where
    grouped = re.findall(r"(?:by|on) ?\(([^)]*)\)", expression)
    grouped += re.findall(r"label_values\(.*, (\w+)\)", expression)
    every = set().union(*(known[name] for name, _ in names)) | {"job"}
    assert {label.strip() for part in grouped for label in part.split(",")} <= every


def test_the_dashboard_can_be_imported() -> None:
    text = (DOCS / "grafana-dashboard.json").read_text()
    board = json.loads(text)
    assert [one["name"] for one in board["__inputs"]] == ["DS_PROMETHEUS"]
    sources = [panel["datasource"]["uid"] for panel in board["panels"] if panel["type"] != "row"]
    assert set(sources) == {"${DS_PROMETHEUS}"}
    assert len({panel["id"] for panel in board["panels"]}) == len(board["panels"])
    cells = [
        (x, y)
        for panel in board["panels"]
        for x in range(panel["gridPos"]["x"], panel["gridPos"]["x"] + panel["gridPos"]["w"])
        for y in range(panel["gridPos"]["y"], panel["gridPos"]["y"] + panel["gridPos"]["h"])
    ]
    assert len(set(cells)) == len(cells)
    assert max(x for x, _ in cells) == 23
    variables = set(re.findall(r"\$(\w+)", text)) - {"__rate_interval"}
    assert variables == {one["name"] for one in board["templating"]["list"]}
    used = {
        word
        for legend in re.findall(r'"legendFormat": "(.*)"', text)
        for word in legend.split("{{")[1:]
    }
    labels = {label for one in families(shot()) for label in one.labels}
    assert {word.split("}}")[0] for word in used} <= labels


def test_the_docs_list_each_metric_with_its_labels(known) -> None:
    text = (DOCS / "monitoring.md").read_text()
    rows = re.findall(r"(?m)^\| `(rqscan_\w+)` \|([^|]*)\|", text)
    assert {name: set(filter(None, re.split(r"[ ,]+", labels))) for name, labels in rows} == known
    assert len(rows) == len(known)
