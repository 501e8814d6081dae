"""Schedulers: what each tells of itself in Redis, and whose entries are not the leader's."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import datetime, timedelta
from typing import Annotated

import msgspec
from msgspec import Meta, Struct, structs

__all__ = ["Scheduler", "living", "unlike"]

SEEN = timedelta(seconds=30)
"""One that was not seen for so long is gone: it tells of itself every few seconds."""


class Scheduler(Struct, frozen=True, kw_only=True):
    """A scheduler, as `keys.SCHEDULERS` has it."""

    name: str = ""
    host: str
    pid: int
    entries: str  # what tells those of its rqscan.toml from others
    at: Annotated[datetime, Meta(tz=True)]  # seen, by Redis' clock


def living(said: Mapping[str, str | bytes], now: datetime) -> list[Scheduler]:
    """Give those that were seen of late, by name.

    Args:
        said: the JSON of each, by name; what none of us has written is left out.
        now: the time by Redis' clock.
    """
    found = []
    for name, raw in sorted(said.items()):
        with suppress(msgspec.MsgspecError):
            one = msgspec.json.decode(raw, type=Scheduler, strict=False)  # a time in seconds too
            found.append(structs.replace(one, name=name))
    return [one for one in found if now - one.at <= SEEN]


def unlike(found: Sequence[Scheduler], leader: str | None) -> Iterator[tuple[str, str]]:
    """Name each scheduler whose entries are not the leader's, and say so in words.

    Where nothing is known of a leader, the first stands for it.
    """
    first = next((one for one in found if one.name == leader), found[0] if found else None)
    for one in found:
        if first and one.entries != first.entries:
            leads = ", which leads" if first.name == leader else ""
            cause = f"has other entries on {one.host} than {first.name} on {first.host}{leads}"
            yield one.name, cause
