"""Our own jobs: a scan of a kind that does nothing, planned and submitted as `rqscan scan` does."""

from ipaddress import IPv4Address

from rqscan import config
from rqscan.broker.connect import connect
from rqscan.broker.queues import ScanQueue, declared
from rqscan.model import Chunk
from rqscan.scan.compare import compare
from rqscan.scan.kinds import load_kinds
from rqscan.scan.plan import make_plan
from rqscan.scan.submit import submit

settings = config.load()
client = connect(settings)
queue = ScanQueue("default", connection=client)


def fill(count: int) -> None:
    load_kinds(settings.jobs.path)
    first = IPv4Address("127.0.0.1")
    targets = [f"{first}-{first + (count - 1)}"]  # one chunk each, by the kind's probes
    plan = make_plan(settings=settings, targets=targets, kinds=["noop"])
    assert plan.scan.chunks == count
    submit(plan, settings=settings, client=client)
    # The rig's server is new to the fleet at each run, which looks at its whole plan once for that:
    # a start that would otherwise run beside the jobs.
    compare(settings, client)


def stamp(number: int) -> None:
    """Enqueue a chunk of no stored plan: the rig has the store off here."""
    chunk = Chunk(scan_id="stamp", chunk=number, kind="stamp", targets=["127.0.0.1"], params={})
    list(queue.enqueue_chunks([chunk], declared(settings, "default")))
