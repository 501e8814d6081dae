from math import ceil

import pytest

from rqscan.errors import OutOfScopeError, UsageError
from rqscan.probe.timing import ANSWERED_S, MAX_WINDOW
from rqscan.scan.kinds import load_kinds
from rqscan.scan.plan import make_plan, plan_of
from rqscan.scan.targets import parse_targets
from rqscan.settings import ScopeSettings, Settings


def plan(targets, ports, **more):
    settings = Settings(home="/nowhere", scope=ScopeSettings(deny=["10.9.0.1"]))
    load_kinds(None)
    return make_plan(settings=settings, targets=targets, kinds=["ports"], ports=ports, **more)


@pytest.mark.parametrize(
    ("targets", "ports", "chunks"),
    [
        (["10.0.0.0/24"], "-", 256),
        (["10.0.0.0/24", "127.0.0.1"], "top-1000", 4),
        (["10.0.0.0/16"], "1", 16),
        (["10.0.0.0-10.0.15.255", "10.2.0.0", "fd00::/120"], "22,80", 2),
    ],
)
def test_every_target_is_in_one_chunk_and_a_stored_plan_gives_the_same(targets, ports, chunks):
    made = plan(targets, ports)
    cut = list(made.chunks())
    assert made.scan.chunks == len(cut) == chunks
    assert sorted(chunk.chunk for chunk in cut) == list(range(chunks))
    assert list(made.chunk_kinds()) == [(i, "ports") for i in range(chunks)]
    everything = [spec for chunk in cut for spec in chunk.targets]
    assert parse_targets(everything).ranges == made.targets.ranges
    assert sum(parse_targets(chunk.targets).count for chunk in cut) == made.targets.count
    assert list(plan_of(made.scan).chunks()) == cut


def test_the_estimate_lies_between_all_answered_and_all_silent():
    one = plan(["127.0.0.1"], "22")
    assert one.estimate_s() == (ANSWERED_S, 2.0)  # a lone silent port: two tries of 1 s
    host = plan(["127.0.0.1"], "-")
    assert host.estimate_s() == (65_535 * ANSWERED_S, ceil(65_535 / MAX_WINDOW) * 2.0)
    net = plan(["10.0.0.0/24"], "-")
    assert net.estimate_s() == pytest.approx([256 * seconds for seconds in host.estimate_s()])


def test_what_is_out_of_scope_is_refused_or_left_out():
    with pytest.raises(OutOfScopeError, match="1 of 256 targets is"):
        plan(["10.9.0.0/24"], "22")
    left = plan(["10.9.0.0/24"], "22", skip_out_of_scope=True)
    assert (left.left_out, left.targets.count, left.scan.probes) == (1, 255, 255)
    assert plan_of(left.scan).targets == left.targets
    assert plan(["10.9.0.0/24"], "22", exclude=["10.9.0.0/25"]).targets.count == 128


def test_nothing_and_too_much_are_refused():
    with pytest.raises(UsageError, match="0 targets are left to scan"):
        plan(["10.0.0.1"], "22", exclude=["10.0.0.0/31"])
    with pytest.raises(UsageError, match=f"{2**64} targets .* name 1 to {2**32}"):
        plan(["fd00::/64"], "22")
