"""Ledger: how attempts ended, kept until Redis has said that it knows.

An end is sent with the next packet; however long Redis is away or refuses it, it is sent again
after each beat. The finish script takes it once, and answers what became of the job each time; or
it refuses it because a later attempt has the job (`fenced`).
"""

import os
import secrets
from collections import deque
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from msgspec import msgpack

from rqscan.broker import keys, scripts
from rqscan.broker.link import LOST, Link, NoAnswer
from rqscan.broker.payload import chunk_of
from rqscan.fleet.outage import Outage
from rqscan.fleet.presence import flat
from rqscan.fleet.stable.wire import Assignment, Outcome
from rqscan.logs import Event, log

__all__ = ["Ledger"]

Unrecorded = Callable[[str, int, int, int, str, str, float], None]
"""Takes scan id, chunk, generation, attempt, worker, error, and seconds worked."""

_EVENTS = {
    "finished": Event.JOB_FINISHED,
    "failed": Event.JOB_FAILED,
    "stopped": Event.JOB_STOPPED,
    "giveback": Event.JOB_GIVEN_BACK,
    "lost": Event.JOB_LOST,
    "displaced": Event.JOB_LOST,
    "retry": Event.JOB_RETRIED,
}


class Ledger:
    """The ends that one worker has still to record, and its totals.

    Args:
        name: of the worker.
        outage: told what Redis does not take.
        limits: by disposition, losses from which a job is failed as poison.
        on_unrecorded: called for each chunk that has failed for good and whose horse could not
            record that, or did not live to.
    """

    def __init__(
        self,
        name: str,
        outage: Outage,
        limits: Mapping[str, int],
        on_unrecorded: Unrecorded = lambda *_: None,
    ) -> None:
        self._name, self._outage = name, outage
        self._limits, self._on_unrecorded = limits, on_unrecorded
        self.follow_ups: deque[tuple[str, str]] = deque()  # end and job, for a horse to see to
        self._ends: dict[str, tuple[Assignment, Outcome]] = {}
        self._unsent: dict[str, None] = {}  # tokens, in order
        self._kept: dict[Path, set[str]] = {}  # files of ends, with the tokens that are still in
        self.done = self.failed = 0

    def __len__(self) -> int:
        return len(self._ends)

    @property
    def held(self) -> list[Assignment]:
        """The jobs that have ended and are not recorded."""
        return [assignment for assignment, _ in self._ends.values()]

    def add(self, assignment: Assignment, outcome: Outcome) -> None:
        """Take an end, for the next `send`."""
        self._ends[assignment.token] = (assignment, outcome)
        self._unsent[assignment.token] = None

    def keep(self, folder: Path) -> None:
        """Put what Redis has not taken on disk, for the next worker of this home."""
        if not self._ends:
            return
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        path = folder / f"{secrets.token_hex(8)}.ends"
        with path.with_suffix(".new").open("xb") as file:
            file.write(msgpack.encode(list(self._ends.values())))
            file.flush()
            os.fsync(file.fileno())
        path.with_suffix(".new").rename(path)

    def recall(self, folder: Path) -> None:
        """Take what workers before us have kept; each file stays until Redis has taken all of it.

        Two workers may read the same file: Redis takes an end once.
        """
        for path in folder.glob("*.ends"):
            try:
                ends = msgpack.decode(path.read_bytes(), type=list[tuple[Assignment, Outcome]])
            except (OSError, ValueError) as e:  # taken by another meanwhile, or no file of ours
                log(Event.ENDS_UNREADABLE, worker=self._name, file=str(path), reason=str(e))
                continue
            self._kept[path] = {assignment.token for assignment, _ in ends}
            for assignment, outcome in ends:
                self.add(assignment, outcome)

    def _forget(self, token: str) -> None:
        for path, tokens in list(self._kept.items()):
            tokens.discard(token)
            if not tokens:
                path.unlink(missing_ok=True)
                del self._kept[path]

    def resend(self) -> None:
        """Let every end be sent again: an earlier answer may be lost."""
        self._unsent = dict.fromkeys(self._ends)

    def send(self, link: Link) -> int:
        """Send the ends that were not sent yet; gives their number."""
        tokens = [token for token in self._unsent if token in self._ends]  # else answered since
        self._unsent = {}
        for token in tokens:
            self._record(link, token)
        return len(tokens)

    def _record(self, link: Link, token: str) -> None:
        assignment, end = self._ends[token]
        job, queue = assignment.job_id, assignment.queue
        states = [keys.registry(state, queue) for state in ("wip", "finished", "failed")]
        own = [keys.job(job), keys.queue(queue), *states, keys.worker(self._name)]
        own += [keys.executions_of(self._name), keys.results(job), keys.bell(queue), keys.COUNTERS]
        own += [keys.registry("scheduled", queue)]
        link.send(
            "EVALSHA", scripts.FINISH.sha, len(own), *own, job, token, end.disposition,
            end.result_ttl_s, end.failure_ttl_s, f"{end.worked_s:.6f}", queue,
            self._limits.get(end.disposition, 0),
            end.observations, end.probes, int(end.is_refused),
            f"{end.retry_delay_s:.3f}", end.retries, int(end.is_repeated), int(end.is_front),
            end.spooled, 2 * len(end.fields), *flat(end.fields), *flat(end.result),
            then=lambda answer: self._on_recorded(token, answer),
        )  # fmt: skip

    def _on_recorded(self, token: str, answer: Any) -> None:
        if answer is LOST or token not in self._ends:  # sent again later, or answered twice
            return
        if isinstance(answer, NoAnswer):  # a full disk, too few replicas: it may pass
            self._outage.refused("finish", answer)
            return
        assignment, end = self._ends.pop(token)
        self._forget(token)
        if isinstance(answer, list):
            self.follow_ups.append((answer[1].decode(), assignment.job_id))
            answer = answer[0]
        became, how = answer.decode(), end.disposition
        has_failed = became in {"failed", "stopped"}
        self.done += became == "finished"
        self.failed += has_failed
        facts: dict[str, Any] = {"job": assignment.job_id, "queue": assignment.queue}
        if end.error:
            facts["error"] = end.error
        if became in {"fenced", "gone"}:
            facts["not_recorded"] = became
        elif how == "failed" and not has_failed:
            how = "retry"
            facts |= {
                "failures": assignment.failures + 1,
                "again_in_s": round(end.retry_delay_s, 3),
            }
        log(Event.JOB_REFUSED if end.is_refused else _EVENTS[how], **facts,
            worked_s=round(end.worked_s, 3))  # fmt: skip
        if has_failed and how in self._limits:
            log(Event.JOB_FAILED, **facts | {"error": end.poison})
        if not has_failed or end.is_recorded or not assignment.kind:
            return
        if chunk := chunk_of(assignment.job_id):
            error = end.poison or end.error
            self._on_unrecorded(*chunk, assignment.attempt, assignment.worker, error, end.worked_s)
