"""Celery with late acknowledgement and a prefetch of one; no results."""

import os

import celery
import plain

app = celery.Celery("bench", broker=os.environ["BENCH_REDIS"].replace("unix:", "redis+socket:"))
app.conf.task_acks_late = True
app.conf.worker_prefetch_multiplier = 1
app.conf.task_default_queue = "default"
noop = app.task(plain.noop, name="noop")
stamped = app.task(plain.stamp, name="stamp")


def fill(count: int) -> None:
    for _ in range(count):
        noop.delay()


def stamp(_number: int) -> None:
    stamped.delay()
