"""`rqscan top` before a live fleet with faults: each is told in words, at each size of a screen."""

import json
from collections.abc import Iterator
from string import Template

import pytest

from tests.lab.devices import CAUSES
from tests.servers import wait_for
from tests.terminal import Terminal
from tests.troubled import FAILED, OLD_VERSION, TroubledFleet, troubled_fleet

WITHIN_S = 20  # the promise is 10 s; this machine may have other work

# What is wrong, and the words of one line that tell it; $names are those of the workers.
FAULTS = {
    "a worker of the killed host": "lost $killed",
    "the other one of that host": "lost $killed_too",
    "a frozen worker": "lost $frozen",
    "a clock": "clock $skewed +92",
    "another version": f"versions rqscan {OLD_VERSION}",
    "a growing queue": "unserved imports",
    "an entry that is wrong": "invalid broken",
}
FAILURES = [f"FAIL {FAILED}"]
GROUPS = [f"{count} {queue} {error.__name__}" for error, _, queue, count in CAUSES.values()]

SIZES = {(140, 45): [*FAULTS.values(), *FAILURES, *GROUPS], (80, 24): [*FAULTS.values(), *FAILURES],
         (60, 15): [*FAULTS.values(), *FAILURES]}  # fmt: skip


@pytest.fixture(scope="module")
def fleet() -> Iterator[TroubledFleet]:
    with troubled_fleet() as made:
        yield made


@pytest.fixture(scope="module")
def screens(fleet) -> Iterator[dict[tuple[int, int], Terminal]]:
    """Give a screen of each size that was there before the host was killed."""
    env = fleet.env | {"TERM": "xterm-256color", "LANG": "C.UTF-8"}
    argv = [fleet.python, "-m", "rqscan", "top", "-i", "1"]
    found = {size: Terminal(argv, env, *size) for size in SIZES}
    for screen in found.values():
        screen.until("LIVE")
    fleet.break_down()
    yield found
    for screen in found.values():
        screen.close()


def missing(wanted, lines, fleet):
    """Give what is not told: all words of it have to be in one line."""
    lines = [line.lower() for line in lines]
    told = [Template(words).substitute(fleet.cast).lower().split() for words in wanted]
    return [words for words in told if not any(all(w in line for w in words) for line in lines)]


@pytest.mark.parametrize("size", SIZES)
def test_the_screen_tells_each_fault_in_words(fleet, screens, size) -> None:
    def untold():
        return missing(SIZES[size], screens[size].lines(), fleet)

    try:
        wait_for(lambda: not untold(), WITHIN_S)
    except AssertionError:
        pytest.fail("\n".join([f"not told: {untold()}", *screens[size].lines()]))


def test_what_is_asked_once_tells_each_fault_too(fleet, screens) -> None:
    wait_for(lambda: fleet.rig.run("top", "--check").stdout.count("worker lost") == 3, WITHIN_S)
    check = fleet.rig.run("top", "--check")
    assert (check.returncode, check.stderr) == (1, "")
    assert not missing(FAULTS.values(), check.stdout.splitlines(), fleet)
    once = fleet.rig.run("top", "--once")
    assert (once.returncode, once.stderr) == (0, "")
    assert not missing([*FAULTS.values(), *FAILURES, *GROUPS], once.stdout.splitlines(), fleet)
    told = json.loads(fleet.rig.run("top", "--json").stdout)
    assert sum(queue["failed"] for queue in told["queues"]) == FAILED
    assert sorted(one["count"] for one in told["failed"]) == sorted(n for *_, n in CAUSES.values())
    lines = [f"{one['what']} {one['object']} {one['cause']}" for one in told["trouble"]]
    assert not missing(FAULTS.values(), lines, fleet)
    by_name = {one["name"]: one for one in told["workers"]}
    assert by_name[fleet.cast["skewed"]]["clock_offset_s"] == pytest.approx(-92, abs=5)
    assert by_name[fleet.cast["old"]]["versions"]["rqscan"] == OLD_VERSION
    (scan,) = [one for one in told["scans"] if one["chunks"]["total"] == 200]
    assert scan["eta_s"] > 0
