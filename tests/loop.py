"""A loop around one link, as small as it can be: what the worker's loop does for it."""

import selectors
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import redis

from rqscan.broker.connect import endpoint_of
from rqscan.broker.link import Link
from tests.servers import wait_for

__all__ = ["Loop", "loop"]


class Loop:
    """Turns; `ups` counts how often the link came up, `downs` has the reasons why it went down."""

    def __init__(self, client: redis.Redis, **options: Any) -> None:
        self.selector = selectors.DefaultSelector()
        self.ups = 0
        self.downs: list[str] = []
        self.longest_s = self.longest_cpu_s = 0.0
        self.link = Link(
            endpoint_of(client), self.selector, self._on_up, self.downs.append, **options
        )

    def __repr__(self) -> str:
        return f"a link that was up {self.ups} times and down for {self.downs[-3:]}"

    def _on_up(self) -> None:
        self.ups += 1

    def turn(self) -> None:
        """Do what is due, and what comes in within 50 ms."""
        began, cpu_began = time.monotonic(), time.thread_time()
        self.link.check()
        self.link.flush()
        waiting = time.monotonic()
        events = self.selector.select(max(0.0, min(0.05, self.link.deadline - waiting)))
        waited_s = time.monotonic() - waiting
        for key, event in events:
            key.data(event)
        self.longest_s = max(self.longest_s, time.monotonic() - began - waited_s)
        self.longest_cpu_s = max(self.longest_cpu_s, time.thread_time() - cpu_began)

    def until(self, predicate: Callable[[], Any], timeout: float = 30, what: object = "") -> Any:
        """Turn until the predicate holds."""

        def look() -> Any:
            self.turn()
            return predicate()

        return wait_for(look, timeout, what or self)

    def ask(self, *command: Any) -> Any:
        """Send a command and give its answer, whatever that is."""
        answers: list[Any] = []
        self.link.send(*command, then=answers.append)
        self.until(lambda: answers, what=command)
        return answers[0]

    def close(self) -> None:
        """End the link and the loop."""
        self.link.close()
        self.selector.close()


@contextmanager
def loop(client: redis.Redis, **options: Any) -> Iterator[Loop]:
    """Give a loop; it is closed, and so is the client."""
    made = Loop(client, **options)
    try:
        yield made
    finally:
        made.close()
        client.close()
