"""The account of rows: what each chunk must have found, against what the store holds."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from bench.chaos.chaos_kinds import PORTS
from rqscan.store.spool import Spool

__all__ = ["Rows"]

Found = Counter[tuple[str, int]]
"""A chunk's rows in the store, by host and port."""


@dataclass
class Rows:
    """Rows of all chunks but those that failed, and what did not arrive."""

    expected: int = 0
    stored: int = 0  # of those expected
    missing: int = 0
    doubled: int = 0  # more than once, or never found
    at_odds: list[str] = field(default_factory=list)  # chunks that tell another number of rows
    spooled: int = 0
    quarantined: list[str] = field(default_factory=list)  # entries, with their reason

    def add(self, about: str, chunk: int, told: int, found: Found, *, has_failed: bool) -> bool:
        """Count a chunk's rows; tells whether all are there.

        Args:
            about: names the chunk.
            chunk: its number; one has one host, and all scans begin at the same.
            told: the number of rows by its record in the store.
            found: its rows.
            has_failed: so that none are expected.
        """
        wanted = {(f"127.0.0.{chunk + 1}", port) for port in PORTS}
        stored = len(wanted & set(found))
        self.doubled += found.total() - stored
        if told != found.total():
            self.at_odds.append(f"{about}: told {told}, has {found.total()}")
        if not has_failed:
            self.expected += len(wanted)
            self.stored += stored
            self.missing += len(wanted) - stored
        return stored == len(wanted)

    def see(self, spools: Iterable[Spool]) -> None:
        """Count what has not come to the store."""
        for spool in spools:
            self.spooled += spool.status().rows
            self.quarantined += [
                f"{spool.file.path}: {one.rows} rows, {one.code}: {one.reason}"
                for one in spool.quarantined()
            ]

    @property
    def is_clean(self) -> bool:
        """Tell whether each row is there once, and nothing is left elsewhere."""
        bad = (self.missing, self.doubled, self.at_odds, self.spooled, self.quarantined)
        return not any(bad)
