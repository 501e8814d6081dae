import os
import subprocess
import sys

import pytest
import rich_click as click

from rqscan.cli import group, main, settings
from rqscan.errors import FailedError, RedisUnavailable, RefusedError, UsageError

COMMANDS = [
    "up", "worker", "scheduler", "scan", "scans", "results", "top", "metrics", "schedule", "config",
    "kinds", "db",
]  # fmt: skip


def run(code, *, stdout=subprocess.PIPE, **environ):
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        stdout=stdout,
        stderr=subprocess.PIPE,
        text=True,
        timeout=60,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)} | environ,
        check=False,
    )


@pytest.fixture
def command(monkeypatch):
    """Let `rqscan top` be the given function."""

    def replace(function):
        true = click.command()(function)
        module = type("module", (), {"top": true})
        monkeypatch.setattr(group, "import_module", lambda _name: module)

    return replace


def test_help_lists_every_command_in_its_panel_and_imports_none():
    child = run(
        "import sys; from rqscan.cli import main; code = main(['--help'])\n"
        "print(sorted({name.partition('.')[0] for name in sys.modules}), code)\n"
        "print(sorted(name for name in sys.modules if name.startswith('rqscan')))"
    )
    assert child.stderr == ""
    lines = child.stdout.splitlines()
    listed = [line.split()[1] for line in lines if line.startswith("│ ")]
    assert [name for name in listed if name in COMMANDS] == COMMANDS
    for panel in ("Run", "Scan", "Watch", "Set-up"):
        assert f"─ {panel} ─" in child.stdout
    for slow in ("rq", "redis", "aiosql", "pymysql", "psutil", "asyncio"):
        assert f"'{slow}'" not in lines[-2]
    assert lines[-2].endswith(" 0")
    assert lines[-1] == "['rqscan', 'rqscan.cli', 'rqscan.cli.group', 'rqscan.errors']"


def test_a_worker_has_nothing_in_memory_that_it_does_not_need():
    child = run("import sys, rqscan.cli.group, rqscan.cli.worker; print(*sys.modules)")
    unneeded = {
        "rich",
        "rich_click",
        "pymysql",
        "sqlite3",
        "rqscan.scan.kinds",
        "rqscan.scan.runner",
        "rqscan.store",
    }
    assert "rqscan.fleet.worker" in child.stdout.split()
    assert unneeded & set(child.stdout.split()) == set()


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help_and_takes_config(name, capsys):
    assert main([name, "--help"]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert f"Usage: rqscan {name}" in out
    assert "─ Options ─" in out
    assert "--config" in out


@pytest.mark.parametrize(
    ("platform", "advice"), [("win32", "use WSL"), ("darwin", "container"), ("freebsd14", "Linux")]
)
def test_other_platforms_get_one_sentence_before_anything_of_linux_is_imported(platform, advice):
    child = run(
        f"import sys; sys.platform = {platform!r}; sys.modules['fcntl'] = None\n"
        "from rqscan.cli import main; sys.exit(main(['top']))"
    )
    assert child.returncode == 2
    assert child.stderr.startswith("rqscan: error: rqscan runs on Linux only; ")
    assert advice in child.stderr
    assert child.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["tpo"], "No such command 'tpo'. Did you mean 'top'?"),
        (["--confg", "x"], "No such option '--confg'. Did you mean '--config'?"),
        (["scans", "--jsn"], "No such option '--jsn'. Did you mean '--json'?"),
        (["scans", "-n", "0"], "Invalid value for '-n': 0 is not in the range x>=1."),
        (["results", "--since", "soon"], "Invalid value for '--since': expected an ISO time"),
        (["results", "--since", "9999999999d"], "Invalid value for '--since': expected an ISO"),
    ],
)
def test_usage_error_gives_the_usage_line_one_sentence_and_2(args, message, capsys):
    assert main(args) == 2
    out, err = capsys.readouterr()
    usage, error = err.splitlines()
    assert out == ""
    assert usage.startswith("Usage: rqscan ")
    assert error.startswith(f"rqscan: error: {message}")


@pytest.mark.parametrize(
    ("raised", "code", "err"),
    [
        (UsageError("no scan\n'x\x1b[31m'"), 2, "rqscan: error: no scan 'x[31m'\n"),
        (FailedError("lost"), 1, "rqscan: error: lost\n"),
        (RedisUnavailable("away", advice="start\nit"), 3, "rqscan: error: away\nstart it\n"),
        (RefusedError("no"), 4, "rqscan: error: no\n"),
        (click.ClickException("odd"), 1, "rqscan: error: odd\n"),
        (
            FileNotFoundError(2, "No such file", "/x"),
            2,
            "rqscan: error: cannot use /x: No such file\n",
        ),
        (OSError(28, "No space left"), 1, "rqscan: error: cannot use stdout: No space left\n"),
        (click.Abort(), 130, ""),
        (KeyboardInterrupt(), 130, "\n"),
    ],
)
def test_every_end_has_its_exit_code(raised, code, err, command, capsys):
    def top():
        raise raised

    command(top)
    assert main(["top"]) == code
    assert capsys.readouterr() == ("", err)


@pytest.mark.parametrize(("given", "code"), [(None, 0), (0, 0), (1, 1)])
def test_what_a_command_returns_is_the_exit_code(given, code, command):
    command(lambda: given)
    assert main(["top"]) == code


def test_a_fault_of_our_own_keeps_its_traceback(command):
    def top():
        raise OSError(9, "Bad file descriptor")

    command(top)
    with pytest.raises(OSError, match="Bad file"):
        main(["top"])


@pytest.mark.parametrize("args", [["--config", "x.toml", "top"], ["top", "--config", "x.toml"]])
def test_config_is_taken_before_and_after_the_command(args, command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "x.toml").write_text("[worker]\nmax_lost = 7")
    seen = []
    command(lambda: seen.append(settings().worker.max_lost))
    assert main(args) == 0
    assert seen == [7]


def test_wrong_setting_ends_with_2_and_names_it(command, capsys, monkeypatch):
    monkeypatch.setenv("RQSCAN_WORKER_MAX_LOST", "x")
    command(settings)
    assert main(["top"]) == 2
    assert "RQSCAN_WORKER_MAX_LOST" in capsys.readouterr().err


@pytest.mark.parametrize("size", [1, 1_000_000])
def test_a_reader_that_left_is_no_news(size):
    reader, writer = os.pipe()
    os.close(reader)
    child = run(
        "import sys, rich_click as click; from rqscan.cli import group, main\n"
        f"top = click.command()(lambda: sys.stdout.write('x' * {size}))\n"
        "group.import_module = lambda name: type('module', (), {'top': top})\n"
        "sys.exit(main(['top']))",
        stdout=writer,
    )
    os.close(writer)
    assert (child.returncode, child.stderr) == (1, "")


def test_config_command_shows_values_origins_and_no_password(capsys, monkeypatch):
    from msgspec import json

    monkeypatch.setenv("RQSCAN_DATABASE_URL", "mysql+pymysql://me:hidden@h/d")
    assert main(["config", "--json"]) == 0
    text = capsys.readouterr().out
    rows = {row["name"]: row for row in json.decode(text)}
    assert "hidden" not in text
    assert rows["database.url"]["value"] == "mysql+pymysql://me:***@h/d"
    assert rows["database.url"]["origin"] == "RQSCAN_DATABASE_URL"
    assert rows["queues.wakaka.timeout_s"]["value"] == 3600
    assert main(["config"]) == 0
    assert "hidden" not in capsys.readouterr().out
