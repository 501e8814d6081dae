"""What knows Redis and RQ: the server of the home, connections, keys, scripts, jobs and queues."""
