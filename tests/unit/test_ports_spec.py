import pytest
from hypothesis import given
from hypothesis import strategies as st

from rqscan.errors import UsageError
from rqscan.scan.ports import parse_ports


@pytest.mark.parametrize(
    ("text", "count", "first", "last"),
    [
        ("22", 1, 22, 22),
        ("443,80, 22,80", 3, 22, 443),
        ("22,80,8000-8100", 103, 22, 8100),
        ("1-65535", 65_535, 1, 65_535),
        ("-", 65_535, 1, 65_535),
        ("3,1,2", 3, 1, 3),
        ("top-3", 3, 22, 443),
        ("top-3,22,8080", 4, 22, 8080),
    ],
)
def test_what_is_accepted(text, count, first, last):
    ports = parse_ports(text)
    assert (len(ports), ports[0], ports[-1]) == (count, first, last)
    assert ports == sorted(set(ports))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("0", "port 0 is outside 1-65535"),
        ("70000", "port 70000 is outside 1-65535"),
        ("22,60000-70000", "port 70000 is outside 1-65535"),
        ("", "ports '' are no port"),
        ("22,,80", "ports '' are no port"),
        ("http", "ports 'http' are no port"),
        ("22-", "ports '22-' are no port"),
        ("-1", "ports '-1' are no port"),
        ("٢٢", "ports '٢٢' are no port"),
        ("90-80", "ports '90-80' end before they start"),
        ("top-0", "ports 'top-0': give top-1 to top-1000"),
        ("top-1001", "ports 'top-1001': give top-1 to top-1000"),
        ("9" * 5000, "are no port"),
    ],
)
def test_what_is_refused_is_named(text, message):
    with pytest.raises(UsageError) as caught:
        parse_ports(text)
    assert message in str(caught.value)


def test_the_shipped_list_is_a_thousand_ports_of_which_the_first_are_in_every_shorter_one():
    assert len(parse_ports("top-1000")) == 1000
    assert set(parse_ports("top-100")) < set(parse_ports("top-1000"))
    assert {22, 80, 443, 445, 3306, 3389} <= set(parse_ports("top-20"))


@given(st.sets(st.integers(1, 65_535), min_size=1, max_size=200))
def test_a_list_of_ports_reads_back(numbers):
    assert parse_ports(",".join(map(str, numbers))) == sorted(numbers)
