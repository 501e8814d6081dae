"""What can be done from `rqscan top`: asked with a count, answered, done, and told."""

import json
import os
import signal

import pytest

from rqscan.broker import keys
from rqscan.broker.queues import ScanQueue
from rqscan.model import Chunk
from rqscan.settings import QueueSettings
from tests.scripted import ScriptedWorker
from tests.servers import wait_for
from tests.terminal import TOP, Terminal

ENTER = "\r"
SLOW = {"RQSCAN_ALLOW_FUNCTIONS": "time.sleep"}


@pytest.fixture
def client(redis_server):
    with redis_server.client() as found:
        yield found


@pytest.fixture
def top(rig):
    opened = []

    def start(*args, columns=120, lines=30, **env):
        settings = {"TERM": "xterm-256color", "LANG": "C.UTF-8"} | env
        terminal = Terminal(
            [*TOP, "-i", "0.5", *args], rig.env | settings, columns, lines, rig.folder
        )
        opened.append(terminal)
        terminal.until("LIVE")
        return terminal

    yield start
    for terminal in opened:
        terminal.close()


def put(client, count, queue="wakaka") -> list[str]:
    chunks = [
        Chunk(scan_id="s", chunk=n, kind="ports", targets=["127.0.0.1"], params={"ports": "80"})
        for n in range(count)
    ]
    list(ScanQueue(queue, connection=client).enqueue_chunks(chunks, QueueSettings()))
    return [f"s-{n}-1" for n in range(count)]


def fail(client, count) -> None:
    put(client, count)
    worker = ScriptedWorker(client, "web01.100")
    worker.beat()
    for n, job in enumerate(worker.claim(count)):
        why = f"Traceback:\n  line {n}\nTimeoutError: connect to 10.0.0.{n}:22"
        worker.end(job, "failed", why if n else "ValueError: of another cause")
    worker.beat()


def test_failed_jobs_are_requeued_by_their_group(client, top, rig) -> None:
    fail(client, 5)
    terminal = top()
    terminal.until("TimeoutError: connect to <ip>:<n>", "CAUSES 2")
    terminal.type("3/Timeout" + ENTER + "R")
    terminal.until("requeue 4 failed jobs of wakaka", "type 4 and Enter")
    terminal.type("3" + ENTER)
    terminal.until("'3' is not 4: nothing was done")
    assert client.zcard(keys.registry("failed", "wakaka")) == 5
    terminal.type("R")
    terminal.until("type 4 and Enter")
    terminal.type("4" + ENTER)
    terminal.until("4 jobs put back into the queue")
    assert client.zcard(keys.registry("failed", "wakaka")) == 1
    assert client.llen(keys.queue("wakaka")) == 4
    wait_for(lambda: not any("connect to" in line for line in terminal.lines()))


def test_a_job_is_opened_and_deleted_from_its_page(client, top, rig) -> None:
    fail(client, 1)
    terminal = top()
    terminal.until("of another cause")
    terminal.type("3" + ENTER)
    terminal.until("failed jobs", "s-0-1", "1 jobs, the newest first")
    terminal.type("G" + ENTER)
    terminal.until("job s-0-1", "ValueError: of another cause", "arguments", '"scan_id": "s"')
    terminal.type("G")
    terminal.until("traceback", "> ValueError: of another cause")
    terminal.type("D")
    terminal.until("delete 1 failed job of wakaka", "y: yes")
    terminal.type("y")
    terminal.until("1 failed job deleted")
    assert not client.exists(keys.job("s-0-1"))
    terminal.until("Redis keeps nothing of this job any more.")
    terminal.type("\x1b\x1b")
    wait_for(lambda: "of another cause" not in "".join(terminal.lines()))


def test_a_queue_is_paused_resumed_and_emptied(client, top, rig) -> None:
    put(client, 3)
    terminal = top()
    terminal.until("unserved")
    terminal.type("P")
    terminal.until("pause 1 queue (wakaka)", "y: yes")
    terminal.type("y")
    terminal.until("wakaka: paused")
    assert client.smembers(keys.PAUSED) == {b"wakaka"}
    wait_for(lambda: any(line.endswith("paused") for line in terminal.lines()))
    terminal.type("P")
    terminal.until("resume 1 queue (wakaka)")
    terminal.type("n")
    terminal.until("nothing was done")
    assert client.smembers(keys.PAUSED) == {b"wakaka"}
    terminal.type("P")
    terminal.until("resume 1 queue (wakaka)")
    terminal.type("y")
    terminal.until("wakaka: open")
    assert not client.exists(keys.PAUSED)
    terminal.type("E")
    terminal.until("empty wakaka: all that waits then, 3 jobs now", "type 3 and Enter")
    terminal.type("3" + ENTER)
    terminal.until("3 jobs removed")
    assert not client.llen(keys.queue("wakaka"))
    terminal.type("E")
    terminal.until("nothing waits in wakaka")


