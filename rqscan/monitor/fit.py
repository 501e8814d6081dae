"""Fit: a snapshot → at most `height` lines of at most `width` cells, trouble first.

Room is shared by rank: where it is short, columns go first, then rows, then whole panes; nothing
wraps. Lines are fitted by hand, because a `rich.Table` takes twenty times as long per frame. Texts
come from other hosts and from targets: each is defused before it becomes part of a line.
"""

import re
from collections.abc import Mapping
from datetime import datetime
from itertools import accumulate
from typing import NamedTuple

from rich.cells import cell_len, set_cell_size

from rqscan.monitor.records import Snapshot, Task, Worker

__all__ = ["Line", "Span", "fit"]

Span = tuple[str, str]
"""Text and its rich style."""

Line = list[Span]

HEAD, BAD, WARN = "bold", "bold dark_orange", "dark_orange"
STYLES = {"lost": BAD, "stale": WARN, "mismatched": WARN, "paused": WARN, "unserved": BAD} | {
    "busy": "cyan", "running": "cyan", "STALE": BAD, "FROZEN": WARN
}  # fmt: skip
ORDER = ("lost", "mismatched", "stale", "stopping", "busy")
"""Worker states in the order of rows; the others follow."""

NAME_CELLS = 32
"""Widest column but the last, which takes what is left, and is dropped below `LAST_CELLS`."""

LAST_CELLS = 12


class _Pane(NamedTuple):
    """A table: each column's title has the rank at which it is dropped, 0 never."""

    columns: dict[str, int]
    rows: list[list[str]]


