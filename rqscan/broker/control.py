"""Control: commands to workers over pub/sub, and their answers over a list of the command's own.

A worker that is frozen, dead or cut off gives no answer: whoever asks tells it as silent.
"""

import secrets
import time
from collections.abc import Collection, Iterator, Sequence
from typing import Any

import msgspec
import redis

from rqscan.broker import keys
from rqscan.broker.orders import Answer, Command

__all__ = ["ask"]

BLOCK_S = 1.0
"""Longest block in the server: well below the client's own time-out."""


def ask(
    client: redis.Redis,
    verb: str,
    args: dict[str, Any] | None = None,
    *,
    workers: Sequence[str] = (),
    expected: Collection[str],
    timeout_s: float,
) -> Iterator[tuple[Answer, float]]:
    """Send a command and give each answer with its round trip in milliseconds.

    Args:
        client: which reads bytes.
        verb: what to do; the workers check it and its arguments.
        args: of the verb.
        workers: to whom; to all if empty.
        expected: names of those that should answer: the end comes with the last of them.
        timeout_s: when to stop waiting.
    """
    command = Command(id=secrets.token_hex(16), verb=verb, args=args or {}, workers=list(workers))
    missing, reply = set(expected), keys.reply(command.id)
    began = time.monotonic()
    client.publish(keys.COMMANDS, msgspec.json.encode(command))
    while missing and (left_s := began + timeout_s - time.monotonic()) > 0:
        found: Any = client.blpop([reply], timeout=max(0.01, min(left_s, BLOCK_S)))
        rtt_ms = round(1000 * (time.monotonic() - began), 2)
        if found is None:
            continue
        answer = msgspec.json.decode(found[1], type=Answer)
        missing.discard(answer.worker)
        yield answer, rtt_ms
    client.delete(reply)
