"""`rqscan top` as a user meets it: on a terminal, in a pipe, with Redis away."""

import json
import os
import random
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from rqscan.broker import keys
from rqscan.broker.queues import ScanQueue
from rqscan.model import Chunk
from rqscan.settings import QueueSettings, Settings
from tests.scripted import ScriptedWorker
from tests.servers import RedisServer, wait_for
from tests.terminal import TOP, Terminal

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def env(settings: Settings) -> dict[str, str]:
    dropped = {"NO_COLOR", "FORCE_COLOR", "COLUMNS", "LINES"}
    return {k: v for k, v in os.environ.items() if k not in dropped} | {
        "TERM": "xterm-256color",
        "LANG": "C.UTF-8",
        "RQSCAN_HOME": settings.home,
        "RQSCAN_REDIS_URL": settings.redis.url,
    }


@pytest.fixture
def busy(redis_server: RedisServer) -> RedisServer:
    client = redis_server.client()
    chunks = [
        Chunk(scan_id="s", chunk=n, kind="ports", targets=["127.0.0.1"], params={})
        for n in range(3)
    ]
    list(ScanQueue("wakaka", connection=client).enqueue_chunks(chunks, QueueSettings()))
    ScriptedWorker(client, "web01.100").beat()
    return redis_server


@pytest.fixture
def terminal(env, busy) -> Iterator[Terminal]:
    terminal = Terminal([*TOP, "-i", "0.5"], env)
    yield terminal
    terminal.close()


def test_the_screen_shows_the_fleet_and_follows_it(terminal, busy) -> None:
    lines = terminal.until("LIVE", "web01.100")
    assert lines[0].startswith("rqscan top  redis ")
    assert any(line.strip(" >").split()[:2] == ["wakaka", "3"] for line in lines)
    busy.client().rpush(keys.queue("wakaka"), "one-more")
    wait_for(
        lambda: any(line.strip(" >").split()[:2] == ["wakaka", "4"] for line in terminal.lines())
    )


def test_up_shows_the_same_and_q_ends_all(env) -> None:
    del env["RQSCAN_REDIS_URL"]
    terminal = Terminal([*TOP[:-1], "up"], env)
    try:
        terminal.until("LIVE", "served")
        terminal.type("q")
        assert terminal.ended() == 0
        assert terminal.is_sane()
    finally:
        terminal.close()


def test_the_frame_follows_the_size(terminal) -> None:
    assert any("WORKERS" in line for line in terminal.until("web01.100"))
    terminal.resize(40, 8)
    wait_for(lambda: "  OUT/s" not in "".join(terminal.lines()) and "LIVE" in terminal.lines()[0])
    assert len(terminal.lines()) == 8
    terminal.resize(140, 30)
    terminal.until("RESCUED JOBS 0  LOST JOBS 0  REFUSED JOBS 0")


@pytest.mark.parametrize("key", ["q", "\x03"])
def test_it_ends_on_a_key_and_leaves_the_terminal_as_it_was(terminal, key) -> None:
    terminal.until("web01.100")
    assert not terminal.is_sane()
    terminal.type(key)
    assert terminal.ended() == 0
    assert terminal.is_sane()
    assert terminal.raw.endswith(b"\x1b[?25h\x1b[?1049l")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_leaves_the_terminal_as_it_was(terminal, number) -> None:
    terminal.until("web01.100")
    terminal.process.send_signal(number)
    assert terminal.ended() == 0
    assert terminal.is_sane()


def test_freeze(terminal, busy) -> None:
    terminal.until("web01.100", "q quit")
    terminal.type("Z")
    terminal.until("FROZEN", "web01.100")
    client = busy.client()
    client.rpush(keys.queue("wakaka"), "one-more")
    now, _ = client.time()
    wait_for(lambda: client.time()[0] > now + 2)  # four times the interval
    assert any(line.strip(" >").split()[:2] == ["wakaka", "3"] for line in terminal.lines())
    terminal.type("r")
    terminal.until("FROZEN")
    wait_for(
        lambda: any(line.strip(" >").split()[:2] == ["wakaka", "4"] for line in terminal.lines())
    )


def test_the_last_frame_stays_while_redis_is_away(terminal, busy) -> None:
    terminal.until("web01.100")
    busy.kill()
    lines = terminal.until("STALE", "REDIS AWAY", "web01.100")
    assert "cannot use Redis" in "".join(lines)
    busy.start()
    terminal.until("LIVE", "web01.100")


def test_a_frozen_redis_is_told_and_q_ends_it_all_the_same(terminal, busy) -> None:
    terminal.until("web01.100")
    os.kill(busy.pid, signal.SIGSTOP)
    try:
        terminal.until("STALE", "REDIS AWAY")
        terminal.type("q")
        assert terminal.ended() == 0
    finally:
        os.kill(busy.pid, signal.SIGCONT)


def test_a_shell_can_stop_it_and_get_it_back(env, busy) -> None:
    terminal = Terminal(["/bin/bash", "--norc", "--noprofile", "-i"], env | {"PS1": "ready> "})
    try:
        terminal.until("ready>")
        terminal.type(f"{' '.join(TOP)}\n")
        terminal.until("LIVE", "web01.100")
        terminal.type("\x1a")
        wait_for(lambda: terminal.lines() and b"Stopped" in terminal.raw.rpartition(b"1049l")[2])
        terminal.raw = b""
        terminal.type("fg\n")
        wait_for(lambda: terminal.lines() and b"LIVE" in terminal.raw.rpartition(b"1049h")[2])
        terminal.type("q")
        wait_for(lambda: terminal.lines() and b"ready>" in terminal.raw.rpartition(b"1049l")[2])
    finally:
        terminal.close()


