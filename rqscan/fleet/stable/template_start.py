"""Start of the template process: keeps three modules' fork handlers away from its own forks.

``python -m rqscan.fleet.stable.template_start CONTROL STACKS ROLE`` runs `fleet.stable.template`.
What `logging`, `random` and `threading` do in a forked child is for parents with threads, but for a
new seed; in each horse it would cost as much as half a job. A horse has it back for its own forks.
"""

import importlib
import os
import sys
from collections.abc import Callable
from typing import Any

__all__: list[str] = []


def _hold() -> Callable[[], None]:
    """Load the modules without their handlers; give what a horse calls once it is forked."""
    held: list[dict[str, Any]] = []

    def hold(**handlers: Any) -> None:
        held.append(handlers)

    register, os.register_at_fork = os.register_at_fork, hold
    try:
        for name in ("logging", "random", "threading"):
            importlib.import_module(name)
    finally:
        os.register_at_fork = register

    seed = sys.modules["random"].seed

    def release() -> None:
        for handlers in held:
            register(**handlers)
        seed()  # no two horses draw the same numbers

    return release


if __name__ == "__main__":
    release = _hold()
    control, stacks, role = sys.argv[1:]
    template = importlib.import_module("rqscan.fleet.stable.template")
    template.main(int(control), int(stacks), role, release)