def test_a_job_and_its_worker_are_stopped_and_both_answer(client, top, rig) -> None:
    worker = rig.worker("default", "--name", "w1", "--concurrency", "1", **SLOW)
    job = ScanQueue("default", connection=client).enqueue("time.sleep", 600)
    terminal = top()
    terminal.until("w1", "busy", f"time.sleep {job.id[:8]}…")
    terminal.type("2X")
    terminal.until("stop 1 running job for good", "y: yes")
    terminal.type("y")
    terminal.until(f"w1 stops {job.id}")
    wait_for(lambda: job.get_status(refresh=True) == "stopped")
    terminal.type("W")
    terminal.until("stop 1 worker (w1)", "y: yes")
    terminal.type("y")
    terminal.until("w1 is stopping")
    assert worker.process.wait(60) == 0


def test_a_frozen_worker_s_silence_is_told(client, top, rig) -> None:
    worker = rig.worker("default", "--name", "w1", "--concurrency", "1")
    terminal = top()
    terminal.until("w1", "idle")
    os.kill(worker.process.pid, signal.SIGSTOP)
    try:
        terminal.type("2W")
        terminal.until("stop 1 worker (w1)")
        terminal.type("y")
        terminal.until("w1 is SILENT: it did not answer")
    finally:
        os.kill(worker.process.pid, signal.SIGCONT)


def test_readonly_offers_nothing_and_does_nothing(client, top, rig) -> None:
    put(client, 3)
    terminal = top("--readonly")
    terminal.until("unserved", "q quit")
    assert not any("P pause" in line for line in terminal.lines())
    terminal.type("E")
    terminal.until("read-only: nothing can be changed from here")
    assert client.llen(keys.queue("wakaka")) == 3


def test_a_redis_user_who_may_only_read_is_refused_in_one_sentence(
    client, top, rig, redis_server
) -> None:
    put(client, 3)
    rights = ["~rq:*", "~rqscan:*", "&rq:*", "+@read", "+@connection", "+time", "+info"]
    client.execute_command("ACL", "SETUSER", "watch", "on", ">pw", *rights, "+pubsub|channels")
    url = f"unix://watch:pw@{redis_server.socket}"
    terminal = top(RQSCAN_REDIS_URL=url)
    terminal.until("unserved")
    assert "pw@" not in "".join(terminal.lines())
    terminal.type("P")
    terminal.until("pause 1 queue (wakaka)")
    terminal.type("y")
    terminal.until("cannot use Redis")
    assert any("permission" in line.lower() for line in terminal.lines())
    assert not client.exists(keys.PAUSED)
    terminal.until("LIVE")


def test_a_scan_is_cancelled(client, top, rig) -> None:
    scan_id = rig.json("scan", "127.0.0.1", "-p", "80", "--no-wait", "-q", "default")["scan_id"]
    terminal = top()
    terminal.until(scan_id, "queued")
    terminal.type("5X")
    terminal.until(f"cancel {scan_id}: 1 chunk not done")
    terminal.type("y")
    terminal.until("1 queued and 0 running chunks were cancelled")
    scans = rig.json("scans")
    assert scans[0]["state"] == "cancelled"


def test_keys_are_answered_while_redis_is_frozen_and_actions_refuse(
    client, top, rig, redis_server
) -> None:
    put(client, 3)
    terminal = top()
    terminal.until("unserved")
    os.kill(redis_server.pid, signal.SIGSTOP)
    try:
        terminal.type("?")
        terminal.until("any key closes")
        terminal.type("x")
        terminal.until("STALE", "REDIS AWAY", "next try in")
        terminal.type("P")
        terminal.until("Redis is away: nothing can be changed now")
        terminal.type("!")
        terminal.until("Redis away", "queue unserved")
        terminal.type("\x1b")
    finally:
        os.kill(redis_server.pid, signal.SIGCONT)
    terminal.until("LIVE")
    assert not client.exists(keys.PAUSED)


def test_the_screen_is_saved_as_text_and_as_json(client, top, rig) -> None:
    put(client, 3)
    terminal = top()
    terminal.until("unserved")
    terminal.type("w")
    lines = terminal.until("saved rqscan-top-")
    name = next(line for line in lines if line.startswith("saved")).split()[1]
    assert "wakaka" in (rig.folder / name).read_text("utf-8")
    saved = json.loads((rig.folder / name).with_suffix(".json").read_bytes())
    assert {one["name"]: one["depth"] for one in saved["queues"]}["wakaka"] == 3
