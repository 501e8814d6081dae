"""The plan: every target once, in chunks that can be made again."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rqscan.errors import OutOfScopeError, UsageError
from rqscan.scan.kinds import load_kinds
from rqscan.scan.plan import CHUNKS_PER_SCAN, HOSTS_PER_CHUNK, make_plan, plan_of
from rqscan.scan.targets import parse_targets
from rqscan.settings import ScopeSettings, Settings

SETTINGS = Settings(home="/nonexistent", scope=ScopeSettings(allow=["0.0.0.0/0", "::/0"]))


@pytest.fixture(autouse=True, scope="module")
def _kinds():
    load_kinds(None)


def plan(*targets, **options):
    return make_plan(settings=SETTINGS, targets=list(targets), kinds=["ports"], **options)


@given(
    start=st.integers(0, 60_000),
    length=st.integers(1, 3_000),
    ports=st.sampled_from(["80", "1-300", "1-20000", "-"]),
)
def test_every_target_is_in_one_chunk_and_probes_are_counted(start, length, ports):
    first, last = 0x0A000000 + start, 0x0A000000 + start + length - 1
    dotted = [".".join(str(b) for b in at.to_bytes(4, "big")) for at in (first, last)]
    made = plan("-".join(dotted), ports=ports)
    chunks = list(made.chunks())
    assert sorted(chunk.chunk for chunk in chunks) == list(range(made.scan.chunks))
    assert [number for number, _ in made.chunk_kinds()] == list(range(made.scan.chunks))
    hosts = [host for chunk in chunks for host in parse_targets(chunk.targets).addresses()]
    assert len(hosts) == len(set(hosts)) == length
    per_host = {"80": 1, "1-300": 300, "1-20000": 20_000, "-": 65_535}[ports]
    assert made.scan.probes == length * per_host


def test_a_stored_scan_makes_the_same_chunks_again():
    made = plan("10.0.0.0/20", "2001:db8::/120", exclude=["10.0.3.7"], ports="1-99")
    assert list(plan_of(made.scan).chunks()) == list(made.chunks())


def test_chunks_come_in_a_shuffled_order_that_differs_between_scans():
    one, other = plan("10.0.0.0/16", ports="1-1000"), plan("10.0.0.0/16", ports="1-1000")
    order = [chunk.chunk for chunk in one.chunks()]
    assert order != sorted(order)
    assert order != [chunk.chunk for chunk in other.chunks()]


def test_a_network_of_millions_is_planned_without_expanding_it():
    made = plan("10.0.0.0/8", ports="top-1000")
    assert made.scan.probes == 2**24 * 1000
    assert made.scan.chunks <= 1.01 * CHUNKS_PER_SCAN
    assert len(made.chunk(made.scan.chunks - 1).targets) == 1
    assert plan("10.0.0.0/8", ports="80").scan.hosts_per_chunk["ports"] == HOSTS_PER_CHUNK


def test_excludes_travel_with_every_chunk():
    made = plan("10.0.0.0/29", exclude=["10.0.0.3-4"], ports="1-65535")
    assert {tuple(chunk.exclude) for chunk in made.chunks()} == {("10.0.0.3-4",)}
    hosts = {host for chunk in made.chunks() for host in parse_targets(chunk.targets).addresses()}
    assert hosts == {f"10.0.0.{n}" for n in (0, 1, 2, 5, 6, 7)}


def test_ids_are_made_of_name_and_time_and_are_safe_in_keys():
    assert plan("10.0.0.1", name="nightly_1").scan.scan_id.startswith("nightly_1-20")
    with pytest.raises(UsageError, match="scan name 'a/b'"):
        plan("10.0.0.1", name="a/b")


def test_one_target_outside_refuses_all_and_skipping_plans_the_rest():
    settings = Settings(home="/nonexistent", scope=ScopeSettings(allow=["10.0.0.0/24"]))
    options = {"settings": settings, "targets": ["10.0.0.250-10.0.1.9"], "kinds": ["ports"]}
    with pytest.raises(OutOfScopeError, match=r"'10\.0\.0\.250-10\.0\.1\.9' .*10 of 16 targets"):
        make_plan(**options)
    made = make_plan(**options, skip_out_of_scope=True)
    assert (made.targets.count, made.left_out) == (6, 10)
    assert plan_of(made.scan).targets == made.targets
