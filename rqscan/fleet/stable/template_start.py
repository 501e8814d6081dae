"""Start of the template process: what it must know before it loads anything.

``python -m rqscan.fleet.stable.template_start CONTROL STACKS ROLE TITLE`` runs `template`.
What `logging`, `random` and `threading` do in a forked child is for parents with threads, but for a
new seed; in each horse it would cost as much as half a job. A horse has it back for its own forks.
"""

import importlib
import os
import sys
from collections.abc import Callable
from typing import Any

__all__: list[str] = []

HELD = {"logging", "random", "threading"}


def _hold() -> Callable[[], None]:
    """Keep back the handlers of modules loaded from now on; give what a forked horse calls."""
    held: list[dict[str, Any]] = []
    register = os.register_at_fork

    def hold(**handlers: Any) -> None:
        if any(handler.__module__ in HELD for handler in handlers.values()):
            held.append(handlers)
        else:
            register(**handlers)

    def release() -> None:
        os.register_at_fork = register
        for handlers in held:
            register(**handlers)
        if "random" in sys.modules:
            sys.modules["random"].seed()  # no two horses draw the same numbers

    os.register_at_fork = hold
    return release


def _load_msgspec() -> None:
    # It takes from here what `typing` has too, at the price of all that `inspect` loads.
    sys.modules["typing_extensions"] = None  # type: ignore[assignment]
    importlib.import_module("msgspec")
    del sys.modules["typing_extensions"]


if __name__ == "__main__":
    release = _hold()
    _load_msgspec()
    control, stacks, role, _ = sys.argv[1:]
    template = importlib.import_module("rqscan.fleet.stable.template")
    template.main(int(control), int(stacks), role, release)
