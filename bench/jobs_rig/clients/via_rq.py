"""Stock RQ, as it comes."""

import os
from functools import partial

import redis
from rq import Queue

make_queue = partial(Queue, "default", redis.Redis.from_url(os.environ["BENCH_REDIS"]))
queue = make_queue()


def fill(count: int) -> None:
    queue.enqueue_many([queue.prepare_data("plain.noop") for _ in range(count)])


def stamp(_number: int) -> None:
    queue.enqueue("plain.stamp")
