import pytest

from rqscan.monitor.keys import State, press, split

CALM = State()


@pytest.mark.parametrize(
    ("state", "keys", "expected"),
    [
        (CALM, "q", State(is_over=True)),
        (CALM, "\x03", State(is_over=True)),
        (CALM, "Z", State(is_frozen=True)),
        (CALM, "ZZ", CALM),
        (CALM, "r", State(is_due=True)),
        (CALM, "jj", State(skip=2)),
        (CALM, "\x1b[B\x1bOBk", State(skip=1)),
        (CALM, "k\x1b[A\x1bOA", CALM),
        (CALM, "x\x1b", CALM),  # Escape never quits
        (CALM, "\x1b[5~é", CALM),
    ],
)
def test_keys_change_the_state(state, keys, expected) -> None:
    for key in split(keys.encode()):
        state = press(state, key)
    assert state == expected


def test_keys_are_split_as_terminals_send_them() -> None:
    assert split(b"q\x1b[A\x1b[15~\x1bOPz\x03\n") == [
        "q", "\x1b[A", "\x1b[15~", "\x1bOP", "z", "\x03", "\n",
    ]  # fmt: skip
    assert split(b"\xff") == ["�"]
