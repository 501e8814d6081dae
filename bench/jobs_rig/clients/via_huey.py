"""Huey, as it comes. Its Redis storage has no acknowledgement: a task is popped, then run."""

import os

import plain
from huey import RedisHuey

huey = RedisHuey("default", url=os.environ["BENCH_REDIS"])
noop = huey.task()(plain.noop)
stamped = huey.task()(plain.stamp)


def fill(count: int) -> None:
    for _ in range(count):
        noop()


def stamp(_number: int) -> None:
    stamped()
