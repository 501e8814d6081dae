"""Board: the panes as the user has them arranged: filtered, sorted, grouped by host."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from msgspec import structs

from rqscan.monitor.records import Snapshot, Worker
from rqscan.monitor.screen.columns import Pane
from rqscan.monitor.screen.panes import panes, rank
from rqscan.monitor.screen.state import Sort, Subject, View

__all__ = ["HOST", "arrange", "cursor", "subject"]

PLAIN = View()

FAULTY = {"lost", "stale", "mismatched"}

HOST = "host "
"""Stands before the name of a host where those of workers stand."""


def arrange(shot: Snapshot, view: View = PLAIN) -> dict[str, Pane]:
    """Give the panes by their names, from top to bottom."""
    return {pane.name: _arranged(pane, shot, view) for pane in panes(shot, is_local=view.is_local)}


def cursor(pane: Pane, view: View) -> int:
    """Tell which item is under the cursor: the chosen one wherever it went, else the first."""
    wanted = view.at.get(pane.name)
    return next((i for i, one in enumerate(pane.items) if pane.key(one) == wanted), 0)


def subject(pane: Pane, item: Any) -> Subject:
    """Tell what a row stands for."""
    name = pane.key(item)
    return (
        Subject("host", name.removeprefix(HOST))
        if name.startswith(HOST)
        else Subject(pane.name, name)
    )


def _arranged(pane: Pane, shot: Snapshot, view: View) -> Pane:
    items, notes = list(pane.items), []
    if view.is_faults and (bad := _judge(pane, shot)):
        items = [one for one in items if bad(one)]
        notes.append("faults only")
    if wanted := view.filters.get(pane.name):
        items = [one for one in items if _matches(pane.cells(one), wanted)]
        notes.append(f"filter {wanted}")
    if sort := view.sorts.get(pane.name):
        items = _sorted(pane, items, sort)
    if pane.name == "workers" and view.is_by_host:
        items = list(_by_host(items, view.open_hosts))
    return pane._replace(items=items, of=0 if notes else pane.of, note=", ".join(notes))


def _judge(pane: Pane, shot: Snapshot) -> Callable[[Any], bool] | None:
    """Give what tells whether an item has a fault; None where all are told."""
    named = {one.object for one in shot.trouble if one.level != "note"}
    if pane.name == "workers":
        return lambda one: (
            one.state in FAULTY
            or not named.isdisjoint({one.name, one.host, *(job.id for job in one.jobs)})
        )
    if pane.name in {"queues", "schedule"}:
        return lambda one: one.name in named
    if pane.name == "scans":
        return lambda one: bool(one.chunks.failed)
    return None


def _matches(cells: dict[str, str], wanted: str) -> bool:
    """Tell whether a row has each word: `word`, `!word` not, `title:word` in that column."""
    return all(
        _has(cells, word.removeprefix("!")) != word.startswith("!") for word in wanted.split()
    )


def _has(cells: dict[str, str], word: str) -> bool:
    title, colon, text = word.lower().partition(":")
    among = [cell for name, cell in cells.items() if name.lower().startswith(title)]
    if not colon or not among:
        among, text = list(cells.values()), word.lower()
    return any(text in cell.lower() for cell in among)


def _sorted(pane: Pane, items: list[Any], sort: Sort) -> list[Any]:
    """Sort by a column: figures the largest first, words by the alphabet, the unknown last."""
    value = next((one.value for one in pane.columns if one.title == sort.title), None)
    if value is None:
        return items
    known = [one for one in items if value(one) is not None]
    is_text = all(isinstance(value(one), str) for one in known)
    known.sort(key=value, reverse=is_text == sort.is_reversed)
    return known + [one for one in items if value(one) is None]


def _by_host(workers: Iterable[Worker], opened: frozenset[str]) -> Iterator[Worker]:
    """Give a row for each host, the sum of its workers, and theirs where it is open."""
    hosts: dict[str, list[Worker]] = {}
    for one in workers:
        hosts.setdefault(one.host or "?", []).append(one)
    for host, members in hosts.items():
        worst = min(members, key=rank)
        count = sum(one.state == worst.state for one in members)
        first = max(members, key=lambda one: one.job_age_s or 0)
        yield structs.replace(
            first,
            name=HOST + host,
            state=f"{worst.state} {count}/{len(members)}",
            heartbeat_age_s=max(one.heartbeat_age_s for one in members),
            clock_offset_s=max((o.clock_offset_s or 0 for o in members), key=abs),
            jobs=[job for one in members for job in one.jobs],
            queues=sorted({name for one in members for name in one.queues}),
            done=sum(one.done or 0 for one in members),
            failed=sum(one.failed or 0 for one in members),
            rss_bytes=sum(one.rss_bytes or 0 for one in members),
            spool_rows=max(one.spool_rows or 0 for one in members),
        )
        if host in opened:
            yield from members
