import io
from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rqscan.errors import UsageError
from rqscan.scan.targets import parse_targets, read_targets

ADDRESS = st.one_of(st.ip_addresses(v=4), st.ip_addresses(v=6)).map(str)
SMALL = st.lists(  # few addresses, close together, so that they overlap and touch
    st.one_of(
        st.integers(0, 255).map(lambda i: f"192.0.2.{i}"),
        st.tuples(st.integers(0, 200), st.integers(0, 55)).map(
            lambda t: f"192.0.2.{t[0]}-{t[0] + t[1]}"
        ),
        st.integers(26, 32).map(lambda bits: f"192.0.2.77/{bits}"),
        st.integers(0, 300).map(lambda i: f"2001:db8::{i:x}"),
        st.sampled_from(["a.example", "b.example", "localhost"]),
    ),
    max_size=12,
)


def expand(specs):
    targets = parse_targets(specs)
    return [*targets.addresses(), *targets.names]


@pytest.mark.parametrize(
    ("spec", "first", "last", "count"),
    [
        ("10.0.0.5", "10.0.0.5", "10.0.0.5", 1),
        ("10.0.0.5/24", "10.0.0.0", "10.0.0.255", 256),
        ("10.0.0.5-20", "10.0.0.5", "10.0.0.20", 16),
        ("10.0.0.1-10.0.1.9", "10.0.0.1", "10.0.1.9", 265),
        ("10.0.0.5-5", "10.0.0.5", "10.0.0.5", 1),
        ("2001:db8::1", "2001:db8::1", "2001:db8::1", 1),
        ("[2001:db8::1]", "2001:db8::1", "2001:db8::1", 1),
        ("2001:db8::5/126", "2001:db8::4", "2001:db8::7", 4),
        ("[2001:db8::]/126", "2001:db8::", "2001:db8::3", 4),
        ("2001:db8::1-2001:db8::ff", "2001:db8::1", "2001:db8::ff", 255),
        ("::ffff:10.0.0.5", "10.0.0.5", "10.0.0.5", 1),
        ("::ffff:10.0.0.0/126", "10.0.0.0", "10.0.0.3", 4),
        ("Host-1.Example.", "host-1.example", "host-1.example", 1),
        ("10-0-0-5.example", "10-0-0-5.example", "10-0-0-5.example", 1),
        ("localhost", "localhost", "localhost", 1),
    ],
)
def test_what_is_accepted(spec, first, last, count):
    targets = parse_targets([spec])
    assert targets.count == count
    assert list(expand(targets.slice(0, 1))) == [first]
    assert list(expand(targets.slice(count - 1, 1))) == [last]


@pytest.mark.parametrize(
    "spec",
    [
        "", " ", "10.0.0.256", "10.0.0", "10", "10.0.0.1.", "1.2.3.4.5", "010.0.0.1", "0x7f000001",
        "0x7f.0.0.0x1", "10.0.0.0/33", "10.0.0.0/", "10.0.0.0/255.255.255.0", "10.0.0.5-300",
        "10.0.0.5-", "10.0.0.9-3", "10.0.0.9-10.0.0.3", "10.0.0.1-::5", "2001:db8::1-20",
        "2001:db8:::1", "2001:db8::/129", "fe80::1%eth0", "fe80::1%1/64", "[10.0.0.5", "a..b",
        "-a.example", "a-.example", "a_b.example", "http://a.example", "a.example:80",
        "10.0.0.1,10.0.0.2", "10.0.0.5-20.5", "ä.example", "10.0.0.1:80", "\u0661.0.0.1", "x" * 64,
        "a." * 130 + "b", "10.0.0.*",
    ],
)  # fmt: skip
def test_what_is_refused_is_named(spec):
    with pytest.raises(UsageError) as caught:
        parse_targets(["10.0.0.1", spec])
    assert repr(spec) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_refusal_tells_what_is_accepted():
    with pytest.raises(UsageError, match=r"CIDR .* range .* host name"):
        parse_targets(["10.0.0.256"])
    with pytest.raises(UsageError, match="zone"):
        parse_targets(["fe80::1%eth0"])


def test_huge_networks_cost_nothing():
    assert parse_targets(["10.0.0.0/8"]).count == 2**24
    big = parse_targets(["2001:db8::/64", "10.0.0.0/8"])
    assert big.count == 2**64 + 2**24
    assert big.slice(2**24 + 5, 2) == ["2001:db8::5-2001:db8::6"]


def test_overlapping_targets_are_there_once_and_families_do_not_touch():
    targets = parse_targets(
        ["10.0.0.7", "10.0.0.0/29", "10.0.0.8-9", "::ffff:10.0.0.3", "B.example", "b.example."]
    )
    assert targets.slice(0, 99) == ["10.0.0.0-10.0.0.9", "b.example"]
    edge = parse_targets(["255.255.255.255", "::"])
    assert edge.slice(0, 9) == ["255.255.255.255", "::"]


@given(SMALL, st.integers(0, 60), st.integers(1, 60))
def test_slices_are_the_expansion_cut_in_pieces(specs, start, size):
    targets = parse_targets(specs)
    whole = list(expand(targets.slice(0, targets.count)))
    assert len(whole) == len(set(whole)) == targets.count
    assert list(expand(targets.slice(start, size))) == whole[start : start + size]
    pieces = [targets.slice(i, size) for i in range(0, targets.count, size)]
    assert [host for piece in pieces for host in expand(piece)] == whole


@given(SMALL, SMALL)
def test_minus_is_set_difference(specs, excluded):
    targets, exclude = parse_targets(specs), parse_targets(excluded)
    left = targets.minus(exclude)
    everything = lambda t: list(expand(t.slice(0, t.count)))  # noqa: E731
    gone = set(everything(exclude))
    assert everything(left) == [host for host in everything(targets) if host not in gone]


@given(st.lists(ADDRESS, max_size=20))
def test_any_address_survives_in_its_shortest_form(addresses):
    found = set(expand(parse_targets(addresses).slice(0, 99)))
    wanted = [ip_address(a) for a in addresses]
    assert found == {str(getattr(a, "ipv4_mapped", None) or a) for a in wanted}


@given(st.text(max_size=40))
def test_any_text_is_a_target_or_a_usage_error(spec):
    try:
        assert parse_targets([spec]).count > 0
    except UsageError as error:
        assert repr(spec) in str(error)  # noqa: PT017 - either outcome is right


def test_a_file_is_read(tmp_path):
    path = tmp_path / "targets"
    path.write_text("10.0.0.1 10.0.0.2 # two\n\n# none\n  a.example\n")
    assert read_targets(str(path), io.StringIO()) == ["10.0.0.1", "10.0.0.2", "a.example"]
    assert read_targets("-", io.StringIO("10.0.0.9\n")) == ["10.0.0.9"]
    for wrong in (tmp_path / "missing", tmp_path):
        with pytest.raises(UsageError, match="cannot be read"):
            read_targets(str(wrong), io.StringIO())
    path.write_bytes(b"\xff\xfe1")
    with pytest.raises(UsageError, match="cannot be read"):
        read_targets(str(path), io.StringIO())
