"""What a job carries: JSON that names one of our functions, checked before anything is called.

A writable Redis must not mean code execution, so a payload is data: it is decoded as JSON (never
pickle), it may name `RUN_CHUNK` or what the operator allowed, and nothing is imported until the
name has been checked. Redis and RQ are not needed here: work-horses use this module.
"""

import re
import zlib
from collections.abc import Collection
from typing import Any, NamedTuple

import msgspec

from rqscan.errors import RefusedPayloadError

__all__ = [
    "MAX_BYTES",
    "PROTOCOL",
    "RUN_CHUNK",
    "Call",
    "JsonSerializer",
    "check_name",
    "chunk_of",
    "decode",
    "job_id",
    "read",
]

PROTOCOL = 1
"""Version of what is said between enqueuers, workers and horses; raised when it changes."""

RUN_CHUNK = "rqscan.scan.execute.run_chunk"
"""The one function that our own jobs name."""

MAX_BYTES = 16 * 1024 * 1024
"""Most bytes of a payload once decompressed: a small bomb in Redis stays small here."""

_decode = msgspec.json.Decoder(tuple[str, Any, list[Any], dict[str, Any]]).decode


class JsonSerializer:
    """RQ's serializer interface over JSON; plain JSON for RQ's own tools."""

    @staticmethod
    def dumps(obj: Any) -> bytes:
        """Encode as JSON."""
        return msgspec.json.encode(obj)

    @staticmethod
    def loads(data: bytes) -> Any:
        """Decode JSON; raises msgspec.DecodeError for anything else."""
        return msgspec.json.decode(data)


class Call(NamedTuple):
    """A decoded payload: what it asks to call."""

    function: str
    args: list[Any]
    kwargs: dict[str, Any]


def check_name(name: str, allowed: Collection[str]) -> None:
    """Refuse a function name that is not ours and not allowed.

    Raises:
        RefusedPayloadError: with the name and what may be named.
    """
    if name != RUN_CHUNK and name not in allowed:
        raise RefusedPayloadError(
            f"the payload names {name!r}, which is neither {RUN_CHUNK} nor in "
            "worker.allow_functions; refused and kept for inspection"
        )


def decode(data: bytes, allowed: Collection[str]) -> Call:
    """Read a job's `data` field as RQ stores it and check what it names.

    Raises:
        RefusedPayloadError: not JSON, not RQ's shape, too large, or a name that is not allowed.
    """
    try:
        inflater = zlib.decompressobj()
        raw = inflater.decompress(data, MAX_BYTES)
        is_whole = inflater.eof
    except zlib.error:
        raw, is_whole = data, True  # RQ reads uncompressed payloads too
    if not is_whole:
        raise RefusedPayloadError(f"the payload is cut short or larger than {MAX_BYTES} bytes")
    return read(raw, allowed)


def read(raw: bytes, allowed: Collection[str]) -> Call:
    """Read a payload that is not compressed (any more) and check what it names.

    Raises:
        RefusedPayloadError: not JSON, not RQ's shape, or a name that is not allowed.
    """
    try:
        function, instance, args, kwargs = _decode(raw)
    except msgspec.MsgspecError as e:
        raise RefusedPayloadError(
            "the payload is not JSON of the form [name, null, args, kwargs] (pickle is never "
            "read); enqueue with the JSON serializer"
        ) from e
    if instance is not None:
        raise RefusedPayloadError("the payload calls a method of an object; only functions run")
    check_name(function, allowed)
    return Call(function, args, kwargs)


def job_id(scan_id: str, number: int, generation: int) -> str:
    """Name the job of a chunk in its generation, so that enqueuing it again is seen."""
    return f"{scan_id}-{number}-{generation}"


def chunk_of(job_id: str) -> tuple[str, int, int] | None:
    """Give scan id, chunk number and generation of a chunk's job; None for any other job."""
    found = re.fullmatch("(.+)-([0-9]{1,9})-([0-9]{1,9})", job_id)
    return (found[1], int(found[2]), int(found[3])) if found else None
