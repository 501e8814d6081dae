"""Dramatiq, as it comes: messages are acknowledged after the actor has run."""

import os

import dramatiq
import plain
from dramatiq.brokers.redis import RedisBroker

dramatiq.set_broker(RedisBroker(url=os.environ["BENCH_REDIS"]))
noop = dramatiq.actor(plain.noop)
stamped = dramatiq.actor(plain.stamp)


def fill(count: int) -> None:
    for _ in range(count):
        noop.send()


def stamp(_number: int) -> None:
    stamped.send()
