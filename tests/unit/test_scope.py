import socket
from ipaddress import ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rqscan.errors import ConfigError, OutOfScopeError, UsageError
from rqscan.scan.scope import Scope
from rqscan.settings import ScopeSettings

NAMES = {
    "in.example": ["10.0.0.1", "2001:db8::1"],
    "half.example": ["10.0.0.1", "10.9.0.1"],
    "out.example": ["192.0.2.1"],
}


def scope(allow, deny=(), exclude=()):
    return Scope(allow, deny, exclude, look_up=NAMES.__getitem__)


def test_targets_inside_pass():
    checked = scope(["10.0.0.0/8", "2001:db8::/32"], ["10.9.0.1"])
    checked.check(["10.0.0.0/16", "2001:db8::5", "in.example"])
    checked.check([])


@pytest.mark.parametrize(
    ("specs", "message"),
    [
        (
            ["10.0.0.0/24", "10.9.0.0/16"],
            (
                "target '10.9.0.0/16' is outside the scope: 10.9.0.1 is denied by "
                "scope.deny 10.9.0.1; "
                "1 of 65792 targets is"
            ),
        ),
        (
            ["10.0.0.1", "192.0.2.0/24", "198.51.100.7"],
            (
                "target '192.0.2.0/24' is outside the scope: 192.0.2.0 is not in scope.allow; "
                "257 of 258 targets are"
            ),
        ),
        (
            ["10.0.0.1", "half.example"],
            (
                "target 'half.example' is outside the scope: 10.9.0.1 is "
                "denied by scope.deny 10.9.0.1; 1 of 2 targets is"
            ),
        ),
        (
            ["out.example"],
            (
                "target 'out.example' is outside the scope: "
                "192.0.2.1 is not in scope.allow; 1 of 1 targets is"
            ),
        ),
        (
            ["::ffff:10.9.0.1"],
            "target '::ffff:10.9.0.1' is outside the scope: 10.9.0.1 is denied by",
        ),
    ],
)
def test_a_refusal_names_target_rule_and_number(specs, message):
    with pytest.raises(OutOfScopeError) as caught:
        scope(["10.0.0.0/8"], ["10.9.0.1"]).check(specs)
    assert message in str(caught.value)
    assert "--skip-out-of-scope" in (caught.value.advice or "")


@pytest.mark.parametrize(
    "address", ["0.0.0.0", "0.1.2.3", "224.0.0.1", "255.255.255.255", "::", "ff02::1"]
)
def test_what_is_no_single_host_is_never_scanned_even_if_allowed(address):
    everything = scope(["0.0.0.0/0", "::/0"])
    assert not everything.may_dial(address)
    with pytest.raises(OutOfScopeError, match="never scanned"):
        everything.check([address])


def test_deny_wins_whatever_the_order_or_size():
    checked = scope(["10.0.0.0/30", "10.0.0.1"], ["10.0.0.1", "10.0.0.0/31"])
    assert [checked.may_dial(f"10.0.0.{i}") for i in range(5)] == [False, False, True, True, False]


def test_excluded_targets_are_not_held_against_the_user():
    excluding = scope(["10.0.0.0/8"], ["10.9.0.1"], ["10.9.0.1", "10.9.0.4", "out.example"])
    left = excluding.check(["10.9.0.0/29", "out.example"])
    assert left.slice(0, 9) == ["10.9.0.0", "10.9.0.2-10.9.0.3", "10.9.0.5-10.9.0.7"]


def test_an_excluded_address_is_not_dialled_by_another_name():
    excluding = scope(["0.0.0.0/0", "::/0"], exclude=["10.0.0.1"])
    assert not excluding.may_dial("10.0.0.1")
    with pytest.raises(OutOfScopeError, match=r"'in\.example' .* 10\.0\.0\.1 is excluded"):
        excluding.check(["in.example"])


def test_a_name_is_looked_up_once_so_that_what_was_checked_is_what_is_dialled():
    answers = iter([["10.0.0.1"], ["192.0.2.1"]])
    rebinding = Scope(["10.0.0.0/8"], [], look_up=lambda _: next(answers))
    rebinding.check(["a.example"])
    assert rebinding.resolve("a.example") == ["10.0.0.1"]


def test_split_leaves_out_what_is_outside_and_counts_it():
    inside, outside = scope(["10.0.0.0/8"], ["10.0.0.128/25", "10.9.0.1"]).split(
        ["10.0.0.0/24", "10.0.0.0/7", "half.example", "out.example"]
    )
    assert inside.slice(0, inside.count) == [
        "10.0.0.0-10.0.0.127",
        "10.0.1.0-10.9.0.0",
        "10.9.0.2-10.255.255.255",
    ]
    assert outside.count == 2**24 + 128 + 1 + 2


def test_a_name_that_does_not_resolve_is_named():
    with pytest.raises(UsageError, match=r"target 'nowhere\.invalid' cannot be resolved"):
        Scope(["10.0.0.0/8"], []).check(["nowhere.invalid"])


def test_a_real_name_is_judged_by_all_its_addresses():
    addresses = {str(entry[4][0]) for entry in socket.getaddrinfo("localhost", None)}
    Scope(["127.0.0.0/8", "::1"], []).check(["localhost"])
    with pytest.raises(OutOfScopeError, match="'localhost'"):
        Scope(["127.0.0.0/8", "::1"], [addresses.pop()]).check(["localhost"])


@pytest.mark.parametrize("entry", ["a.example", "10.0.0.300", "", "10.0.0.0/33", "fe80::1%eth0"])
def test_entries_are_addresses_only(entry):
    with pytest.raises(ConfigError, match=r"scope\.deny: .* is no address, CIDR or range"):
        Scope([], ["10.0.0.1", entry])
    with pytest.raises(ConfigError, match=r"scope\.allow: "):
        Scope([entry], [])


def test_the_default_scope_is_loopback_and_private():
    defaults = ScopeSettings()
    checked = Scope(defaults.allow, defaults.deny)
    near = ["127.0.0.1", "::1", "10.1.2.3", "172.31.0.1", "192.168.1.1", "fd00::1"]
    far = ["8.8.8.8", "172.32.0.1", "2001:db8::1", "169.254.0.1", "::ffff:8.8.8.8"]
    assert all(checked.may_dial(address) for address in near)
    assert not any(checked.may_dial(address) for address in far)
    assert checked.may_dial("::ffff:10.0.0.1")


BITS = st.lists(st.tuples(st.integers(0, 255), st.integers(24, 32)), max_size=6)


@given(BITS, BITS, st.integers(0, 255))
def test_may_dial_and_check_agree_with_the_meaning_of_allow_and_deny(allow, deny, last):
    cidrs = [[f"192.0.2.{a}/{bits}" for a, bits in part] for part in (allow, deny)]
    checked, address = Scope(*cidrs), f"192.0.2.{last}"
    allowed, denied = (
        any(ip_address(address) in ip_network(cidr, strict=False) for cidr in part)
        for part in cidrs
    )
    assert checked.may_dial(address) is (allowed and not denied)
    if checked.may_dial(address):
        checked.check([address])
    else:
        with pytest.raises(OutOfScopeError):
            checked.check([address])
