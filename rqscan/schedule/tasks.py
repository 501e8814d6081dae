"""Tasks: what is not a scan is sent to workers, which have it done by a child process.

A drain goes to one worker of each home that keeps rows for the store, and each home decides for its
own network; whatever else concerns the store goes to one worker of the fleet.
"""

from collections import defaultdict
from typing import Any

import msgspec

from rqscan.broker.control import ask
from rqscan.errors import FailedError
from rqscan.fleet.presence import Presence
from rqscan.fleet.roster import registered
from rqscan.schedule.entries import Entry
from rqscan.settings import Settings

__all__ = ["send"]

ANSWER_S = 1.0
"""How long one worker has to answer before the next of its home is asked."""

Home = tuple[str, str]
"""A host, and the home on it."""


def send(settings: Settings, client: Any, entry: Entry) -> str:
    """Have an entry's task done; tells by whom.

    Raises:
        FailedError: nobody who should answers.
        redis.RedisError: Redis is away.
    """
    homes = _homes(client)
    if entry.task != "drain":
        args = {"older_than_s": entry.older_than_s} if entry.task == "prune" else {}
        everybody = [one for ones in homes.values() for one in ones]
        return f"sent to {_ask(client, str(entry.task), args, everybody, 'in the fleet')}"
    keeping = {home: ones for home, ones in homes.items() if any(map(_rows, ones))}
    delay_s = 0.0
    if entry.when == "idle":
        delay_s = settings.spool.max_delay_s if entry.max_delay_s is None else entry.max_delay_s
    told = []
    for (host, home), ones in sorted(keeping.items()):
        name = _ask(client, "drain-spool", {"within_s": delay_s}, ones, f"of {home} on {host}")
        told.append(f"{name} ({max(map(_rows, ones))} rows)")
    return f"sent to {', '.join(told)}" if told else "no home keeps rows"


def _homes(client: Any) -> dict[Home, list[Presence]]:
    found: dict[Home, list[Presence]] = defaultdict(list)
    for age_s, raw in registered(client).values():
        try:
            one = msgspec.json.decode(raw, type=Presence)
        except msgspec.MsgspecError:  # gone, or of another version
            continue
        if age_s <= one.lease_s and one.spool and not one.mismatch:
            found[one.host, one.spool.home].append(one)
    return found


def _ask(client: Any, verb: str, args: dict[str, Any], ones: list[Presence], where: str) -> str:
    """Ask one after the other until one does it; gives its name."""
    reasons = []
    for one in ones:
        for answer, _ in ask(
            client, verb, args, workers=[one.name], expected=[one.name], timeout_s=ANSWER_S
        ):
            if answer.error is None:
                return one.name
            reasons.append(f"{one.name}: {answer.error}")
    raise FailedError(f"no worker {where} answers{': ' if reasons else ''}{'; '.join(reasons)}")


def _rows(one: Presence) -> int:
    return one.spool_rows or 0
