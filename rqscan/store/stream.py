"""The stream: chunk records in a Redis of this host's own that are not in the store yet.

The one module of the store that knows Redis, loaded where `spool.redis_url` is set. Its reader is
the one process of a home that drains, so it needs no consumer group to tell readers apart: what is
read stays until it is removed, and whoever drains next begins with it. The server may be away or
full at any time: nothing here raises for that, and the spool takes what the stream cannot.
"""

import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from rqscan.errors import Fault
from rqscan.home import known_id, spool_stamp, stream_note
from rqscan.model import ChunkRecord
from rqscan.settings import Settings, mask_url
from rqscan.store.breaker import PATIENCE_S, Breaker
from rqscan.store.spool import BATCH_BYTES, BATCH_RECORDS, BATCH_ROWS, Spooled, encoded
from rqscan.tally import Backlog

__all__ = ["BLOCK_S", "Stream"]

CONNECT_S, ANSWER_S = 0.3, 0.5
"""A job waits for that and no longer, and only the first in a home: then the breaker is open."""

NODE_BYTES = 8_192
"""What a record may take beside itself: Redis makes room for several at once (4 KB, rounded up)."""

BLOCK_S = 4
"""How long the reader waits for a record at a time; it looks after the spool's file in between."""

PASSING = redis.ConnectionError, redis.TimeoutError, OSError
LASTING = redis.RedisError, ValueError, TypeError  # the latter two: a part of the URL is unknown

T = TypeVar("T")


class Stream:
    """The stream of one home; connects with its first command, so that it can be forked.

    Args:
        settings: say where the Redis is.
        is_reader: it is used to drain: no job waits for it.
    """

    def __init__(self, settings: Settings, *, is_reader: bool = False) -> None:
        self._settings, self._url = settings, settings.spool.redis_url or ""
        self._answer_s = BLOCK_S + 1 if is_reader else ANSWER_S
        self._patience_s = 0 if is_reader else PATIENCE_S
        self._breaker = Breaker(settings.home, "stream")
        self._key = f"rqscan:spool:{Path(settings.home).resolve()}"
        self._rows = f"{self._key}:rows"
        self._client: redis.Redis | None = None

    @property
    def away(self) -> str | None:
        """Why the server takes nothing, if it does not."""
        away = self._breaker.away()
        return away.reason if away else None

    def append(self, record: ChunkRecord) -> bool:
        """Keep a record; tells whether it was taken, and is as safe as that Redis keeps it."""
        raw, rows = encoded(record), len(record.observations)
        size = spool_stamp(self._settings.home)[0] + len(raw) + NODE_BYTES
        if size > self._settings.spool.max_bytes:
            return False
        fields = ("record", raw, "rows", rows, "store_id", known_id(self._settings))
        return bool(self._run(("XADD", self._key, "*", *fields), ("INCRBY", self._rows, rows)))

    def batch(self) -> list[Spooled]:
        """Give the oldest records, as many as a batch of the spool has if all are alike.

        None when there are no more, or the server is away.
        """
        rows, records, size = self._run(("GET", self._rows)) or (0, 0, 0)
        parts = size / BATCH_BYTES, int(rows or 0) / BATCH_ROWS, records / BATCH_RECORDS
        count = max(1, int(records / max(1, *parts)))
        found, *_ = self._run(("XRANGE", self._key, "-", "+", "COUNT", count)) or [()]
        return [
            Spooled(
                number,
                int(of[b"rows"]),
                is_part=False,
                record=of[b"record"],
                store_id=of[b"store_id"].decode(),
            )
            for number, of in found
        ]

    def remove(self, records: Sequence[Spooled]) -> None:
        """Forget records that are safe elsewhere; those that cannot be removed now come again."""
        rows = sum(one.rows for one in records)
        self._run(("XDEL", self._key, *(one.id for one in records)), ("DECRBY", self._rows, rows))

    def status(self) -> Backlog:
        """Tell what it holds; its bytes are counted with the spool's (`spool_stamp`)."""
        oldest = ("XRANGE", self._key, "-", "+", "COUNT", 1)
        rows, first, records, _ = self._run(("GET", self._rows), oldest) or (0, (), 0, 0)
        at = [datetime.fromtimestamp(int(number.split(b"-")[0]) / 1e3, UTC) for number, _ in first]
        return Backlog(
            records=records,
            rows=max(0, int(rows or 0)),
            oldest_at=at[0] if at else None,
            stream_away=self.away,
        )

    def wait(self) -> bool:
        """Wait until it holds something, for `BLOCK_S` at most; False at once if it is away."""
        ms = BLOCK_S * 1_000
        return self._try(lambda c: [c.xread({self._key: "0"}, count=1, block=ms)]) is not None

    def _run(self, *commands: tuple[Any, ...]) -> list[Any] | None:
        """Run commands in one transaction; gives their answers, then how many records and bytes."""

        def run(client: redis.Redis) -> list[Any]:
            pipe: Any
            with client.pipeline() as pipe:
                for command in (*commands, ("XLEN", self._key), ("MEMORY USAGE", self._key)):
                    pipe.execute_command(*command)
                return list(pipe.execute())

        answers = self._try(run)
        if answers is not None:
            self._note(answers[-1] if answers[-2] else 0)
        return answers

    def _try(self, work: Callable[[redis.Redis], T]) -> T | None:
        if not self._breaker.may_try(self._patience_s):
            return None
        try:
            if self._client is None:
                self._client = redis.Redis.from_url(
                    self._url,
                    socket_connect_timeout=CONNECT_S,
                    socket_timeout=self._answer_s,
                    retry=Retry(NoBackoff(), 0),
                    client_name="rqscan-spool",
                    protocol=2,
                )
            answer = work(self._client)
        except (*PASSING, *LASTING) as error:
            fault = Fault.AWAY if isinstance(error, PASSING) else Fault.REFUSED
            self._breaker.open(fault, f"cannot use Redis at {mask_url(self._url)}: {error}")
            return None
        self._breaker.close()
        return answer

    def _note(self, size: int) -> None:
        """Let those see how much there is who only look at the home."""
        path = stream_note(self._settings.home)
        with suppress(OSError):
            if (path.stat().st_size if path.exists() else 0) != size:
                fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
                try:
                    os.ftruncate(fd, size)
                finally:
                    os.close(fd)
