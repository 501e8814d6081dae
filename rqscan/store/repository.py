"""Plans and results as typed questions: records in, records out, the only user of the queries."""

import difflib
from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from typing import Any

from msgspec import json

from rqscan import clock
from rqscan.errors import UsageError
from rqscan.model import Counts, Progress, Row, Scan
from rqscan.store.chunks import BATCH, text
from rqscan.store.intake import NO_PORT, Intake, host_key

__all__ = ["Repository"]

# A page of rows begins after these values of the row before it.
CURSOR = ("low", "after_port", "after_kind", "after_proto", "after_state", "after_at", "after_key")


class Repository(Intake):
    """The store's content; every method is one transaction, or one a page.

    All of them raise StoreUnavailable when the database is away or refuses us.
    """

    def store_id(self) -> str:
        """Give the store's own id: 32 hexadecimal digits, for ever the same."""
        with self._database.transaction(read_only=True) as connection:
            return str(self._queries.meta(connection, name="store_id"))

    def add_plan(self, scan: Scan, chunks: Iterable[tuple[int, str]]) -> bool:
        """Write a scan with its chunks, given as (number, kind); all of it or nothing.

        Returns:
            Whether it was written; False when the scan id exists, and the plan stands as it is.
        """
        with self._database.transaction() as connection:
            spec = json.encode(scan).decode()
            row = {"scan_id": scan.scan_id, "name": scan.name, "spec": spec}
            try:
                self._queries.add_scan(connection, **row, requested_at=text(scan.requested_at))
            except self._database.dialect.integrity_error:
                return False
            rows = ((scan.scan_id, number, kind) for number, kind in chunks)
            self._queries.add_chunks(connection, rows)
        return True

    def scan(self, scan_id: str) -> Scan:
        """Give a scan.

        Raises:
            UsageError: there is no such scan.
        """
        with self._database.transaction(read_only=True) as connection:
            spec = self._queries.scan(connection, scan_id=scan_id)
            if spec is not None:
                return json.decode(spec, type=Scan)
            known = [name for (name,) in self._queries.scan_ids(connection, limit=BATCH)]
        close = difflib.get_close_matches(scan_id, known, n=1)
        hint = f"did you mean '{close[0]}'?" if close else "rqscan scans lists them"
        raise UsageError(f"no scan '{scan_id}'; {hint}")

    def latest_scan(self, name: str | None = None) -> Scan | None:
        """Give the scan asked for last, of this name or of any; None when there is none."""
        with self._database.transaction(read_only=True) as connection:
            spec = self._queries.latest_scan(connection, name=name)
        return None if spec is None else json.decode(spec, type=Scan)

    def progress(self, scan_id: str) -> Progress:
        """Count a scan's chunks; an unknown scan has none."""
        with self._database.transaction(read_only=True) as connection:
            return _progress(self._queries.progress(connection, scan_id=scan_id))

    def scans(self, limit: int) -> list[tuple[Scan, Progress]]:
        """List the newest scans, newest first."""
        with self._database.transaction(read_only=True) as connection:
            return [
                (json.decode(spec, type=Scan), _progress(counted))
                for spec, *counted in self._queries.scans(connection, limit=limit)
            ]

    def rows(
        self,
        scan_id: str | None = None,
        *,
        host: str | None = None,
        port: int | None = None,
        kind: str | None = None,
        since: datetime | None = None,
        coverage: bool = False,
        limit: int | None = None,
    ) -> Iterator[Row]:
        """Give rows of one scan or of all, by host and port as numbers; page by page.

        `first_seen` and `last_seen` are of the same fact (kind, host, port, proto and state) over
        all scans. With `coverage`, coverage rows come along.
        """
        only = {"port": port, "kind": kind, "coverage": coverage, "since": since and text(since)}
        query = self._queries.rows_of_all
        if scan_id is not None:
            query, only["scan_id"] = self._queries.rows_of_scan, scan_id
        low, high = (host_key(host),) * 2 if host else (b"", b"\xff")
        after = (low, NO_PORT - 1, "", "", "", "1000-01-01 00:00:00.000000", b"")
        while limit is None or limit > 0:
            page = BATCH if limit is None else min(limit, BATCH)
            start = dict(zip(CURSOR, after, strict=True))
            with self._database.transaction(read_only=True) as connection:
                found = list(query(connection, **only, **start, high=high, page=page))
            for row in found:
                yield _as_row(row)
            if len(found) < page:
                return
            after = found[-1][: len(CURSOR)]
            limit = None if limit is None else limit - page


def _as_row(found: tuple[Any, ...]) -> Row:
    _, port, kind, proto, state, at, _, scan_id, host, data, worker, first, last = found
    return Row(
        scan_id=scan_id,
        kind=kind,
        host=host,
        port=None if port == NO_PORT else port,
        proto=proto,
        state=state,
        data=json.decode(data),
        first_seen=clock.from_iso(first),
        last_seen=clock.from_iso(last),
        observed_at=clock.from_iso(at),
        worker=worker,
    )


def _progress(counted: Sequence[Any]) -> Progress:
    scan_id, total, done, failed, cancelled, observations, probes, started, finished = counted
    return Progress(
        scan_id=scan_id,
        chunks=Counts(total, done, failed, cancelled),
        observations=observations,
        probes=probes,
        started_at=clock.from_iso(started) if started else None,
        finished_at=clock.from_iso(finished) if finished else None,
    )
