"""`rqscan top` before a live fleet with faults: each is told in words, at each size of a screen."""

from collections.abc import Iterator
from string import Template

import pytest

from tests.lab.devices import CAUSES
from tests.servers import wait_for
from tests.terminal import Terminal
from tests.troubled import CHUNKS, FAILED, OLD_VERSION, TroubledFleet, troubled_fleet

WITHIN_S = 20  # the promise is 10 s; this machine may have other work

# Words of one line each; $names are those of workers. What is wrong, on each screen:
FAULTS = [
    "host lost web03 2 workers",
    "worker lost $frozen",
    "clock off edge01 +92",
    "versions differ",
    "queue unserved imports",
    f"fail {FAILED} in/s",
]
# Why, where there is room for it:
REASONS = [
    "web03 connections closed died killed",
    "$frozen connection open frozen",
    f"versions $old {OLD_VERSION}",
    "imports more come each second",
    "entry invalid broken minute",
]
GROUPS = [f"{count} {queue} {error.__name__}" for error, _, queue, count in CAUSES.values()]
COUNT = f"failed error of {len(CAUSES)}"
SIZES = {
    (140, 45): [*FAULTS, *REASONS, *GROUPS],
    (80, 24): [*FAULTS, COUNT],
    (60, 15): [*FAULTS, COUNT],
}
TROUBLE = [*FAULTS[:-1], *REASONS]
FAILED_ALONE, LAST = "3o", "G"  # keys


@pytest.fixture
def fleet() -> Iterator[TroubledFleet]:
    with troubled_fleet() as made:
        yield made


@pytest.fixture
def screens(fleet) -> Iterator[dict[tuple[int, int], Terminal]]:
    """Give a screen of each size, each there before the host is killed."""
    env = fleet.env | {"TERM": "xterm-256color", "LANG": "C.UTF-8"}
    argv = [fleet.python, "-m", "rqscan", "top", "-i", "1"]
    found = {size: Terminal(argv, env, *size) for size in SIZES}
    for screen in found.values():
        screen.until("LIVE")
    yield found
    for screen in found.values():
        screen.close()


def missing(wanted, lines, fleet):
    """Give what is not told: all words of it have to be in one line."""
    lines = [line.lower() for line in lines]
    told = [Template(words).substitute(fleet.cast).lower().split() for words in wanted]
    return [words for words in told if not any(all(w in line for w in words) for line in lines)]


# One test, because each process that pytest-xdist lets have a part of it would build a fleet.
def test_each_fault_is_told_in_words_on_each_screen_and_to_scripts(fleet, screens) -> None:
    fleet.break_down()
    wait_until_told({screens[size]: words for size, words in SIZES.items()}, fleet)
    *large, small = screens.values()
    for screen in screens.values():
        screen.type(FAILED_ALONE)
    wait_until_told(dict.fromkeys(large, GROUPS) | {small: ["failed error (1-"]}, fleet)
    above = small.lines()
    small.type(LAST)
    wait_until_told({small: GROUPS}, fleet, above)
    check_scripts(fleet)


def wait_until_told(wanted, fleet, above=()) -> None:
    def untold():
        return {one: missing(words, [*above, *one.lines()], fleet) for one, words in wanted.items()}

    try:
        wait_for(lambda: not any(untold().values()), WITHIN_S)
    except AssertionError:
        shown = ["\n".join([str(words), *one.lines()]) for one, words in untold().items()]
        pytest.fail("not told:\n" + "\n\n".join(shown))


def check_scripts(fleet) -> None:
    """See that what is asked once tells the same."""
    check = fleet.rig.run("top", "--check")
    assert (check.returncode, check.stderr) == (1, "")
    assert not missing(TROUBLE, check.stdout.splitlines(), fleet)
    once = fleet.rig.run("top", "--once")
    assert (once.returncode, once.stderr) == (0, "")
    assert not missing([*TROUBLE, *GROUPS], once.stdout.splitlines(), fleet)
    told = fleet.rig.json("top")
    lines = [f"{one['what']} {one['object']} {one['cause']}" for one in told["trouble"]]
    assert not missing(TROUBLE, lines, fleet)
    assert sum(queue["failed"] for queue in told["queues"]) == FAILED
    assert sorted(one["count"] for one in told["failed"]) == sorted(n for *_, n in CAUSES.values())
    by_name = {one["name"]: one for one in told["workers"]}
    assert by_name[fleet.cast["skewed"]]["clock_offset_s"] == pytest.approx(-92, abs=5)
    assert by_name[fleet.cast["old"]]["versions"]["rqscan"] == OLD_VERSION
    (scan,) = [one for one in told["scans"] if one["chunks"]["total"] == CHUNKS]
    assert scan["eta_s"] > 0
