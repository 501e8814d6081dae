import threading

from msgspec import Struct

from rqscan import clock
from rqscan.model import Observation
from rqscan.scan.kinds import kind

WHOLE_CHUNK, STEPS = 65_536, 16


class Params(Struct, frozen=True, forbid_unknown_fields=True):
    ports: str = "2"  # `rqscan scan -p`: for how many seconds an address is looked at


@kind("sweep", params=Params, probes_per_host=lambda _: WHOLE_CHUNK)  # one address a chunk
def sweep(addresses, params, run):
    """Look at addresses for a while, and send them nothing."""
    for address in addresses:
        for _ in range(STEPS):
            threading.Event().wait(int(params.ports) / STEPS)
            run.advance(WHOLE_CHUNK // STEPS)
        yield Observation(host=address, port=22, state="open", data={}, observed_at=clock.now())
