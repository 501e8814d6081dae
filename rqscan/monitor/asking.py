"""Asking: many commands in one round trip, each answer where its question stood.

A look asks up to some thousands; redis-py's own pipeline takes several times as long for each of
them, so the commands are packed here and only its connection is used.
"""

from collections.abc import Iterator
from typing import Any

import redis

from rqscan.broker.connect import impatient

__all__ = ["Answers", "Asker", "Raw", "pairs"]

Answers = dict[str, Any]


class Raw(tuple[Any, ...]):
    """A command whose answer is to stay bytes."""

    __slots__ = ()


class Asker:
    """Asks a client that is the asker's from then on: it waits once and briefly.

    Args:
        client: of Redis; its answers are texts, but for those to a `Raw` command.
    """

    def __init__(self, client: redis.Redis) -> None:
        self._pool: Any = client.connection_pool
        texts = {"decode_responses": True, "encoding_errors": "replace", "protocol": 2}
        self._pool.connection_kwargs.update(texts)
        impatient(client)

    def ask(self, asked: Answers) -> Answers:
        """Send every command in a tree of them, and give the tree with the answers in their places.

        None stands for a refusal.

        Raises:
            redis.RedisError: Redis is away.
        """
        connection = self._pool.get_connection()
        try:
            commands = list(_commands(asked))
            packed = b"".join(connection.pack_commands(commands))
            connection.send_packed_command([packed], check_health=False)  # that is another trip
            read = connection.read_response
            answers: list[Any] = []
            for command in commands:
                try:
                    answers.append(read(disable_decoding=isinstance(command, Raw)))
                except redis.ResponseError:
                    answers.append(None)
        except BaseException:
            connection.disconnect()  # an answer that comes yet is for nobody
            raise
        finally:
            self._pool.release(connection)
        found: Answers = _filled(asked, iter(answers))
        return found


def pairs(flat: list[Any] | None) -> dict[Any, Any]:
    """Give what a list of names and values means."""
    return dict(zip(flat[::2], flat[1::2], strict=False)) if flat else {}


def _commands(place: Any) -> Iterator[tuple[Any, ...]]:
    for inner in place.values():
        if isinstance(inner, tuple):
            yield inner
        else:
            yield from _commands(inner)


def _filled(place: Any, answers: Iterator[Any]) -> Any:
    return {
        name: next(answers) if isinstance(inner, tuple) else _filled(inner, answers)
        for name, inner in place.items()
    }
