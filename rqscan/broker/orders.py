"""Orders: what is asked of workers by `rqscan.broker.control`, and what they say to it."""

from typing import Annotated, Any

from msgspec import Meta, Struct

__all__ = ["REPLY_S", "Answer", "Command"]

REPLY_S = 60
"""How long answers that nobody fetches are kept."""


class Command(Struct, frozen=True, kw_only=True):
    """What is asked of workers."""

    id: Annotated[str, Meta(pattern=r"^[0-9a-f]{16,64}$")]
    verb: str
    args: dict[str, Any] = {}
    workers: list[str] = []  # empty: all


class Answer(Struct, frozen=True, kw_only=True):
    """What one worker says to a command; `error` tells why it did not do it."""

    worker: str
    host: str
    data: dict[str, Any] = {}
    error: str | None = None
