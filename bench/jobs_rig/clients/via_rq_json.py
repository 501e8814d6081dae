"""Plain functions enqueued by RQ's own queue with its JSON serializer, as our workers take them."""

import via_rq
from rq.serializers import JSONSerializer

queue = via_rq.make_queue(serializer=JSONSerializer)


def fill(count: int) -> None:
    queue.enqueue_many([queue.prepare_data("plain.noop") for _ in range(count)])


def stamp(_number: int) -> None:
    queue.enqueue("plain.stamp")
