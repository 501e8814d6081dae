"""The place that knows Redis and RQ: connections, keys, scripts, payloads, jobs and queues."""
