"""Plain functions enqueued by our queue, which rings the bell."""

from via_rqscan import client, queue

__all__ = ["client", "fill", "stamp"]


def fill(count: int) -> None:
    queue.enqueue_many([queue.prepare_data("plain.noop") for _ in range(count)])


def stamp(_number: int) -> None:
    queue.enqueue("plain.stamp")
