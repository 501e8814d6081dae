"""The average of a link's traffic and its hysteresis, second by second; the way to a database."""

import random
from itertools import pairwise

import pytest

from rqscan.idle import Calm, Traffic
from rqscan.interfaces import find_link
from rqscan.settings import DatabaseSettings, IdleSettings, Settings
from rqscan.tally import Link

BOUND, FOR_S = 10.0, 5.0


def judge(calm: Calm, samples: list[float]) -> str:
    """Give a letter for each second: idle or busy."""
    letters = ""
    for rate in samples:
        calm.add(rate, 1.0)
        letters += "i" if calm.is_idle else "b"
    return letters


@pytest.mark.parametrize(
    ("samples", "judged"),
    [
        ([0] * 7, "bbbbiii"),  # five seconds, then idle
        ([9.9] * 6, "bbbbii"),
        ([10] * 30, "b" * 30),  # at the bound is not below it
        ([100] * 3 + [0] * 6, "bbbbbbbii"),  # the first calm sample counts already
        ([1e12] * 60 + [0] * 6, "b" * 60 + "bbbbii"),  # however busy it was
        ([0] * 4 + [30] + [0] * 6, "bbbbbbbbbii"),  # a break begins the five seconds anew
        ([0] * 5 + [1e12] * 2, "bbbbiib"),  # busy with the second sample at the latest
        ([0] * 5 + [16] * 9, "bbbb" + "i" * 4 + "b" * 6),
        ([0] * 5 + [14.9] * 30, "bbbb" + "i" * 31),  # between the bounds it stays what it is
        ([20] + [11] * 30, "b" * 31),
    ],
)
def test_idle_after_calm_and_busy_at_once(samples, judged):
    assert judge(Calm(BOUND, FOR_S), samples) == judged


@pytest.mark.parametrize("mean", [9.5, 10, 10.5])
def test_traffic_right_at_the_bound_changes_the_judgement_once_at_most(mean):
    noise = random.Random(1)
    samples = [noise.uniform(0.8, 1.2) * mean for _ in range(3600)]
    judged = judge(Calm(BOUND, FOR_S), samples)
    assert sum(a != b for a, b in pairwise(judged)) <= 1


def test_samples_that_come_late_weigh_as_much_as_those_in_between_would():
    seldom, often = Calm(BOUND, 8), Calm(BOUND, 8)
    for rate in (30, 30, 0, 0):
        seldom.add(rate, 4.0)
        judge(often, [rate] * 4)
    assert seldom.is_idle == often.is_idle is True
    assert seldom.calm_s == often.calm_s == 8


def test_work_ends_the_idleness_and_begins_it_anew():
    calm = Calm(BOUND, FOR_S, is_idle=True)
    calm.interrupt()
    assert judge(calm, [0] * 5) == "bbbbi"


def test_a_bound_of_none_is_never_idle():
    assert judge(Calm(0, 0), [0] * 5) == "bbbbb"


@pytest.mark.parametrize(
    ("url", "idle", "link"),
    [
        (None, {}, Link()),
        ("sqlite:////tmp/x.db", {}, Link()),
        ("mysql+pymysql://u:p@127.0.0.1:3306/d", {}, Link()),
        ("mysql+pymysql://u:p@[::1]/d", {}, Link()),
        ("mysql+pymysql://u:p@192.0.2.1/d?unix_socket=/run/x.sock", {}, Link()),
        (None, {"interfaces": ["lo"], "below_bits_per_s": 5},
         Link(interfaces=["lo"], below_bits_per_s=5)),
        ("mysql+pymysql://u:p@192.0.2.1/d", {"interfaces": ["lo", "no-such"], "below_percent": 20},
         Link(interfaces=["lo", "no-such"], below_bits_per_s=20e6,
              note="its speed is not known and taken for 100")),
    ],
)  # fmt: skip
def test_the_way_to_the_database(url, idle, link):
    settings = Settings(home="/tmp", database=DatabaseSettings(url=url), idle=IdleSettings(**idle))
    assert find_link(settings) == link


def test_a_way_that_is_not_found_is_told_and_never_idle():
    url = f"mysql+pymysql://u:secret@{'x' * 64}/d"  # no DNS server is asked for such a name
    link = find_link(Settings(home="/tmp", database=DatabaseSettings(url=url)))
    assert link.fault.startswith("no way to the database is found: ")
    assert "secret" not in link.fault
    traffic = Traffic(link, 0)
    assert not traffic.look()
    assert traffic.words() == link.fault


@pytest.mark.parametrize(
    ("link", "words"),
    [
        (Link(), "the database is on this host"),
        (Link(interfaces=["lo"], below_bits_per_s=1), "the traffic on lo is being measured"),
        (Link(interfaces=["lo", "no-such"], below_bits_per_s=1), "there is no interface no-such"),
    ],
)
def test_what_is_known_at_the_first_look_is_told(link, words):
    traffic = Traffic(link, 5)
    assert not traffic.look(is_working=True)
    assert traffic.words() == f"jobs run or wait here, {words}"
