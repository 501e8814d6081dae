"""Keys: (state, key) → state, without a terminal."""

import re

from msgspec import Struct, structs

__all__ = ["HELP", "QUIT", "STOP", "State", "press", "split"]

QUIT, STOP = "\x03", "\x1a"
HELP = "q quit  Z freeze  r refresh  j k scroll workers  ^Z shell"


class State(Struct, frozen=True):
    """What the user has chosen."""

    is_over: bool = False
    is_frozen: bool = False
    is_due: bool = False  # a refresh was asked for
    skip: int = 0


def split(data: bytes) -> list[str]:
    """Split what a terminal sent into keys: single characters and escape sequences."""
    return re.findall(r"\x1b(?:\[[0-9;]*[A-Za-z~]|O.)|(?s:.)", data.decode(errors="replace"))


def press(state: State, key: str) -> State:
    """Give the state after a key; an unknown one changes nothing."""
    changes: dict[str, object] = {}
    match key:
        case "q" | "\x03":
            changes["is_over"] = True
        case "Z":
            changes["is_frozen"] = not state.is_frozen
        case "r":
            changes["is_due"] = True
        case "j" | "\x1b[B" | "\x1bOB":
            changes["skip"] = state.skip + 1
        case "k" | "\x1b[A" | "\x1bOA":
            changes["skip"] = max(0, state.skip - 1)
    return structs.replace(state, **changes)
