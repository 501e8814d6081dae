"""Every mistake gets one clear sentence and its exit code, and changes nothing."""

import os
import socket

import pytest

CASES = [
    (["scan", "10.0.0.256"], 2, "target '10.0.0.256'"),
    (["scan", "10.0.0.0/33"], 2, "target '10.0.0.0/33'"),
    (["scan", "10.0.0.9-3"], 2, "target '10.0.0.9-3'"),
    (["scan", "!nonsense!"], 2, "target '!nonsense!'"),
    (["scan", "no-such-host.invalid"], 2, "'no-such-host.invalid' cannot be resolved"),
    (["scan"], 2, "no target is given"),
    (["scan", "--targets-file", "missing.txt"], 2, "missing.txt"),
    (["scan", "127.0.0.1", "-p", "0"], 2, "ports '0'"),
    (["scan", "127.0.0.1", "-p", "70000"], 2, "ports '70000'"),
    (["scan", "127.0.0.1", "-p", "http"], 2, "'http'"),
    (["scan", "127.0.0.1", "-p", "90-80"], 2, "90-80"),
    (["scan", "127.0.0.1", "--kind", "prots"], 2, "did you mean 'ports'"),
    (["scan", "127.0.0.1", "--queue", "wakaak"], 2, "queue 'wakaak' is not declared"),
    (["scan", "127.0.0.1", "--name", "no spaces"], 2, "scan name 'no spaces'"),
    (["scan", "127.0.0.1", "--exclude", "127.0.0.1"], 2, "0 targets are left"),
    (["scan", "203.0.113.7"], 4, "'203.0.113.7' is outside the scope"),
    (["scan", "127.0.0.1", "224.0.0.1"], 4, "'224.0.0.1' is outside the scope"),
    (["results", "no-such-scan"], 2, "no-such-scan"),
    (["cancel", "no-such-scan"], 2, "no scan 'no-such-scan'"),
    (["cancel"], 2, "SCAN"),
    (["resume", "no-such-scan"], 2, "no scan 'no-such-scan'"),
    (["resume"], 2, "name one SCAN, or --all"),
    (["resume", "one", "--all"], 2, "name one SCAN, or --all"),
    (["results", "--since", "yesterday"], 2, "yesterday"),
    (["worker", "wakaak"], 2, "queue 'wakaak' is not declared"),
    (["worker", "--concurrency", "0"], 2, "0"),
    (["ping", "no-such-worker"], 2, "no worker 'no-such-worker'"),
    (["ping", "--timeout", "soon"], 2, "soon"),
    (["control", "drain"], 2, "name the workers, or tell them --all"),
    (["control", "drain", "no-such-worker"], 2, "no worker 'no-such-worker'"),
    (["control", "drain", "--all"], 1, "no worker is registered"),
    (["control", "log-level", "loud", "--all"], 2, "loud"),
    (["control", "stop-job", "no-such-job"], 2, "no job 'no-such-job'"),
    (["queue", "pause", "wakaak"], 2, "did you mean 'wakaka'?"),
    (["queue", "empty"], 2, "QUEUE"),
    (["failed", "show", "no-such-job"], 2, "no failed job 'no-such-job'"),
    (["failed", "requeue"], 2, "--all"),
    (["failed", "delete", "no-such-job"], 2, "no failed job or group 'no-such-job'"),
    (["failed", "show", "\udcff"], 2, r"\udcff' is no UTF-8 text; check the arguments"),
    (["results", "\udcff"], 2, r"'\udcff' is no UTF-8 text; check the arguments"),
    (["failed", "list", "--queue", "wakaak"], 2, "did you mean 'wakaka'?"),
    (["wroker"], 2, "worker"),
    (["scan", "127.0.0.1", "--prots", "1"], 2, "--ports"),
]


def check(done, code, words):
    assert done.returncode == code, done.stderr
    assert words in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""
    lines = done.stderr.splitlines()
    error = next(i for i, line in enumerate(lines) if line.startswith("rqscan: error: "))
    assert len(lines) - error <= 2  # the sentence and at most one of advice
    assert error == 0 or (code == 2 and lines[0].startswith("Usage:"))


