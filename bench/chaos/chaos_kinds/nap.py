"""Kind `nap`: sleeps, touches no network, and tells by its rows which execution it was."""

import random
import secrets
import time
from collections.abc import Iterator, Sequence

from msgspec import Struct

from bench.chaos.chaos_kinds import PORTS
from rqscan import clock
from rqscan.model import Observation
from rqscan.scan.kinds import Run, kind

WHOLE_CHUNK = 65_536
"""So many probes a target that each chunk has one."""


class NapParams(Struct, frozen=True, forbid_unknown_fields=True):
    """None."""


@kind("nap", params=NapParams, probes_per_host=lambda _: WHOLE_CHUNK)
def nap(addresses: Sequence[str], _params: NapParams, run: Run) -> Iterator[Observation]:
    """Sleep for a random short time."""
    for address in addresses:
        # mostly short, at times longer than a lease
        time.sleep(min(random.SystemRandom().expovariate(1 / 0.6), 9))
        run.advance(WHOLE_CHUNK)
        # A protocol of its own makes each execution other rows: one too many is seen.
        once, now = secrets.token_hex(8), clock.now()
        for port in PORTS:
            yield Observation(host=address, port=port, proto=once, state="open", observed_at=now)
