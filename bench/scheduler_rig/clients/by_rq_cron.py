"""RQ's own CronScheduler; an interval job counts from its last run, which is set for the start."""

import os
from datetime import UTC, datetime

import redis
from grid import ENTRIES, EVERY_S, begin, noop
from rq.cron import CronScheduler

client = redis.Redis.from_url(os.environ["BENCH_REDIS"])
scheduler = CronScheduler(client, logging_level="WARNING")
for number in range(ENTRIES):
    scheduler.register(noop, "default", args=(number,), interval=EVERY_S)
for job, due in zip(scheduler.get_jobs(), begin(client), strict=True):
    job.set_enqueue_time(datetime.fromtimestamp(due - EVERY_S, UTC))
scheduler.start()
