"""Stock rq-scheduler; its entries move to their first due times at once, before it runs."""

import os
from datetime import UTC, datetime

import redis
from grid import ENTRIES, EVERY_S, begin, noop
from rq_scheduler import Scheduler

client = redis.Redis.from_url(os.environ["BENCH_REDIS"])
scheduler = Scheduler(connection=client, interval=float(os.environ["BENCH_INTERVAL_S"]))
far = datetime(2100, 1, 1, tzinfo=UTC)
for number in range(ENTRIES):
    scheduler.schedule(far, noop, (number,), interval=EVERY_S, id=f"e{number}")
dues = {f"e{number}": due for number, due in enumerate(begin(client))}
client.zadd(scheduler.scheduled_jobs_key, dues)
scheduler.run()
