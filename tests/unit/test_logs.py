import io
import json
import logging
import os
import pty
import re
from datetime import UTC, datetime

import pytest

from rqscan import logs
from rqscan.logs import Event


@pytest.fixture
def logged():
    """Configure logging into a text, and undo it."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    stream = io.StringIO()

    def start(level="info", *, as_json=True):
        logs.configure(level, as_json=as_json, stream=stream)
        root.handlers += [h for h in handlers if h not in root.handlers]
        return stream

    yield start
    root.handlers[:], root.level = handlers, level


def test_json_line_has_time_level_and_event_first(logged):
    out = logged()
    logs.log(Event.JOB_STARTED, job="j1", at_most=3, due=datetime(2026, 12, 1, tzinfo=UTC))
    record = json.loads(out.getvalue())
    assert list(record)[:3] == ["at", "level", "event"]
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", record.pop("at"))
    assert record == {
        "level": "info",
        "event": "job_started",
        "job": "j1",
        "at_most": 3,
        "due": "2026-12-01T00:00:00.000000Z",
    }


def test_only_listed_events_can_be_logged(logged):
    out = logged()
    with pytest.raises(ValueError, match="made_up"):
        logs.log("made_up")
    assert out.getvalue() == ""


def test_records_of_rq_take_the_same_way(logged):
    out = logged()
    logging.getLogger("rq.worker").warning("moved %s jobs", 3)
    record = json.loads(out.getvalue())
    assert (record["level"], record["event"]) == ("warning", "moved 3 jobs")


@pytest.mark.parametrize(
    ("level", "events"), [("debug", 3), ("info", 3), ("warning", 2), ("error", 1), ("critical", 0)]
)
def test_level_holds_for_both_ways(logged, level, events):
    out = logged(level)
    logs.log(Event.JOB_STARTED)
    logs.log(Event.JOB_LOST)
    logging.getLogger("rq").error("x")
    assert len(out.getvalue().splitlines()) == events


def test_exception_is_one_text_field_in_json(logged):
    out = logged()
    try:
        1 / 0  # noqa: B018
    except ZeroDivisionError as e:
        logs.log(Event.JOB_FAILED, exc_info=e)
        logging.getLogger("rq").exception("x")
    ours, theirs = map(json.loads, out.getvalue().splitlines())
    for record in (ours, theirs):
        assert record["exception"].endswith("ZeroDivisionError: division by zero")
        assert "exc_info" not in record


def test_text_line_is_plain_and_without_what_a_terminal_would_obey(logged):
    out = logged(as_json=False)
    logs.log(Event.JOB_REFUSED, job="j1", reason="a\x1b[31m\nb")
    logging.getLogger("rq").info("one\ntwo\x1b[0m")
    ours, theirs = out.getvalue().splitlines()
    assert "\x1b" not in ours + theirs
    assert "warning" in ours
    assert "job_refused" in ours
    assert "job=j1" in ours
    assert "a [31m b" in ours
    assert "one two" in theirs


def test_text_shows_a_traceback(logged):
    out = logged(as_json=False)
    try:
        1 / 0  # noqa: B018
    except ZeroDivisionError:
        logs.log(Event.HORSE_DIED, exc_info=True)
    assert out.getvalue().rstrip().endswith("ZeroDivisionError: division by zero")


def test_colour_is_for_a_terminal_only(logged):
    logged()
    reader, writer = pty.openpty()
    with os.fdopen(reader, "rb") as seen, os.fdopen(writer, "w") as terminal:
        logs.configure("info", as_json=False, stream=terminal)
        logs.log(Event.JOB_LOST, job="j1")
        line = os.read(seen.fileno(), 1000).decode()
    assert "\x1b[33;1mwarning" in line
    assert "\x1b[36mjob\x1b[0m=\x1b[35mj1\x1b[0m" in line
