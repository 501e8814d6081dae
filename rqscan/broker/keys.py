"""Every Redis key: RQ's, which we share, and our own, one function each.

Names only: nothing is imported, so that the monitor can read without loading RQ. A test holds the
RQ half against RQ. Scripts build job keys from ids, so Redis Cluster is not supported.
"""

RQ = "rq:"
OWN = "rqscan:"

STAT_S = 10
"""Seconds that one bucket of the rate counters spans."""

QUEUES = RQ + "queues"
WORKERS = RQ + "workers"
SUSPENDED = RQ + "suspended"
PRESENCE = OWN + "presence"
"""Sorted set: worker name → Redis time of its last beat; lost workers stay for an hour."""
HOLDERS = OWN + "holders"
"""Sorted set: worker that may hold jobs → Redis time of its last beat; a rescue takes it out."""
SWEEPER = OWN + "sweeper"
"""The worker that looks for orphans: its name, kept alive by each sweep."""
DEPUTY = OWN + "deputy"
"""The worker that sweeps as soon as the sweeper does not."""
LAST_BEAT = OWN + "last_beat"
"""Redis time of anybody's last beat: a gap in it is an outage, not many deaths."""
GRACE = OWN + "grace"
"""There for a while after an outage: nobody is rescued from until all had time to beat."""
SERVED = OWN + "served"
"""Sorted set: queue → Redis time of the last beat of a worker that serves it."""
PAUSED = OWN + "paused"
"""Set of the names of paused queues."""
STORE = OWN + "store"
"""Hash: store_id and protocol of who enqueued last; a worker of another claims nothing."""
MARKER = OWN + "marker"
"""Hash: store id → run id of the Redis server that its plan was last compared with."""
COUNTERS = OWN + "counters"
"""Hash of fleet totals: rescued, lost, refused, fenced."""
FOLLOW_UPS = OWN + "follow_ups"
"""Sorted set: END:JOB whose dependents, rate limit or webhooks wait → Redis time to see to it."""
SCANS = OWN + "scans"
"""Sorted set: id of each scan that has not ended → Redis time of its request."""
COMMANDS = OWN + "commands"
"""Channel on which every worker hears commands."""
LEADER = OWN + "leader"
"""The scheduler that leads: its token, kept alive by renewal."""
SCHEDULE = OWN + "schedule"
"""Sorted set: schedule entry → when to fire it next (Unix seconds, UTC), infinite if never."""
SCHEDULE_KNOWN = OWN + "schedule_known"
"""There once a leader has written the schedule: without it Redis has forgotten that."""
SCHEDULE_CHANGED = OWN + "schedule_changed"
"""Channel on which the leader hears that the entries have changed."""
RUNS = OWN + "runs"
"""Sorted set: a run that fell due and is not made yet, JSON → Redis time when it was fired."""
RUNS_BELL = OWN + "bell:runs"
"""List that rings when a run was put there."""
SCHEDULERS = OWN + "schedulers"
"""Hash: scheduler → JSON of what it is and of the entries that it has, and Redis time of that."""


def job(job_id: str) -> str:
    """Hash of one job."""
    return f"{RQ}job:{job_id}"


def results(job_id: str) -> str:
    """Stream of a job's results."""
    return f"{RQ}results:{job_id}"


def queue(name: str) -> str:
    """List of the ids of waiting jobs."""
    return f"{RQ}queue:{name}"


def registry(state: str, queue_name: str) -> str:
    """Sorted set of a queue's jobs in a state: wip, finished, failed, scheduled, deferred."""
    return f"{RQ}{state}:{queue_name}"


def worker(name: str) -> str:
    """Hash of a worker as RQ knows it."""
    return f"{RQ}worker:{name}"


def workers_of(queue_name: str) -> str:
    """Set of the keys of a queue's workers."""
    return f"{RQ}workers:{queue_name}"


def executions_of(worker_name: str) -> str:
    """Set of the job:token pairs that a worker runs."""
    return f"{RQ}worker:{worker_name}:executions"


def bell(queue_name: str) -> str:
    """List that holds one element when a queue may have work: idle workers block on it."""
    return f"{OWN}bell:{queue_name}"


def record(worker_name: str) -> str:
    """JSON presence of a worker, kept for an hour after its last beat."""
    return f"{OWN}worker:{worker_name}"


def progress(scan_id: str) -> str:
    """Hash of a scan's counts: total, done, failed, cancelled, observations, probes, spooled.

    The last are those observations that were not in the store yet when their chunk ended.
    Besides started_at and, once all have ended, finished_at; it is then kept for a day.
    """
    return f"{OWN}scan:{scan_id}"


def ended(scan_id: str) -> str:
    """Bitmap of a scan's chunks whose end is counted in its progress, by chunk number."""
    return f"{progress(scan_id)}:ended"


def generations(scan_id: str) -> str:
    """Hash of a scan's chunks that were put again: chunk number → the newest generation put."""
    return f"{progress(scan_id)}:generations"


def commands_of(worker_name: str) -> str:
    """Channel of RQ's own commands to one worker."""
    return f"{RQ}pubsub:{worker_name}"


def reply(command_id: str) -> str:
    """List of the workers' answers to one command, kept for a minute."""
    return f"{OWN}reply:{command_id}"


def stat(bucket: int) -> str:
    """Hash of counts in one bucket of `STAT_S` seconds: QUEUE:in, :out, :failed and :gone.

    What ended went out, failed or not; what was taken away, or stopped, is gone.
    """
    return f"{OWN}stat:{bucket}"


def minute(number: int) -> str:
    """Hash of the same counts in one minute of Redis' clock; kept for half an hour and a bit."""
    return f"{OWN}minute:{number}"


def look(store_id: str) -> str:
    """Name of the worker that looked last whether the plan of a store needs something."""
    return f"{OWN}look:{store_id}"


def schedule_entry(name: str) -> str:
    """Hash of a schedule entry: its state, when it is due next, and what came of its last run."""
    return f"{OWN}schedule:{name}"
