"""Failed jobs for commands: all of them in groups, and one in full."""

import base64
import zlib
from collections.abc import Iterable
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

import msgspec
from redis import Redis

from rqscan.batches import batches
from rqscan.broker import failed, keys
from rqscan.clock import iso
from rqscan.monitor import failures
from rqscan.monitor.failures import FIELDS, MAX_TRACEBACK_BYTES, FailedJob, failed_job
from rqscan.monitor.records import Failure

__all__ = ["details", "groups"]

ENDS = {"1": "finished", "2": "failed", "3": "stopped", "4": "retried", "5": "retries used up"}
"""RQ's `Result.Type`, whose numbers are what it keeps."""

SHOWN_RESULTS = 10
"""Ends of attempts that are told: RQ and we keep about as many."""


def groups(client: Redis, queues: Iterable[str]) -> list[Failure]:
    """Give the failed jobs of queues in groups, as a snapshot does, but each of them."""
    found: list[Failure] = []
    for queue in queues:
        members: dict[str, FailedJob] = {}
        for page in batches(failed.failed_ids(client, queue), failed.PAGE):
            with client.pipeline(transaction=False) as pipeline:
                for job_id in page:
                    pipeline.hmget(keys.job(job_id), FIELDS)
                answers = pipeline.execute(raise_on_error=False)
            for job_id, answer in zip(page, answers, strict=True):
                is_job = isinstance(answer, list)  # else the key holds something else
                members[job_id], _ = failed_job(answer if is_job else None)
        found += failures.groups(queue, members)
    return failures.newest_first(found)


def details(client: Redis, job_id: str, *, is_any: bool = False) -> dict[str, Any] | None:
    """Give what is known of a job that has failed, or of any; None if there is none of this id."""
    with client.pipeline(transaction=False) as pipeline:
        pipeline.hgetall(keys.job(job_id))
        pipeline.xrevrange(keys.results(job_id), count=SHOWN_RESULTS)
        raw, results = pipeline.execute(raise_on_error=False)
    raw = raw if isinstance(raw, dict) else {}  # else the key holds something else than a job
    known = {
        name.decode(errors="replace"): value.decode(errors="replace")
        for name, value in raw.items()
        if name not in {b"data", b"exc_info"}
    }
    if not known or not (is_any or known.get("status") in {"failed", "stopped"}):
        return None
    traceback = _text(raw.get(b"exc_info", b""))
    return {
        "id": job_id,
        "status": known.get("status"),
        "queue": known.get("origin"),
        "kind": known.get("rqscan_kind"),
        "scan": known.get("rqscan_scan"),
        "description": known.get("description"),
        "error": _last_line(traceback),
        "worker": known.get("worker_name"),
        "attempts": _number(known.get("rqscan_attempt")),
        "failures": _number(known.get("rqscan_failures")),
        "lost_with_horse": _number(known.get("rqscan_lost")),
        "lost_with_worker": _number(known.get("rqscan_host_losses")),
        "losses": known.get("rqscan_losses", "").splitlines(),
        "timeout_s": _number(known.get("timeout")),
        "created_at": known.get("created_at"),
        "enqueued_at": known.get("enqueued_at"),
        "started_at": known.get("started_at"),
        "ended_at": known.get("ended_at"),
        "results": [_result(*one) for one in results] if isinstance(results, list) else [],
        "call": _call(raw.get(b"data", b"")),
        "traceback": traceback,
    }


def _result(entry: bytes, fields: dict[bytes, bytes]) -> dict[str, Any]:
    """Give how one attempt has ended; RQ keeps its traceback compressed and in base 64."""
    packed = b""
    with suppress(ValueError):
        packed = base64.b64decode(fields.get(b"exc_string", b""))
    kind = fields.get(b"type", b"").decode(errors="replace")
    ended_ms = int(entry.partition(b"-")[0])
    return {
        "end": ENDS.get(kind, kind),
        "at": iso(datetime.fromtimestamp(ended_ms / 1000, UTC)),
        "worker": fields.get(b"worker_name", b"").decode(errors="replace"),
        "error": _last_line(_text(packed)),
    }


def _call(packed: bytes) -> Any:
    """Give function and arguments of a payload: data only, nothing of it is imported or run."""
    try:
        return msgspec.json.decode(_text(packed))
    except msgspec.DecodeError:
        return None


def _last_line(text: str) -> str:
    return (text.strip().splitlines() or [""])[-1]


def _text(packed: bytes) -> str:
    with suppress(zlib.error):  # RQ reads plain ones too
        packed = zlib.decompressobj().decompress(packed, MAX_TRACEBACK_BYTES)
    return packed.decode(errors="replace")


def _number(text: str | None) -> int:
    return int(text) if text and text.isdecimal() else 0
