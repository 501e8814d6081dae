"""Keys: (state, key) → state, without a terminal."""

import re

from msgspec import Struct, structs

__all__ = ["HELP", "QUIT", "State", "press", "split"]

QUIT = "\x03"
HELP = (
    "q ^C  quit            ? h F1  this help",
    "Z     freeze          r       refresh now",
    "+ -   faster, slower  j k     scroll the workers (arrows too)",
    "^Z    to the shell    any key closes this",
)
FASTEST_S, SLOWEST_S = 0.5, 60.0


class State(Struct, frozen=True):
    """What the user has chosen."""

    interval_s: float
    is_over: bool = False
    is_help: bool = False
    is_frozen: bool = False
    is_due: bool = False  # a refresh was asked for
    skip: int = 0


def split(data: bytes) -> list[str]:
    """Split what a terminal sent into keys: single characters and escape sequences."""
    return re.findall(r"\x1b(?:\[[0-9;]*[A-Za-z~]|O.)|(?s:.)", data.decode(errors="replace"))


def press(state: State, key: str) -> State:
    """Give the state after a key; an unknown one changes nothing."""
    if key in {"q", QUIT}:
        return structs.replace(state, is_over=True)
    if state.is_help:
        return structs.replace(state, is_help=False)
    changes: dict[str, object] = {}
    match key:
        case "?" | "h" | "\x1bOP":
            changes["is_help"] = True
        case "Z":
            changes["is_frozen"] = not state.is_frozen
        case "r":
            changes["is_due"] = True
        case "+":
            changes["interval_s"] = max(FASTEST_S, state.interval_s / 2)
        case "-":
            changes["interval_s"] = min(SLOWEST_S, state.interval_s * 2)
        case "j" | "\x1b[B" | "\x1bOB":
            changes["skip"] = state.skip + 1
        case "k" | "\x1b[A" | "\x1bOA":
            changes["skip"] = max(0, state.skip - 1)
    return structs.replace(state, **changes)