def run(env, *args, **more) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*TOP, *args], env=env | more, cwd=ROOT, capture_output=True, text=True, timeout=60,
        stdin=subprocess.DEVNULL, check=False,
    )  # fmt: skip


@pytest.mark.parametrize("more", [{}, {"FORCE_COLOR": "1", "TTY_COMPATIBLE": "1"}])
def test_a_pipe_gets_plain_text_once(env, busy, more) -> None:
    done = run(env, **more)
    assert (done.returncode, done.stderr) == (0, "")
    assert "web01.100" in done.stdout
    assert "\x1b" not in done.stdout


def test_a_dumb_terminal_gets_plain_text_once(env, busy) -> None:
    terminal = Terminal(TOP, env | {"TERM": "dumb"})
    try:
        assert terminal.ended() == 0
        assert any("web01.100" in line for line in terminal.lines())
        assert b"\x1b" not in terminal.raw
    finally:
        terminal.close()


def test_no_color_is_no_color_but_still_a_screen(env, busy) -> None:
    busy.client().sadd(keys.QUEUES, keys.queue("other"))
    busy.client().rpush(keys.queue("other"), "one")
    for more, has_colours in (({}, True), ({"NO_COLOR": "1"}, False)):
        terminal = Terminal(TOP, env | more)
        try:
            terminal.until("LIVE", "QUEUE UNSERVED other")
            assert bool(re.search(rb"\x1b\[[0-9;]*3[0-8]", terminal.raw)) is has_colours
            assert b"\x1b[?1049h" in terminal.raw
        finally:
            terminal.close()


def test_ascii_is_ascii(env, busy) -> None:
    busy.client().zadd(keys.SCANS, {"s": 1})
    busy.client().hset(keys.progress("s"), mapping={"total": 4, "done": 2})
    assert "##########----------" in run(env, "--ascii").stdout
    assert (
        "##########----------"
        in run(env, LC_ALL="C", PYTHONUTF8="0", PYTHONIOENCODING="ascii").stdout
    )
    assert "██████████░░░░░░░░░░" in run(env).stdout


def test_json_is_one_object_or_one_line_a_refresh(env, busy) -> None:
    one = run(env, "--json")
    assert one.stdout.count("\n") == 1
    assert json.loads(one.stdout)["workers"][0]["name"] == "web01.100"
    two = [json.loads(line) for line in run(env, "--json", "-n2", "-i.5").stdout.splitlines()]
    assert len(two) == 2
    assert two[0]["at"] < two[1]["at"]


def test_refreshes_are_counted_on_a_terminal_too(env, busy) -> None:
    terminal = Terminal([*TOP, "-n2", "-i.5"], env)
    try:
        terminal.until("web01.100")
        assert terminal.ended() == 0
    finally:
        terminal.close()


def test_check_tells_trouble_by_its_exit_code(env, busy) -> None:
    assert (run(env, "--check").stdout, run(env, "--check").returncode) == ("", 0)
    ScriptedWorker(busy.client(), "db02.1", clock_offset_s=9.0).beat()
    checked = run(env, "--check")
    assert checked.returncode == 1
    assert checked.stdout.startswith("clock off web: ")
    assert run(env, "--once").returncode == 0


def test_without_redis_the_first_look_fails(env, tmp_path) -> None:
    nowhere = {"RQSCAN_REDIS_URL": f"unix://{tmp_path}/none"}
    for args in ([], ["--json"], ["--check"]):
        done = run(env, *args, **nowhere)
        assert (done.returncode, done.stdout) == (3, "")
        assert done.stderr.startswith("rqscan: error: cannot use Redis")
    terminal = Terminal(TOP, env | nowhere)
    try:
        assert terminal.ended() == 3
        assert terminal.until("rqscan: error: cannot use Redis")
        assert terminal.is_sane()
    finally:
        terminal.close()


CRASHES = """
from rqscan.monitor.screen.app import run
from rqscan.monitor.screen.state import State
from rqscan.monitor.screen.terminal import Terminal

class Hands:
    where = ""
    def look(self):
        raise RuntimeError("a fault of our own")

with Terminal() as terminal:
    run(terminal, Hands(), State(), None, is_ascii=False)
"""


def test_a_crash_leaves_the_terminal_as_it_was_and_is_told(env) -> None:
    terminal = Terminal([sys.executable, "-c", CRASHES], env)
    try:
        assert terminal.ended() == 1
        assert terminal.is_sane()
        assert b"RuntimeError: a fault of our own" in terminal.raw.rpartition(b"1049l")[2]
    finally:
        terminal.close()


@pytest.mark.parametrize("seed", range(2))
def test_no_key_and_no_size_ends_it(env, busy, seed) -> None:
    chance = random.Random(seed)
    typed = [*"jkgGhHfFoOsSabcxzZ123456 !?/drtwU+-RDXWPEyn", "\t", "\r", "\x1b", "\x7f", "\x0c",
             "\x1b[A", "\x1b[B", "\x1b[C", "\x1b[D", "\x1b[5~", "\x1b[6~", "31"]  # fmt: skip
    terminal = Terminal([*TOP, "-i", "0.5", "--readonly"], env)
    try:
        terminal.until("web01.100")
        for step in range(150):
            terminal.type("".join(chance.choices(typed, k=5)).replace("w", ""))
            if step % 5 == 0:
                terminal.resize(chance.randint(1, 200), chance.randint(1, 60))
                terminal.process.send_signal(signal.SIGWINCH)
            terminal.lines()
            assert terminal.process.poll() is None
        terminal.resize(80, 24)
        terminal.type("\x03")  # of all keys this one ends it wherever it is
        assert terminal.ended() == 0
        assert terminal.is_sane()
    finally:
        terminal.close()
