import importlib
import json
import sys

import pytest
from msgspec import Struct

from rqscan.cli import main
from rqscan.errors import ConfigError, UsageError
from rqscan.installed import plugins
from rqscan.scan import kinds
from rqscan.scan.kinds import Run, check_params, get_kind, kind, load_kinds

MODULE = """
from msgspec import Struct
from rqscan.scan.kinds import kind

class Params(Struct, frozen=True, forbid_unknown_fields=True):
    depth: int = 1

@kind({name!r}, params=Params, probes_per_host=lambda params: params.depth)
def look(addresses, params, run):
    \"\"\"Look at things.

    More about it.
    \"\"\"
    yield from ()
"""


@pytest.fixture
def jobs(tmp_path, monkeypatch):
    """Give a function that writes a jobs folder; forget what it made known."""
    monkeypatch.setattr(kinds, "_kinds", dict(kinds._kinds))
    monkeypatch.setattr(sys, "path", list(sys.path))
    before = set(sys.modules)

    def write(package, **modules):
        folder = tmp_path / package
        folder.mkdir(exist_ok=True)
        (folder / "__init__.py").touch()
        for name, text in modules.items():
            (folder / f"{name}.py").write_text(text)
        importlib.invalidate_caches()
        return str(folder)

    yield write
    for name in set(sys.modules) - before:
        del sys.modules[name]


def test_the_kinds_beside_rqscan_are_found_without_a_path():
    found = load_kinds(None)["ports"]
    assert found.function.__module__ == "jobs.ports"
    assert found.description == "Find the open TCP ports of each host by connecting to them."
    assert found.probes_per_host(check_params(found, {"ports": "1-10"})) == 10
    assert get_kind("ports") is found


def test_every_module_of_a_folder_of_ours_is_loaded_and_the_folder_comes_last(jobs):
    path = jobs("site_kinds", one=MODULE.format(name="one"), two=MODULE.format(name="two"))
    found = load_kinds(path)
    assert {"one", "two"} <= set(found)
    assert found["one"].function.__module__ == "site_kinds.one"
    assert found["one"].description == "Look at things."
    assert sys.path[-1] == path.removesuffix("/site_kinds")
    assert load_kinds(path) == found


def test_an_entry_point_adds_a_kind(jobs, tmp_path):
    sys.path.append(str(tmp_path))
    (tmp_path / "added_kind.py").write_text(MODULE.format(name="added"))
    info = tmp_path / "added-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: added\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[rqscan.jobs]\nadded = added_kind\n")
    assert load_kinds(jobs("empty_kinds"), plugins())["added"].function.__module__ == "added_kind"
    (tmp_path / "added_kind.py").unlink()
    del sys.modules["added_kind"]
    importlib.invalidate_caches()
    with pytest.raises(ConfigError, match="'added_kind'") as caught:
        load_kinds(jobs("empty_kinds"), plugins())
    assert isinstance(caught.value.__cause__, ModuleNotFoundError)


def test_a_failed_import_names_the_module_and_keeps_the_cause(jobs):
    path = jobs("broken_kinds", bad="import no_such_library")
    with pytest.raises(ConfigError, match=r"broken_kinds\.bad .*no_such_library") as caught:
        load_kinds(path)
    assert isinstance(caught.value.__cause__, ModuleNotFoundError)


def test_two_kinds_of_one_name_are_refused_naming_both_modules(jobs):
    path = jobs("twin_kinds", a=MODULE.format(name="same"), b=MODULE.format(name="same"))
    with pytest.raises(ConfigError, match=r"'same' is in twin_kinds\.a and in twin_kinds\.b"):
        load_kinds(path)


def test_a_missing_or_hidden_folder_is_refused(jobs, tmp_path):
    with pytest.raises(ConfigError, match=r"jobs\.path: '/no/such' is no folder"):
        load_kinds("/no/such")
    with pytest.raises(ConfigError, match="is hidden by"):
        load_kinds(jobs("json"))


def test_an_unknown_kind_gets_a_hint_and_the_list():
    load_kinds(None)
    with pytest.raises(UsageError, match=r"no kind 'prots'; did you mean 'ports'\? kinds are: "):
        get_kind("prots")
    with pytest.raises(UsageError, match=r"no kind 'xyz'; kinds are: .*ports"):
        get_kind("xyz")


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        ({"prots": "22"}, ["'prots': '22'", "unknown field `prots`", "ports, timeout_ms, tries"]),
        ({"timeout_ms": 10}, ["'timeout_ms': 10", ">= 50", "$.timeout_ms"]),
        ({"timeout_ms": 60_001}, ["'timeout_ms': 60001", "<= 60000"]),
        ({"tries": "2"}, ["'tries': '2'", "int", "$.tries"]),
        ({"tries": 0}, ["'tries': 0", ">= 1"]),
        ({"ports": 22}, ["'ports': 22", "str"]),
        ({"ports": "22,70000"}, ["'70000'", "within 1-65535"]),
        ({"ports": "0"}, ["'0'", "within 1-65535"]),
    ],
)
def test_wrong_parameters_are_named_with_their_value(raw, words):
    load_kinds(None)
    with pytest.raises(UsageError) as caught:
        check_params(get_kind("ports"), raw)
    assert [word for word in words if word not in str(caught.value)] == []
    assert "\n" not in str(caught.value)


def test_right_parameters_become_the_kinds_record():
    load_kinds(None)
    params = check_params(get_kind("ports"), {"timeout_ms": 50})
    assert (params.ports, params.timeout_ms, params.tries) == ("top-1000", 50, 2)


def test_a_decorated_function_stays_callable(jobs):
    class NoParams(Struct, frozen=True):
        pass

    @kind("bare", params=NoParams, probes_per_host=lambda _: 1)
    def bare(addresses, params, run):
        yield addresses

    assert get_kind("bare").description == ""
    run = Run(may_dial=bool, advance=int)
    assert list(get_kind("bare").function(["x"], NoParams(), run)) == [["x"]]
    assert list(bare(["y"], NoParams(), run)) == [["y"]]


def test_a_kind_may_have_limits_of_its_own_and_they_are_shown(jobs, monkeypatch, capsys):
    limited = MODULE.replace("params.depth)", "params.depth, stall_timeout_s=30, retries=2)")
    path = jobs("limited_kinds", one=limited.format(name="one"), two=MODULE.format(name="two"))
    one, two = (load_kinds(path)[name] for name in ("one", "two"))
    assert (one.stall_timeout_s, one.retries) == (30, 2)
    assert (two.stall_timeout_s, two.retries) == (0, None)
    monkeypatch.setenv("RQSCAN_JOBS_PATH", path)
    assert main(["kinds", "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    limits = {kind["name"]: (kind["stall_timeout_s"], kind["retries"]) for kind in shown}
    assert limits["one"] == (30, 2)
    assert limits["two"] == (None, None)


@pytest.mark.parametrize("limits", ["stall_timeout_s=-1", "retries=-1"])
def test_a_limit_below_0_is_refused(jobs, limits):
    text = MODULE.replace("params.depth)", f"params.depth, {limits})").format(name="one")
    with pytest.raises(ConfigError, match="'one' has stall_timeout_s"):
        load_kinds(jobs("negative_kinds", one=text))
