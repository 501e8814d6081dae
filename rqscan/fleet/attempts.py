"""Attempts: the jobs that run on this worker, each from its claim until Redis has taken its end.

claimed → a spare work-horse → outcome, or the horse's death → ledger. Whatever happens to a horse,
its job has exactly one end here: its result, its time-out, a loss, or the way back to its queue.
"""

import selectors
import time

from rqscan.config import Settings
from rqscan.errors import FailedError
from rqscan.fleet import outcomes
from rqscan.fleet.horses import GIVEN_BACK, Horse, Stable
from rqscan.fleet.ledger import Ledger
from rqscan.fleet.presence import JobReport
from rqscan.fleet.wire import Assignment, Outcome
from rqscan.logs import Event, log

__all__ = ["Attempts"]

TIMED_OUT = "timed out"


class Attempts:
    """What one worker runs.

    Args:
        settings: those in force, for the horses too.
        size: most jobs at once.
        selector: the loop's.
        ledger: takes each end.
    """

    def __init__(
        self, settings: Settings, size: int, selector: selectors.BaseSelector, ledger: Ledger
    ) -> None:
        self._max_lost = settings.worker.max_lost
        self._ledger = ledger
        self.stable = Stable(settings, size, selector, self._on_end)
        self.is_refusing = False  # what is claimed goes back at once

    @property
    def running(self) -> list[Horse]:
        """The horses that run a job."""
        return list(self.stable.running.values())

    @property
    def free(self) -> int:
        """How many jobs could start at once now."""
        return 0 if self.is_refusing else self.stable.free

    @property
    def held(self) -> list[Assignment]:
        """The jobs whose leases are ours: they run, or their end is not recorded."""
        running = [horse.assignment for horse in self.running]
        return [*filter(None, running), *self._ledger.held]

    @property
    def deadline(self) -> float:
        """Monotonic time at which `enforce_limits` has something to do."""
        return min((h.deadline for h in self.running if not h.kill_reason), default=float("inf"))

    def start(self, assignment: Assignment) -> None:
        """Run a job that was claimed, or give it back if that is impossible by now."""
        if not self.free:  # since the claim: a stop, or a spare's death
            self._ledger.add(assignment, Outcome(disposition="giveback"))
            return
        self.stable.run(assignment)
        log(Event.JOB_STARTED, job=assignment.job_id, queue=assignment.queue,
            attempt=assignment.attempt)  # fmt: skip

    def enforce_limits(self) -> None:
        """Stop each job that has run for as long as it may."""
        now = time.monotonic()
        for horse in self.running:
            if not horse.kill_reason and now >= horse.deadline:
                self.stable.kill(horse, TIMED_OUT)

    def give_back(self) -> None:
        """Stop all jobs and give them back to their queues."""
        for horse in self.running:
            if not horse.kill_reason:
                self.stable.kill(horse, GIVEN_BACK)

    def drop(self, token: str) -> None:
        """Stop an attempt whose job is no longer ours."""
        if horse := self.stable.running.get(token):
            self.stable.kill(horse, GIVEN_BACK)

    def reports(self) -> list[JobReport]:
        """Describe what runs, for the fleet to see."""
        now = time.monotonic()
        return [
            JobReport(
                id=horse.assignment.job_id,
                kind=horse.assignment.kind,
                age_s=round(now - horse.began, 3),
                limit_s=horse.assignment.timeout_s,
                progress=horse.progress,
            )
            for horse in self.running
            if horse.assignment
        ]

    def _on_end(self, horse: Horse, assignment: Assignment, outcome: Outcome | None) -> None:
        self._ledger.add(assignment, outcome or self._outcome_of_death(horse, assignment))

    def _outcome_of_death(self, horse: Horse, assignment: Assignment) -> Outcome:
        if horse.kill_reason == GIVEN_BACK:
            return Outcome(disposition="giveback")
        worked_s = time.monotonic() - horse.began
        if horse.kill_reason == TIMED_OUT:
            limit = FailedError(f"stopped at its hard limit of {assignment.timeout_s} s")
            return outcomes.failure(assignment, limit, worked_s)
        how = horse.describe_death()
        log(Event.HORSE_DIED, job=assignment.job_id, how=how)
        return outcomes.lost(assignment, how, worked_s, self._max_lost)
