"""Failed jobs for commands: all of them in groups, and one in full."""

import zlib
from collections.abc import Iterable
from contextlib import suppress
from typing import Any

from redis import Redis

from rqscan.batches import batches
from rqscan.broker import failed, keys
from rqscan.monitor import failures
from rqscan.monitor.failures import FIELDS, MAX_TRACEBACK_BYTES, FailedJob, failed_job
from rqscan.monitor.records import Failure

__all__ = ["details", "groups"]


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


def details(client: Redis, job_id: str) -> dict[str, Any] | None:
    """Give what is known of a failed job; None if there is none of this id."""
    raw: Any = client.hgetall(keys.job(job_id))
    known = {
        name.decode(errors="replace"): value.decode(errors="replace")
        for name, value in raw.items()
        if name not in {b"data", b"exc_info"}
    }
    if known.get("status") not in {"failed", "stopped"}:
        return None
    traceback = _text(raw.get(b"exc_info", b""))
    return {
        "id": job_id,
        "queue": known.get("origin"),
        "kind": known.get("rqscan_kind"),
        "scan": known.get("rqscan_scan"),
        "description": known.get("description"),
        "error": (traceback.strip().splitlines() or [""])[-1],
        "worker": known.get("worker_name"),
        "attempts": _number(known.get("rqscan_attempt")),
        "failures": _number(known.get("rqscan_failures")),
        "lost_with_horse": _number(known.get("rqscan_lost")),
        "lost_with_worker": _number(known.get("rqscan_host_losses")),
        "losses": known.get("rqscan_losses", "").splitlines(),
        "created_at": known.get("created_at"),
        "enqueued_at": known.get("enqueued_at"),
        "started_at": known.get("started_at"),
        "ended_at": known.get("ended_at"),
        "traceback": traceback,
    }


def _text(packed: bytes) -> str:
    with suppress(zlib.error):  # RQ reads plain ones too
        packed = zlib.decompressobj().decompress(packed, MAX_TRACEBACK_BYTES)
    return packed.decode(errors="replace")


def _number(text: str | None) -> int:
    return int(text) if text and text.isdecimal() else 0