@pytest.mark.parametrize(("arguments", "code", "words"), CASES, ids=lambda a: str(a)[:40])
def test_a_wrong_argument_is_named(rig, arguments, code, words):
    check(rig.run(*arguments), code, words)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[worker]\nheartbeat = 3\n", "unknown setting worker.heartbeat"),
        ('[worker]\nheartbeat_s = "3s"\n', "worker.heartbeat_s"),
        ("[worker\n", "line 1"),
        ('[scope]\nallow = ["10.0.0.0/8/9"]\n', "10.0.0.0/8/9"),
        ('[jobs]\npath = "no-such-folder"\n', "no-such-folder"),
    ],
)
def test_a_wrong_settings_file_is_named(rig, text, words):
    (rig.folder / "rqscan.toml").write_text(text)
    check(rig.run("scan", "127.0.0.1", "-p", "1"), 2, words)


def test_a_worker_tells_a_kind_that_cannot_be_loaded(rig):
    (rig.folder / "kinds").mkdir()
    (rig.folder / "kinds" / "broken.py").write_text("import no_such_module\n")
    (rig.folder / "rqscan.toml").write_text('[jobs]\npath = "kinds"\n')
    done = rig.run("worker")
    check(done, 2, "kind module kinds.broken cannot be loaded: ModuleNotFoundError")
    assert done.stderr.count("\n") == 1


def test_two_wrong_settings_are_told_at_once(rig):
    (rig.folder / "rqscan.toml").write_text("[spool]\nmax_mb = 1\n[redis]\nurl = 5\n")
    done = rig.run("config")
    check(done, 2, "did you mean spool.max_bytes?")
    assert "redis.url" in done.stderr


@pytest.mark.parametrize(
    "command",
    [["scan", "127.0.0.1"], ["top", "--once"], ["resume", "--all"], ["ping"], ["queue", "list"]],
)
def test_redis_that_refuses_is_told_at_once(rig, command):
    with socket.socket() as unused:  # bound and not listening: nobody else gets the port
        unused.bind(("127.0.0.1", 0))
        url = f"redis://:hunter2@127.0.0.1:{unused.getsockname()[1]}"
        done = rig.run(*command, RQSCAN_REDIS_URL=url)
    check(done, 3, "cannot use Redis at redis://")
    assert "hunter2" not in done.stderr


def test_redis_that_wants_a_password_is_told(rig, redis_server):
    with redis_server.client() as client:
        client.config_set("requirepass", "hunter2")
    check(rig.run("scan", "127.0.0.1"), 3, "cannot use Redis")
    with_password = redis_server.url.replace("unix://", "unix://:hunter2@")
    done = rig.run("scan", "127.0.0.1", "-p", "1", "--no-wait", RQSCAN_REDIS_URL=with_password)
    assert done.returncode == 0, done.stderr


def test_a_scan_that_redis_does_not_take_is_not_planned(rig, redis_server):
    with redis_server.client() as client:
        client.config_set("min-replicas-to-write", 1)
    check(rig.run("scan", "127.0.0.1", "-p", "1"), 3, "NOREPLICAS")
    assert rig.json("scans") == []
    done = rig.run("scan", "127.0.0.1", "-p", "1", "--no-wait")
    assert done.returncode == 0
    assert "starts when Redis is back" in done.stderr
    assert len(rig.json("scans")) == 1


def test_a_database_that_is_none_is_told(rig):
    garbage = rig.folder / "garbage.db"
    garbage.write_bytes(os.urandom(4096))
    check(rig.run("scans", RQSCAN_DATABASE_URL=f"sqlite:///{garbage}"), 3, "garbage.db")


def test_a_mysql_that_refuses_is_told_without_the_password(rig):
    url = f"mysql+pymysql://scan:hunter2@localhost/rqscan?unix_socket={rig.folder}/none.sock"
    done = rig.run("scans", RQSCAN_DATABASE_URL=url)
    check(done, 3, "none.sock")
    assert "hunter2" not in done.stderr


@pytest.mark.root
def test_what_an_ordinary_user_may_not_write_is_told(rig):
    locked = rig.folder / "locked"
    locked.mkdir(mode=0o755)
    rig.become_nobody()
    check(rig.run("scans", RQSCAN_DATABASE_URL=f"sqlite:///{locked}/rqscan.db"), 3, "rqscan.db")
    check(rig.run("scans", RQSCAN_HOME=str(locked / "home")), 3, str(locked / "home"))
