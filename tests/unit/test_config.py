from pathlib import Path

import pytest

from rqscan.config import load
from rqscan.errors import ConfigError
from rqscan.settings import DatabaseSettings, RedisSettings, mask_url

NUMBER = "with type number, minimum 0, maximum 1000000000.0"
BEAT = "with type number, minimum 0.01, maximum 30"


@pytest.fixture(autouse=True)
def alone(tmp_path, monkeypatch):
    """No rqscan.toml of the machine is found."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))


def write(text, name="rqscan.toml"):
    path = Path(name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return str(path.absolute())


def error_of(text="", environ=None):
    with pytest.raises(ConfigError) as caught:
        load(write(text), environ or {})
    return str(caught.value)


def test_load_gives_defaults_when_nothing_is_set(tmp_path):
    settings = load(environ={})
    assert settings.home == str(tmp_path / "state/rqscan")
    assert settings.path is None
    assert list(settings.queues) == ["default", "wakaka"]
    assert settings.worker.heartbeat_s == 3
    assert set(settings.origin.values()) == {"default"}
    assert {"home", "redis.url", "queues.wakaka.timeout_s", "schedule"} < set(settings.origin)


def test_load_lets_the_environment_win_over_the_file():
    path = write("[worker]\nheartbeat_s = 5\nmax_lost = 2\n[queues.fast-1]\nresult_ttl_s = 0")
    settings = load(path, {"RQSCAN_WORKER_HEARTBEAT_S": " 2.5 "})
    assert (settings.worker.heartbeat_s, settings.worker.max_lost) == (2.5, 2)
    assert settings.queues["fast-1"].result_ttl_s == 0
    assert settings.origin["worker.heartbeat_s"] == "RQSCAN_WORKER_HEARTBEAT_S"
    assert settings.origin["worker.max_lost"] == settings.path == path
    assert settings.origin["worker.lease_s"] == "default"


@pytest.mark.parametrize(
    ("variable", "text", "read", "value"),
    [
        ("RQSCAN_HOME", "/var/lib/x", lambda s: s.home, "/var/lib/x"),
        ("RQSCAN_REDIS_URL", "unix:///run/r.sock", lambda s: s.redis.url, "unix:///run/r.sock"),
        ("RQSCAN_DATABASE_URL", "sqlite:////x/y", lambda s: s.database.url, "sqlite:////x/y"),
        ("RQSCAN_SCOPE_ALLOW", "10.0.0.0/8, ::1,", lambda s: s.scope.allow, ["10.0.0.0/8", "::1"]),
        ("RQSCAN_SCOPE_DENY", "10.0.0.1", lambda s: s.scope.deny, ["10.0.0.1"]),
        ("RQSCAN_ALLOW_FUNCTIONS", "a.b,c.d", lambda s: s.worker.allow_functions, ["a.b", "c.d"]),
        ("RQSCAN_JOBS_PATH", "/srv/jobs", lambda s: s.jobs.path, "/srv/jobs"),
        ("RQSCAN_WORKER_MAX_LOST", "7", lambda s: s.worker.max_lost, 7),
        ("RQSCAN_QUEUES_WAKAKA_TIMEOUT_S", "9", lambda s: s.queues["wakaka"].timeout_s, 9),
        ("RQSCAN_SCOPE_DENY", " ", lambda s: s.scope.deny, []),
        ("RQSCAN_CONFIG", "", lambda s: s.path, None),
    ],
)
def test_load_reads_variable(variable, text, read, value):
    settings = load(environ={variable: text, "OTHER": "x"})
    assert read(settings) == value
    assert (variable in settings.origin.values()) == (text.strip() != "")


def test_load_takes_the_first_file_there_is(tmp_path):
    user = write("[worker]\nmax_lost = 1", "config/rqscan/rqscan.toml")
    assert load(environ={}).path == user
    local = write("[worker]\nmax_lost = 2")
    assert load(environ={}).path == local
    other = write("[worker]\nmax_lost = 3", "other.toml")
    assert load(environ={"RQSCAN_CONFIG": other}).worker.max_lost == 3
    assert load(local, {"RQSCAN_CONFIG": other}).worker.max_lost == 2


def test_load_takes_paths_of_the_file_from_its_folder(tmp_path):
    settings = load(write('home = "state"\n[jobs]\npath = "../jobs"', "etc/rqscan.toml"), {})
    assert settings.home == str(tmp_path / "etc/state")
    assert Path(settings.jobs.path).resolve() == tmp_path / "jobs"
    assert load(environ={"RQSCAN_HOME": "here"}).home == str(tmp_path / "here")
    assert load(environ={"RQSCAN_HOME": "~/x"}).home == str(Path.home() / "x")
    assert load(environ={"RQSCAN_HOME": "~no-such-user"}).home == str(tmp_path / "~no-such-user")


def test_load_keeps_schedule_entries_unchecked():
    settings = load(write('[[schedule]]\nname = "!"\nat = 2026-12-01T02:00:00\nnonsense = [1]'), {})
    assert settings.schedule[0]["nonsense"] == [1]
    assert "schedule" in settings.origin


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "[worker]\nheartbeat = 3",
            "unknown setting worker.heartbeat, did you mean worker.heartbeat_s?",
        ),
        (
            "[wroker]\nmax_lost = 3",
            "unknown setting wroker.max_lost, did you mean worker.max_lost?",
        ),
        (
            "[worker]\ntimeout_s = 3",
            "unknown setting worker.timeout_s, did you mean worker.stop_timeout_s?",
        ),
        (
            "[queue.wakaka]\ntimeout_s = 3",
            "unknown setting queue.wakaka.timeout_s, did you mean queues.wakaka.timeout_s?",
        ),
        ("zzz = 1", "unknown setting zzz"),
        ("[spool]\nmax_mb = 1", "unknown setting spool.max_mb, did you mean spool.max_bytes?"),
        ("[queues.wakaka]\nname = 1", "unknown setting queues.wakaka.name"),
        (
            "[spool]\nmode = 'x'",
            "expected spool.mode with enum ['direct', 'redis_stream', 'spool_first'], got: 'x'",
        ),
        (
            "[worker.heartbeat_s]\nx = 1",
            f"expected worker.heartbeat_s {BEAT}, got: {{'x': 1}}",
        ),
        (
            "[worker]\nheartbeat_s = '30s'",
            f"expected worker.heartbeat_s {BEAT}, got: '30s'",
        ),
        (
            "[worker]\nheartbeat_s = inf",
            f"expected worker.heartbeat_s {BEAT}, got: inf",
        ),
        (
            "[worker]\nheartbeat_s = nan",
            f"expected worker.heartbeat_s {BEAT}, got: nan",
        ),
        (
            "[worker]\nheartbeat_s = '3'",
            f"expected worker.heartbeat_s {BEAT}, got: '3'",
        ),
        (
            "[worker]\nmax_lost = 0",
            "expected worker.max_lost with type integer, minimum 1, got: 0",
        ),
        (
            "[worker]\nmax_lost = true",
            "expected worker.max_lost with type integer, minimum 1, got: True",
        ),
        (
            "[scope]\nallow = '10.0.0.0/8'",
            "expected scope.allow with type array, items {'type': 'string'}, got: '10.0.0.0/8'",
        ),
        ("worker = 3", "expected worker to be a table, got: 3"),
        ("queues = 3", "expected queues to be a table, got: 3"),
        ("[queues]\nwakaka = 3", "expected queues.wakaka to be a table, got: 3"),
        ("schedule = 3", "expected schedule with type array, items {'type': 'object'}, got: 3"),
        ("home = ''", "expected home with type string, minLength 1, got: ''"),
        (
            "[queues.'a.b']\ntimeout_s = 1",
            "expected a queue name of 1 to 64 letters, digits, _ or -, got: 'a.b'",
        ),
        (
            "[redis]\nurl = 'http://:hidden@h'",
            "expected redis.url with type string, pattern ^(redis|rediss|unix)://, got: 'http://:***@h'",
        ),
        (
            "[database]\nurl = 'mysql://me:hidden@h/d'",
            "expected database.url with type string, pattern ^(mysql\\+pymysql|sqlite)://, got: 'mysql://me:***@h/d'",
        ),
    ],
)
def test_load_refuses_setting(text, message):
    assert error_of(text) == message


@pytest.mark.parametrize(
    ("environ", "message"),
    [
        (
            {"RQSCAN_REDIS_ULR": "redis://:hidden@h"},
            "unknown setting RQSCAN_REDIS_ULR, did you mean RQSCAN_REDIS_URL?",
        ),
        ({"RQSCAN_SCHEDULE": "x"}, "unknown setting RQSCAN_SCHEDULE"),
        (
            {"RQSCAN_WORKER_HEARTBEAT_S": "30s"},
            "expected worker.heartbeat_s (RQSCAN_WORKER_HEARTBEAT_S) with type number,",
        ),
    ],
)
def test_load_refuses_variable(environ, message):
    assert error_of(environ=environ).startswith(message)


def test_load_tells_every_error_at_once_in_one_line():
    message = error_of(
        "[worker]\nmax_lost = 0\nheartbeat = 1\n[redis]\nurl = 3", {"RQSCAN_WORKER_LEASE_S": "x"}
    )
    assert message.startswith("4 settings are wrong: expected worker.max_lost ")
    assert message.count("; ") == 3
    assert "\n" not in message


@pytest.mark.parametrize(
    "url",
    [
        "redis://:hidden@h:6379/0",
        "redis://me:hid@den/hidden?#@h:x",
        "redis://hidden@h",
        "me:hidden@h:6379",
        "redis:/me:hidden@h",
        "redis://h:x?password=hidden&db=1",
        "unix:///run/r.sock?Password=hidden#hidden",
        "redis://[::1?a_token=hidden",
        "redis://me:hidden\n@h",
    ],
)
def test_secrets_are_never_shown(url):
    assert "hidden" not in mask_url(url)
    for settings in (RedisSettings(url=url), DatabaseSettings(url=url)):
        shown = repr(settings) + repr(settings.__rich_repr__())
        assert "hidden" not in shown
        assert "***" in shown
    assert "hidden" not in error_of(f"[database]\nurl = {[url]!r}".replace("\n@", "\\n@"))
    assert "hidden" not in error_of(environ={"RQSCAN_DATABASE_URL": url})
    assert "hidden" not in error_of(environ={"RQSCAN_REDIS_URL": "x" + url})


def test_mask_url_leaves_what_is_no_secret():
    assert mask_url("unix:///run/user@1/r.sock") == "unix:///run/user@1/r.sock"
    assert mask_url("mysql+pymysql://me:pw@h:3306/d") == "mysql+pymysql://me:***@h:3306/d"
    assert mask_url("redis://h:6379/0") == "redis://h:6379/0"


def test_load_tells_file_line_and_column_of_broken_toml(tmp_path):
    assert (
        error_of("a = 1\nb = = 2")
        == f"cannot read {tmp_path}/rqscan.toml: Invalid value (at line 2, column 5)"
    )


def test_load_refuses_a_named_file_that_cannot_be_read(tmp_path):
    for name in ("no.toml", "."):
        with pytest.raises(ConfigError, match="cannot read /"):
            load(name, {})
    with pytest.raises(ConfigError, match=r"no\.toml: .*No such file"):
        load(environ={"RQSCAN_CONFIG": "no.toml"})
    Path("bin.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match="cannot read"):
        load("bin.toml", {})


def test_the_stream_needs_a_redis_of_its_own():
    with pytest.raises(ConfigError, match=r"expected spool\.redis_url .*got: none"):
        load(None, {"RQSCAN_SPOOL_MODE": "redis_stream"})
    with pytest.raises(ConfigError, match=r"expected spool\.redis_url") as caught:
        load(None, {"RQSCAN_SPOOL_REDIS_URL": "redis://:secret@host:x/0"})
    assert "secret" not in str(caught.value)
    url = "redis://:secret@127.0.0.1:6380/0"
    found = load(write(f"[spool]\nmode = 'redis_stream'\nredis_url = '{url}'"), {})
    assert found.spool.redis_url == url
    assert "secret" not in repr(found)
