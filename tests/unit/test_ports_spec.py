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
    ("text", "part"),
    [
        ("0", "0"),
        ("70000", "70000"),
        ("22,60000-70000", "60000-70000"),
        ("0-5", "0-5"),
        ("", ""),
        ("22,,80", ""),
        ("http", "http"),
        ("22-", "22-"),
        ("-1", "-1"),
        ("٢٢", "٢٢"),
        ("90-80", "90-80"),
        ("top-0", "top-0"),
        ("80,top-1001", "top-1001"),
        ("9" * 5000, "99"),
    ],
)
def test_what_is_refused_is_named_with_what_is_accepted(text, part):
    with pytest.raises(UsageError) as caught:
        parse_ports(text)
    assert part in str(caught.value)
    assert "within 1-65535, top-1 to top-1000, or -" in str(caught.value)


def test_the_shipped_list_is_a_thousand_ports_of_which_the_first_are_in_every_shorter_one():
    assert len(parse_ports("top-1000")) == 1000
    assert set(parse_ports("top-100")) < set(parse_ports("top-1000"))
    assert {22, 80, 443, 445, 3306, 3389} <= set(parse_ports("top-20"))


@given(st.sets(st.integers(1, 65_535), min_size=1, max_size=200))
def test_a_list_of_ports_reads_back(numbers):
    assert parse_ports(",".join(map(str, numbers))) == sorted(numbers)
