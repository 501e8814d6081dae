"""The house rules that no linter knows."""

import ast
import re
import tomllib
import zipfile
from importlib.metadata import PackageNotFoundError, distribution, version
from pathlib import Path

import msgspec
import pytest
from packaging.requirements import Requirement

from rqscan import config

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
CODE = [*ROOT.glob("rqscan/**/*.py"), *ROOT.glob("jobs/**/*.py"), *ROOT.glob("*.py")]
TESTS = list(ROOT.glob("tests/**/*.py"))
MAX_LINES = 300


def test_files_are_short() -> None:
    lengths = {str(path.relative_to(ROOT)): len(path.read_text().split("\n")) for path in CODE}
    assert {path: lines for path, lines in lengths.items() if lines > MAX_LINES} == {}


@pytest.mark.parametrize("folder", ["rqscan", "jobs"])
def test_packages_say_what_they_are_for(folder: str) -> None:
    packages = {path.parent for path in (ROOT / folder).glob("**/*.py")}
    for package in packages if folder == "rqscan" else []:
        assert ast.get_docstring(ast.parse((package / "__init__.py").read_text())), package
    for path in (ROOT / folder).glob("**/*.py"):
        assert ast.get_docstring(ast.parse(path.read_text())), path


def test_tests_wait_for_conditions_and_do_not_sleep() -> None:
    allowed = ROOT / "tests/servers.py"  # wait_for
    asleep = [str(p) for p in TESTS if p != allowed and re.search(r"\bsleep\(", p.read_text())]
    assert asleep == [], "use tests.servers.wait_for"


def test_test_files_have_names_of_their_own() -> None:
    names = [path.name for path in TESTS if path.name.startswith("test_")]
    assert sorted(set(names)) == sorted(names)


def pins(*files: str) -> dict[str, Requirement]:
    """Give the pins of requirements files by canonical name, if they apply to this Python."""
    lines = "".join((ROOT / file).read_text() for file in files).split("\n")
    found = [Requirement(line.rstrip(" \\")) for line in lines if re.match(r"[a-z]", line)]
    return {canonical(r.name): r for r in found if r.marker is None or r.marker.evaluate()}


def canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def closure(declared: list[str]) -> dict[str, list[Requirement]]:
    """Give what is needed, by name, and each demand on it, as the installed packages tell it."""
    found: dict[str, list[Requirement]] = {}
    walked: set[tuple[str, str]] = set()
    open_ = [Requirement(text) for text in declared]
    while open_:
        wanted = open_.pop()
        name = canonical(wanted.name)
        found.setdefault(name, []).append(wanted)
        for extra in {"", *wanted.extras}:
            if (name, extra) in walked:
                continue
            walked.add((name, extra))
            below = map(Requirement, distribution(name).requires or [])
            open_ += [r for r in below if r.marker is None or r.marker.evaluate({"extra": extra})]
    return found


@pytest.mark.parametrize(
    ("declared", "files"),
    [
        (PROJECT["dependency-groups"]["build"], ["requirements-build.txt"]),
        (
            PROJECT["project"]["dependencies"]
            + PROJECT["project"]["optional-dependencies"]["embedded"],
            ["requirements.txt"],
        ),
        (PROJECT["dependency-groups"]["dev"], ["requirements-dev.txt"]),
    ],
    ids=["build", "runtime", "dev"],
)
def test_the_pins_are_what_pyproject_asks_for_and_what_is_installed(
    declared: list[str], files: list[str]
) -> None:
    pinned = pins(*files)
    try:
        needed = closure(declared)
    except PackageNotFoundError as error:
        pytest.fail(f"{error.name} is not installed; run make setup, or make lock if it is new")
    assert sorted(pinned) == sorted(needed), "run make lock"
    for name, pin in pinned.items():
        assert pin.specifier.contains(version(name)), f"{name} {version(name)} is not {pin}"
        for demand in needed[name]:
            assert demand.specifier.contains(version(name)), f"{demand} against {pin}"


def test_the_pins_name_no_package_index() -> None:
    for path in ROOT.glob("requirements*.txt"):
        assert not re.search(r"://|--(extra-)?index|--find-links", path.read_text()), path


def test_the_wheel_holds_all_that_the_package_reads(tmp_path: Path) -> None:
    from flit_core.wheel import make_wheel_in

    made = make_wheel_in(ROOT / "pyproject.toml", tmp_path)
    names = set(zipfile.ZipFile(made.file).namelist())
    files = {p for p in (ROOT / "rqscan").glob("**/*") if p.is_file() and p.suffix != ".pyc"}
    assert {str(path.relative_to(ROOT)) for path in files} - names == set()
    assert "rqscan/py.typed" in names
    assert {name.split("/")[0] for name in names} == {"rqscan", made.file.name[:12] + ".dist-info"}


def test_the_example_names_every_setting_with_its_default(tmp_path: Path) -> None:
    example = (ROOT / "rqscan.example.toml").read_text()
    settings = tmp_path / "rqscan.toml"
    settings.write_text(re.sub(r"(?m)^# (\[\[?|[a-z_]+ = )", r"\1", example))
    read = config.load(str(settings), {})
    assert [entry["name"] for entry in read.schedule] == ["nightly"]
    unnamed = [name for name, origin in read.origin.items() if origin == "default"]
    assert [name for name in unnamed if not name.startswith("queues.default.")] == []
    without_default = {"redis.url", "database.url", "spool.redis_url", "jobs.path"}
    for section in read.__struct_fields__:
        value = getattr(read, section)
        for name in value.__struct_fields__ if isinstance(value, msgspec.Struct) else []:
            if f"{section}.{name}" not in without_default:
                assert getattr(value, name) == getattr(type(value)(), name), f"{section}.{name}"
    assert read.queues["wakaka"] == read.queues["default"]
