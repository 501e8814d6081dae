"""Reports: what a worker's presence tells of its jobs and of its home's spool.

Nothing is imported that weighs: the monitor draws them before it has loaded Redis' library.
"""

from msgspec import Struct

from rqscan.tally import Idleness

__all__ = ["JobReport", "SpoolReport"]


class JobReport(Struct, frozen=True, kw_only=True):
    """A job that runs: ages are as of the beat."""

    id: str
    kind: str
    age_s: float
    limit_s: int
    progress: float | None = None


class SpoolReport(Struct, frozen=True, kw_only=True):
    """The spool of a worker's home, as of the beat."""

    home: str = ""  # the same for all workers of a host that share it
    rows: int = 0
    bytes: int = 0  # on the disk
    oldest_s: float | None = None  # since its oldest record came
    quarantined: int = 0  # entries
    drain_rows_per_s: float | None = None  # of the last drain that moved something
    eta_s: float | None = None  # for the rest at that rate
    idle: Idleness | None = None  # of the network, if rows wait for it
