"""The board: how panes are filtered, sorted, judged and grouped."""

import pytest
from msgspec import structs

from rqscan.monitor.screen.board import arrange
from rqscan.monitor.screen.columns import age, spark
from rqscan.monitor.screen.state import Sort, View
from tests.shots import troubled

SHOT = troubled()


def names(pane, **view) -> list[str]:
    found = arrange(SHOT, View(**view))[pane]
    return [found.key(one) for one in found.items]


def test_workers_stand_with_the_worst_first() -> None:
    assert names("workers")[:5] == ["db02.1", "db02.2", "old.1", "web03.1", "web01.1"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("web03", ["web03.1"]),
        ("WEB03", ["web03.1"]),
        ("state:lost", ["db02.1", "db02.2"]),
        ("!state:busy !idle host:web", ["web03.1"]),
        ("host:web01 jobs:2", ["web01.1", "web01.2", "web01.3", "web01.4"]),
        ("nightly-db02.1", ["db02.1"]),
        ("nothing:else", []),
        ("clock:+92", ["web07.1"]),
        ("!web !db", ["old.1"]),
    ],
)
def test_a_filter_has_words_fields_and_not(text, expected) -> None:
    assert names("workers", filters={"workers": text}) == expected


def test_a_filter_is_of_one_pane_and_is_told() -> None:
    board = arrange(SHOT, View(filters={"workers": "web03"}))
    assert board["workers"].note == "filter web03"
    assert len(board["queues"].items) == 3


def test_faults_only_are_those_that_trouble_names() -> None:
    assert names("workers", is_faults=True) == ["db02.1", "db02.2", "old.1", "web03.1", "web07.1"]
    assert names("queues", is_faults=True) == ["scan.fast", "scan.deep"]
    assert len(names("failed", is_faults=True)) == 7


def test_figures_are_sorted_from_the_largest_and_words_by_the_alphabet() -> None:
    assert names("queues", sorts={"queues": Sort("QUEUE")}) == ["report", "scan.deep", "scan.fast"]
    assert names("queues", sorts={"queues": Sort("OUT/s")})[-1] == "scan.deep"
    assert names("queues", sorts={"queues": Sort("OUT/s", is_reversed=True)})[0] == "scan.deep"
    assert names("queues", sorts={"queues": Sort("OLDEST")})[-1] == "report"  # it is not known
    assert names("queues", sorts={"queues": Sort("none")}) == names("queues")
    assert names("failed", sorts={"failed": Sort("N", is_reversed=True)})[0] == "00000007"


def test_hosts_are_the_sums_of_their_workers() -> None:
    board = arrange(SHOT, View(is_by_host=True, open_hosts=frozenset({"web02"})))
    found = board["workers"]
    assert [found.key(one) for one in found.items] == [
        "host db02", "host old", "host web03", "host web01", "host web07", "host web02",
        "web02.1", "web02.2",
    ]  # fmt: skip
    assert [one.state for one in found.items[:4]] == [
        "lost 2/2", "mismatched 1/1", "stale 1/1", "busy 4/4",
    ]  # fmt: skip
    web01 = found.items[3]
    assert (web01.done, len(web01.jobs), web01.rss_bytes) == (4 * 1402, 8, 4 * (90 << 20))


def test_each_column_can_be_sorted_whatever_is_unknown() -> None:
    bare = structs.replace(
        SHOT, queues=[structs.replace(SHOT.queues[0], name="x", depth=None, running=None)]
    )
    for shot in (SHOT, bare):
        for pane in arrange(shot).values():
            for column in pane.columns:
                view = View(sorts={pane.name: Sort(column.title)})
                assert len(arrange(shot, view)[pane.name].items) == len(pane.items)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.44, "0.4s"), (12.9, "12s"), (331, "5m31s"), (10_920, "3h02m"), (371_000, "4d07h"),
     (None, "-")],
)  # fmt: skip
def test_ages_take_six_cells(seconds, text) -> None:
    assert age(seconds) == text


def test_a_spark_line_ends_with_now_and_tells_nothing_from_little() -> None:
    assert spark([0] * 30) == "▁" * 15
    assert spark([0, 1, 1000], 3) == "▁▂█"
    assert spark(range(30)).endswith("█")
    assert spark([0] * 29 + [1]) == "▁" * 14 + "█"
    assert spark([]) == ""
    assert spark([3.5]) == "█"
