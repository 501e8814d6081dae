"""Kind ``ports``: which TCP ports accept a connection."""

from collections.abc import Iterator, Sequence
from typing import Annotated

from msgspec import Meta, Struct

from rqscan import clock
from rqscan.model import COVERAGE, Observation
from rqscan.probe.connect import scan_ports
from rqscan.scan.kinds import Run, kind
from rqscan.scan.ports import parse_ports
from rqscan.states import ProbeState

__all__ = ["PortsParams", "ports"]


class PortsParams(Struct, frozen=True, forbid_unknown_fields=True):
    """Which ports, and how long and often a silent one is tried."""

    ports: str = "top-1000"
    timeout_ms: Annotated[int, Meta(ge=50, le=60_000)] = 1000
    tries: Annotated[int, Meta(ge=1, le=10)] = 2

    def __post_init__(self) -> None:
        parse_ports(self.ports)  # its UsageError names the port


@kind(
    "ports",
    params=PortsParams,
    probes_per_host=lambda params: len(parse_ports(params.ports)),
    silent_s=lambda params: params.tries * params.timeout_ms / 1000,
)
def ports(addresses: Sequence[str], params: PortsParams, run: Run) -> Iterator[Observation]:
    """Find the open TCP ports of each host by connecting to them."""
    wanted = parse_ports(params.ports)
    counts: dict[str, dict[str, dict[str, int]]] = {address: {} for address in addresses}
    for host, port, state, reason, tries in scan_ports(
        addresses,
        wanted,
        may_dial=run.may_dial,
        timeout_s=params.timeout_ms / 1000,
        tries=params.tries,
        advance=run.advance,
    ):
        if state is ProbeState.OPEN:
            yield Observation(
                host=host,
                port=port,
                state=state,
                data={"reason": reason, "tries": tries},
                observed_at=clock.now(),
            )
        else:
            of_state = counts[host].setdefault(state, {})
            of_state[reason] = of_state.get(reason, 0) + (1 if port else len(wanted))
    for host, found in counts.items():
        yield Observation(
            host=host,
            state=COVERAGE,
            data={"probes": len(wanted), "counts": found},
            observed_at=clock.now(),
        )
