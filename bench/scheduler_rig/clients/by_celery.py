"""Celery beat, its schedule in a file as it comes; the last runs are set for the start."""

import os
from datetime import UTC, datetime
from typing import Any

import celery
import redis
from celery.signals import beat_init
from grid import ENTRIES, EVERY_S, begin, noop

url = os.environ["BENCH_REDIS"]
app = celery.Celery("bench", broker=url.replace("unix:", "redis+socket:"))
app.conf.task_default_queue = "default"
app.conf.task_ignore_result = True
app.conf.beat_schedule = {
    f"e{number}": {"task": "noop", "schedule": float(EVERY_S), "args": (number,)}
    for number in range(ENTRIES)
}
app.task(noop, name="noop")


@beat_init.connect
def start(sender: Any, **_: object) -> None:
    entries = sender.scheduler.schedule
    for number, due in enumerate(begin(redis.Redis.from_url(url))):
        entries[f"e{number}"].last_run_at = datetime.fromtimestamp(due - EVERY_S, UTC)