def fit(
    snapshot: Snapshot, width: int, height: int, *,
    is_ascii: bool = False, status: str = "", skip: int = 0,
) -> list[Line]:  # fmt: skip
    """Lay out a snapshot.

    Args:
        snapshot: what to show.
        width: cells of a line.
        height: most lines.
        is_ascii: no character beyond ASCII.
        status: the word for how fresh it is, with a time; the snapshot's own by default.
        skip: workers to leave out at the top.
    """
    lines = [_header(snapshot, width, status), *_totals(snapshot, width)]
    trouble = [
        [("! ", BAD), (one.what.upper(), BAD), (f" {one.object}: {one.cause}", WARN)]
        for one in snapshot.trouble
    ]
    if len(trouble) > (most := max(1, height // 4)):
        trouble[most - 1 :] = [[*trouble[most - 1], (f" (and {len(trouble) - most} more)", BAD)]]
    lines += trouble
    panes = [_queues(snapshot), _workers(snapshot, skip), _failed(snapshot)]
    panes += [_schedules(snapshot), _scans(snapshot, is_ascii=is_ascii)]
    wanted = [len(pane.rows) + 1 if pane.rows else 0 for pane in panes]
    for pane, room in zip(panes, _share(wanted, height - len(lines)), strict=True):
        lines += _table(pane, room, width)
    return [_crop(line, width, is_ascii=is_ascii) for line in lines[:height]]


def _share(wanted: list[int], room: int) -> list[int]:
    """Share lines: two to each pane in turn while there are any, then one by one by want."""
    shares = [0] * len(wanted)
    for i, want in enumerate(wanted):
        if want and room >= 2:  # noqa: PLR2004 - a title and a row
            shares[i] = 2
            room -= 2
    while room > 0 and (needy := [i for i, s in enumerate(shares) if 0 < s < wanted[i]]):
        for i in needy[:room]:
            shares[i] += 1
        room -= len(needy)
    return shares


def _table(pane: _Pane, room: int, width: int) -> list[Line]:
    if not room:
        return []
    titles, last = list(pane.columns), len(pane.columns) - 1
    rows = [[_safe(cell) for cell in row] for row in pane.rows[: room - 1]]
    sizes = [
        min(NAME_CELLS if i < last else LAST_CELLS, max(map(cell_len, column)))
        for i, column in enumerate(zip(titles, *rows, strict=True))
    ]
    by_rank = sorted(range(len(titles)), key=lambda i: pane.columns[titles[i]])
    ends = accumulate(sizes[i] + 1 for i in by_rank)
    kept = sorted(i for i, end in zip(by_rank, ends, strict=True) if end <= width)

    def cell(i: int, text: str) -> str:
        if i == last:
            return f" {text}"
        text = set_cell_size(text, sizes[i])
        return f" {text if i == 0 else text.rstrip().rjust(len(text))}"

    head = [(cell(i, titles[i]), HEAD) for i in kept]
    note = f" ({len(rows)} of {len(pane.rows)})"
    if len(rows) < len(pane.rows) and sum(cell_len(text) for text, _ in head) + len(note) <= width:
        head.append((note, "dim"))  # cut off it would tell another number
    return [head, *([(cell(i, r[i]), STYLES.get(r[i], "")) for i in kept] for r in rows)]


def _header(snapshot: Snapshot, width: int, status: str) -> Line:
    word = status or f"LIVE {snapshot.at:%H:%M:%S} UTC"
    left = [
        "rqscan top",
        f"redis {snapshot.redis.version or '?'}",
        f"rtt {snapshot.redis.rtt_ms:.1f}ms",
    ]
    while len(left) > 1 and cell_len("  ".join([*left, word])) > width:
        left.pop()
    return [("  ".join(left) + "  ", HEAD), (word, STYLES.get(word.split(" ")[0], HEAD))]


def _totals(snapshot: Snapshot, width: int) -> list[Line]:
    queues, states = snapshot.queues, [worker.state for worker in snapshot.workers]
    jobs = {
        "WAIT": sum(queue.depth or 0 for queue in queues),
        "RUN": sum(queue.running or 0 for queue in queues),
        "FAIL": sum(queue.failed or 0 for queue in queues),
        "+1h": sum(queue.failed_1h or 0 for queue in queues),
        "IN/s": f"{sum(queue.in_per_s for queue in queues):.1f}",
        "OUT/s": f"{sum(queue.out_per_s for queue in queues):.1f}",
        "OLDEST": _age(max((queue.oldest_s or 0 for queue in queues), default=0) or None),
    }
    fleet: dict[str, object] = {
        "WORKERS": len(states),
        **{s: states.count(s) for s in dict.fromkeys(states)},
    }
    fleet |= {"LEADER": snapshot.leader or "none"}
    fleet |= {name.upper(): count for name, count in snapshot.counters.items()}
    return [_pairs(jobs, width), _pairs(fleet, width)]


def _pairs(pairs: Mapping[str, object], width: int) -> Line:
    texts = [f"{name} {_safe(str(value))}" for name, value in pairs.items()]
    ends = accumulate(cell_len(text) + 2 for text in texts)
    kept = [text for text, end in zip(texts, ends, strict=True) if end - 2 <= width]
    return [("  ".join(kept), "")]


def _queues(snapshot: Snapshot) -> _Pane:
    columns = {"QUEUE": 0, "WAIT": 1, "OLDEST": 4, "IN/s": 6, "OUT/s": 7, "RUN": 3, "FAIL": 5}
    columns |= {"+1h": 8, "WORKERS": 9, "STATE": 2}
    return _Pane(columns, [
        [queue.name, _n(queue.depth), _age(queue.oldest_s), f"{queue.in_per_s:.1f}",
         f"{queue.out_per_s:.1f}", _n(queue.running), _n(queue.failed), _n(queue.failed_1h),
         str(queue.workers),
         "paused" if queue.paused else "served" if queue.workers else "unserved"]
        for queue in sorted(snapshot.queues, key=lambda queue: -(queue.depth or 0))
    ])  # fmt: skip


def _workers(snapshot: Snapshot, skip: int) -> _Pane:
    columns = {"WORKER": 0, "STATE": 1, "RUN": 3, "LIMIT": 8, "BEAT": 2, "CLOCK": 7, "OK": 5}
    columns |= {"FAIL": 6, "MB": 9, "QUEUES": 10, "JOB": 4}

    def rank(worker: Worker) -> tuple[int, float]:
        at = ORDER.index(worker.state) if worker.state in ORDER else len(ORDER)
        return at, -(worker.job_age_s or 0)

    rows = []
    for worker in sorted(snapshot.workers, key=rank):
        job = max(worker.jobs, key=lambda job: job.age_s, default=None)
        done = f" {job.progress:.0%}" if job and job.progress is not None else ""
        more = f" and {len(worker.jobs) - 1} more" if len(worker.jobs) > 1 else ""
        rows.append([
            worker.name, worker.state, _age(worker.job_age_s), _age(job.limit_s if job else None),
            _age(worker.heartbeat_age_s),
            "-" if worker.clock_offset_s is None else f"{0 - worker.clock_offset_s:+.1f}s",
            _n(worker.done), _n(worker.failed), _n(worker.rss_bytes and worker.rss_bytes >> 20),
            ",".join(worker.queues), f"{job.kind} {job.id}{done}{more}".strip() if job else "-",
        ])  # fmt: skip
    return _Pane(columns, rows[min(skip, max(0, len(rows) - 1)) :])


def _failed(snapshot: Snapshot) -> _Pane:
    columns = {"FAILED": 2, "N": 1, "QUEUE": 3, "WORKERS": 4, "ERROR": 0}
    return _Pane(columns, [
        [_ago(snapshot.at, one.last_at), str(one.count), one.queue, ",".join(one.workers),
         one.error]
        for one in snapshot.failed
    ])  # fmt: skip


def _schedules(snapshot: Snapshot) -> _Pane:
    columns = {"SCHEDULE": 0, "NEXT": 1, "LAST": 3, "LATE": 4, "STATE": 2}
    return _Pane(columns, [
        [one.name, f"{one.next_at:%d %H:%M:%S}" if one.next_at else "-", _ago(snapshot.at, one.last_at),
         _age(one.lateness_s), "paused" if one.paused else one.state or "-"]
        for one in snapshot.schedules
    ])  # fmt: skip


def _scans(snapshot: Snapshot, *, is_ascii: bool) -> _Pane:
    full, empty = "#-" if is_ascii else "█░"

    def bar(scan: Task) -> str:
        part = (scan.chunks.done + scan.chunks.failed) / (scan.chunks.total or 1)
        return full * int(part * 20) + empty * (20 - int(part * 20)) + f" {part:.0%}"

    columns = {"SCAN": 0, "STATE": 1, "CHUNKS": 3, "FAILED": 5, "ETA": 2, "PROGRESS": 4}
    return _Pane(columns, [
        [scan.scan_id, scan.state, f"{scan.chunks.done}/{scan.chunks.total}",
         str(scan.chunks.failed), _age(scan.eta_s), bar(scan)]
        for scan in snapshot.scans
    ])  # fmt: skip


def _crop(line: Line, width: int, *, is_ascii: bool) -> Line:
    spans = []
    for text, style in line:
        shown = _safe(text)
        if is_ascii:
            shown = shown.encode("ascii", "replace").decode()
        if cell_len(shown) > width:
            shown = set_cell_size(shown, width)
        width -= cell_len(shown)
        spans.append((shown, style))
    return spans


def _safe(text: str) -> str:
    """Give the text without control, bidi and zero-width characters."""
    return "".join(c for c in re.sub(r"\s", " ", text) if c.isprintable())


def _n(number: int | None) -> str:
    return "-" if number is None else str(number)


def _ago(at: datetime, then: datetime | None) -> str:
    return _age((at - then).total_seconds()) if then else "-"


def _age(seconds: float | None) -> str:
    """Give a duration in at most six cells: 0.4s, 12s, 5m31s, 3h02m, 4d07h."""
    if seconds is None:
        return "-"
    if seconds < 10:  # noqa: PLR2004 - tenths matter below that
        return f"{seconds:.1f}s"
    s = int(seconds)
    for unit, small, large, size in (
        ("m", "s", 60, 1),
        ("h", "m", 3600, 60),
        ("d", "h", 86400, 3600),
    ):
        if s < large * (60 if unit == "m" else 24 if unit == "h" else 10**6):
            return f"{s}s" if s < 60 else f"{s // large}{unit}{s % large // size:02}{small}"  # noqa: PLR2004
    return "-"
