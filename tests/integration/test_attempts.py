"""Attempts as a worker uses them: real templates and horses, a real Redis, and no worker."""

import os
import resource
import secrets
import selectors
import signal
import subprocess
import sys
import time
import zlib

import msgspec
import pytest

from rqscan.broker import keys, scripts
from rqscan.broker.payload import RUN_CHUNK
from rqscan.fleet.attempts import Attempts
from rqscan.fleet.ledger import Ledger
from rqscan.fleet.outage import Outage
from rqscan.fleet.stable.handle import NEWS_S
from rqscan.fleet.stable.wire import Assignment
from rqscan.settings import JobsSettings
from tests.rig import ROOT
from tests.servers import wait_for


class Direct:
    """A link that has every answer at once."""

    def __init__(self, client):
        self._client = client

    def send(self, *command, then):
        then(self._client.execute_command(*command))


class Loop:
    """Turns attempts as the worker's loop does."""

    def __init__(self, settings, client):
        for script in scripts.SCRIPTS:
            client.script_load(script.text)
        self.client, self.unrecorded = client, []
        self._selector = selectors.DefaultSelector()
        self._ledger = Ledger(
            "w",
            Outage(worker="w"),
            {"lost": 1},
            on_unrecorded=lambda *end: self.unrecorded.append(end),
        )
        odd = msgspec.structs.replace(settings, jobs=JobsSettings(str(ROOT / "tests/odd_kinds")))
        self.attempts = Attempts(odd, 2, self._selector, self._ledger, lambda: None)
        self.attempts.open()

    def turn(self):
        self.attempts.ask()
        self.attempts.enforce_limits()
        self._ledger.send(Direct(self.client))
        for key, events in self._selector.select(0.02):
            key.data(events)

    def until(self, condition):
        def turned():
            self.turn()
            return condition()

        return wait_for(turned, 60)

    def run(self, kind, said="1", scan="s", **fields):
        """Start a chunk of an odd kind under the id SCAN-0-1."""
        job, token = f"{scan}-0-1", f"token-{scan}"
        chunk = {
            "scan_id": scan, "chunk": 0, "kind": kind, "targets": ["127.0.0.1"],
            "params": {"ports": said},
        }  # fmt: skip
        data = zlib.compress(msgspec.json.encode([RUN_CHUNK, None, [], chunk]))
        self.client.hset(keys.job(job), mapping={"rqscan_token": token, "status": "started"})
        self.until(lambda: self.attempts.free)
        defaults = {"timeout_s": 60, "result_ttl_s": 60, "failure_ttl_s": 60}
        assignment = Assignment(
            queue="q", kind=kind, job_id=job, token=token, attempt=1, data=data, worker="w",
            clock_offset_s=0, **defaults | fields,
        )  # fmt: skip
        self.attempts.start(assignment)
        return job

    def status(self, job):
        return self.client.hget(keys.job(job), "status").decode()


@pytest.fixture
def loop(settings, redis_server, tmp_path, monkeypatch):
    monkeypatch.setenv("ODD_FOLDER", str(tmp_path))
    with redis_server.client() as client:
        made = Loop(settings, client)
        yield made
        made.attempts.close()


def test_a_job_is_stopped_for_good_and_its_chunk_is_to_be_recorded(loop):
    job = loop.run("swallow", retries=9)
    assert not loop.attempts.stop_job("another")
    assert loop.attempts.stop_job(job)
    loop.until(lambda: loop.status(job) == "stopped")
    assert loop.client.zscore(keys.registry("failed", "q"), job)
    (end,) = loop.unrecorded
    assert end[:6] == ("s", 0, 1, 1, "w", "rqscan.errors.FailedError: stopped by an operator")
    assert not loop.attempts.stop_job(job)


def test_the_stacks_of_one_job_or_of_all_are_told_and_cost_the_jobs_nothing(loop):
    first, second = loop.run("swallow", scan="a"), loop.run("polite", scan="b")
    answers = []
    loop.until(lambda: said_by(loop, first, "in swallow"))
    loop.until(lambda: said_by(loop, second, "in polite"))
    loop.attempts.dump_stacks(answers.append)
    loop.until(lambda: answers)
    loop.attempts.dump_stacks(answers.append, second)
    loop.until(lambda: len(answers) > 1)
    loop.attempts.dump_stacks(answers.append, "another")
    everything, one, none = answers
    assert list(everything) == [first, second]
    assert "in swallow" in everything[first]
    assert "in polite" in everything[second]
    assert "in swallow" not in everything[second]
    assert list(one) == [second]
    assert none == {}
    assert len(loop.attempts.running) == 2


def said_by(loop, job, text):
    """Ask for a job's stacks once; tell whether they hold a text."""
    answers = []
    loop.attempts.dump_stacks(answers.append, job)
    loop.until(lambda: answers)
    return text in answers[0].get(job, "")


@pytest.mark.parametrize("kind", ["stubborn", "signalled"])
def test_a_chunk_whose_horse_did_not_live_to_record_its_end_is_told(loop, kind):
    job = loop.run(kind, "9", timeout_s=2)  # the worker's limit of losses is 1
    loop.until(lambda: loop.unrecorded)
    assert loop.status(job) == "failed"
    (*chunk, error, _worked_s) = loop.unrecorded[0]
    assert chunk == ["s", 0, 1, 1, "w"]
    assert ("hard limit" if kind == "stubborn" else "SIGKILL") in error


def test_a_chunk_that_is_tried_again_is_not_told(loop):
    job = loop.run("stubborn", timeout_s=2, retries=1, retry_backoff_s=60, retry_backoff_max_s=90)
    loop.until(lambda: loop.status(job) == "scheduled")
    due = loop.client.zscore(keys.registry("scheduled", "q"), job)
    assert 40 < due - loop.client.time()[0] <= 73
    assert loop.unrecorded == []


def test_the_loop_goes_on_while_stacks_are_awaited_from_a_frozen_horse(loop):
    job = loop.run("swallow")
    (horse,) = loop.attempts.running
    loop.until(lambda: horse.pid)
    os.kill(horse.pid, signal.SIGSTOP)
    answers, turns = [], 0
    loop.attempts.dump_stacks(answers.append)
    while not answers:
        loop.turn()
        turns += 1
    assert turns > 10
    assert answers == [{job: "(the process did not answer)\n"}]


def test_nothing_is_free_before_the_template_has_forked(loop):
    loop.attempts.ask()
    assert loop.attempts.free == 0
    loop.until(lambda: loop.attempts.free)


def test_a_loop_that_was_kept_from_working_blames_no_template(loop):
    loop.until(lambda: loop.attempts.free)
    template, *_ = loop.attempts.pids
    os.kill(template, signal.SIGSTOP)
    loop.run("stubborn")  # for which another spare is asked
    loop.turn()
    until = time.monotonic() + NEWS_S + 2
    wait_for(lambda: time.monotonic() > until)
    loop.turn()
    os.kill(template, signal.SIGCONT)
    loop.until(lambda: loop.attempts.free)
    assert loop.attempts.pids[0] == template
    assert len(loop.attempts.running) == 1


def test_a_job_larger_than_a_sockets_buffer_is_written_as_it_is_read(loop, tmp_path):
    loop.until(lambda: len(loop.attempts.pids) == 3)
    _, *spares = loop.attempts.pids
    for pid in spares:
        os.kill(pid, signal.SIGSTOP)
    job = loop.run("stubborn", secrets.token_hex(1_000_000))
    loop.turn()
    for pid in spares:
        os.kill(pid, signal.SIGCONT)
    loop.until((tmp_path / "stubborn").exists)
    assert loop.status(job) == "started"


def test_a_template_that_cannot_be_had_is_tried_again(settings):
    selector = selectors.DefaultSelector()
    ledger = Ledger("w", Outage(worker="w"), {"lost": 1}, on_unrecorded=print)
    attempts = Attempts(settings, 1, selector, ledger, lambda: None)
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    free = os.dup(0)
    os.close(free)
    resource.setrlimit(resource.RLIMIT_NOFILE, (free, before[1]))
    try:
        attempts.open()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
    assert attempts.pids == []

    def turned():
        attempts.ask()
        for key, events in selector.select(0.02):
            key.data(events)
        return attempts.free

    wait_for(turned, 30)
    attempts.close()


@pytest.mark.root
def test_a_horse_that_has_become_another_user_has_no_stacks():
    program = "from rqscan.fleet.stable.stacks import Stacks; Stacks().ask(1, print)"
    nobody = ["setpriv", "--reuid=65534", "--clear-groups", "--inh-caps=-all,+dac_read_search"]
    nobody.append("--ambient-caps=-all,+dac_read_search")
    subprocess.run([*nobody, sys.executable, "-c", program], check=True, cwd=ROOT)
