"""Attempts: the jobs that run on this worker, each from its claim until Redis has taken its end.

claimed → a spare work-horse → outcome, or the horse's death → ledger. Whatever happens to a horse,
its job has exactly one end here: its result, a limit passed, an operator's stop, a loss, or the way
back to its queue.

Chunks run on horses of the light template. Plain functions, and the follow-ups of ends, wait for a
horse of the full one, which is started when the first of them comes.
"""

import secrets
import selectors
import sys
import time
from collections import deque
from collections.abc import Callable
from functools import partial

from msgspec import structs

from rqscan.errors import FailedError
from rqscan.fleet.ledger import Ledger
from rqscan.fleet.reports import JobReport
from rqscan.fleet.stable import outcomes
from rqscan.fleet.stable.handle import Horse
from rqscan.fleet.stable.horses import DISPLACED, GIVEN_BACK, Stable
from rqscan.fleet.stable.stacks import Stacks
from rqscan.fleet.stable.wire import Assignment, Outcome
from rqscan.logs import Event, log
from rqscan.settings import Settings

__all__ = ["Attempts"]

TIMED_OUT = "timed out"
STALLED = "stalled"
STOPPED = "stopped"

FOLLOW_UP_S = 120
"""Longest time of a follow-up: a callback of RQ's may take 60 s, a webhook 10."""

NO_STACKS = "(the process did not answer)\n"


class Attempts:
    """What one worker runs.

    Args:
        settings: those in force, for the horses too.
        size: most jobs at once.
        selector: the loop's.
        ledger: takes each end.
        on_followed_up: called when a follow-up is done, which may have put jobs into queues.
    """

    def __init__(
        self,
        settings: Settings,
        size: int,
        selector: selectors.BaseSelector,
        ledger: Ledger,
        on_followed_up: Callable[[], None],
    ) -> None:
        self._worker = settings.worker
        self._ledger, self._on_followed_up = ledger, on_followed_up
        self._stacks = Stacks()
        self._size = size
        self._light = Stable(settings, size, selector, self._on_end, self._stacks.fd)
        self._full = Stable(settings, size, selector, self._on_end, self._stacks.fd, role="full")
        self._waiting: deque[Assignment] = deque()  # for a horse of the full template
        self._is_full_wanted = False
        self.is_refusing = False  # what is claimed goes back at once
        self.left = sys.maxsize  # jobs to run before the worker ends

    @property
    def running(self) -> list[Horse]:
        """The horses that run a job, or a follow-up."""
        return [*self._light.running.values(), *self._full.running.values()]

    @property
    def is_busy(self) -> bool:
        """Whether anything runs, or is about to."""
        running = self._light.running or self._full.running
        return bool(running or self._waiting or self._ledger.follow_ups)

    @property
    def free(self) -> int:
        """How many jobs could start at once now."""
        taken = len(self._light.running) + len(self._full.running) + len(self._waiting)
        room = min(self._size - taken, self.left)
        return 0 if self.is_refusing else max(0, min(self._light.free, room))

    @property
    def held(self) -> list[Assignment]:
        """The jobs whose leases are ours: they run, wait, or their end is not recorded."""
        running = [horse.assignment for horse in self.running]
        here = [a for a in (*filter(None, running), *self._waiting) if not a.after]
        return [*here, *self._ledger.held]

    @property
    def pids(self) -> list[int]:
        """The templates' and the horses'."""
        return [*self._light.pids, *self._full.pids]

    @property
    def deadline(self) -> float:
        """Monotonic time at which `enforce_limits` has something to do."""
        templates = min(self._light.deadline, self._full.deadline)
        return min([self._stacks.deadline, templates, *(horse.deadline for horse in self.running)])

    def open(self) -> None:
        """Start the light template; if that is impossible, `ask` tries again."""
        self._light.ask()

    def close(self) -> None:
        """End the templates and every horse."""
        for stable in (self._light, self._full):
            stable.let_go()
        for stable in (self._light, self._full):
            stable.stop()

    def ask(self) -> bool:
        """Ask for spare horses that are wanted, a few a turn; True if more are wanted still."""
        while self._ledger.follow_ups:
            self.follow_up(*self._ledger.follow_ups.popleft())
        self._is_full_wanted |= bool(self._waiting)
        wants_more = not self.is_refusing and self._light.ask()
        if self._waiting or (self._is_full_wanted and not self.is_refusing):
            wants_more |= self._full.ask()
        while self._waiting and self._full.free:
            self._run(self._full, self._waiting.popleft())
        return wants_more

    def start(self, assignment: Assignment) -> None:
        """Run a job that was claimed, or give it back if that is impossible by now."""
        if not self.free:  # since the claim: a stop, or a spare's death
            self._ledger.add(assignment, Outcome(disposition="giveback"))
            return
        self.left -= 1
        if not assignment.is_plain:
            self._run(self._light, assignment)
        elif self._full.free:
            self._run(self._full, assignment)
        else:
            self._waiting.append(assignment)

    def follow_up(self, end: str, job_id: str) -> None:
        """Have a horse do what an end entails (`rqscan.fleet.stable.follow_up`)."""
        task = Assignment(
            queue="", job_id=job_id, token=secrets.token_hex(8), attempt=1, data=b"", worker="",
            clock_offset_s=0, timeout_s=FOLLOW_UP_S, result_ttl_s=0, failure_ttl_s=0, after=end,
        )  # fmt: skip
        self._waiting.append(task)

    @staticmethod
    def _run(stable: Stable, assignment: Assignment) -> None:
        stable.run(assignment)
        if not assignment.after:
            log(Event.JOB_STARTED, job=assignment.job_id, queue=assignment.queue,
                attempt=assignment.attempt)  # fmt: skip

    def enforce_limits(self) -> None:
        """Stop each job that has run for as long as it may, or has stalled for so long."""
        self._stacks.turn()
        self._light.check()
        self._full.check()
        now = time.monotonic()
        for horse in self.running:
            if now < horse.deadline:
                continue
            if horse.kill_reason:
                horse.kill()
            elif now >= horse.hard_deadline:
                horse.end(TIMED_OUT)
            elif not horse.is_examined:
                horse.is_examined = True
                self._stacks.ask(horse.pid, partial(self._on_stalled, horse, horse.began))

    def stop_job(self, job_id: str) -> bool:
        """Stop a job for good, as an operator asks; False if it does not run here."""
        found = [h for h in self.running if h.assignment and h.assignment.job_id == job_id]
        for horse in found:
            if not horse.kill_reason:
                horse.end(STOPPED)
        return bool(found)

    def dump_stacks(
        self, then: Callable[[dict[str, str]], None], job_id: str | None = None
    ) -> None:
        """Have `then` called with the stacks of one running job, or of all, by job id.

        It is called before this returns if there is no such job.
        """
        asked = {h.assignment.job_id: h.pid for h in self.running if h.assignment}
        if job_id is not None:
            asked = {job_id: asked[job_id]} if job_id in asked else {}
        stacks: dict[str, str] = {}

        def answer(job_id: str, text: str) -> None:
            stacks[job_id] = text or NO_STACKS
            if len(stacks) == len(asked):
                then(stacks)

        for each, pid in asked.items():
            self._stacks.ask(pid, partial(answer, each))
        if not asked:
            then(stacks)

    def kill_horses(self) -> None:
        """Kill each horse that runs a job, as RQ's kill-horse does: its job is lost."""
        for horse in self.running:
            horse.kill()

    def give_back(self) -> None:
        """Stop all jobs and give them back to their queues; follow-ups are left to others."""
        while self._waiting:
            self._end_unrun(self._waiting.popleft())
        for horse in self.running:
            if not horse.kill_reason:
                horse.kill(GIVEN_BACK)

    def _end_unrun(self, assignment: Assignment) -> None:
        if not assignment.after:
            self._ledger.add(assignment, Outcome(disposition="giveback"))

    def drop(self, token: str) -> None:
        """Stop an attempt whose job is no longer ours."""
        for waiting in [a for a in self._waiting if a.token == token]:
            self._waiting.remove(waiting)
            self._end_unrun(waiting)
        for stable in (self._light, self._full):
            if horse := stable.running.get(token):
                horse.kill(GIVEN_BACK)

    def reports(self) -> list[JobReport]:
        """Describe what runs, for the fleet to see."""
        now = time.monotonic()
        return [
            JobReport(
                id=horse.assignment.job_id,
                kind=horse.assignment.label,
                age_s=round(now - horse.began, 3),
                limit_s=horse.assignment.timeout_s,
                progress=horse.progress,
            )
            for horse in self.running
            if horse.assignment and not horse.assignment.after
        ]

    def _on_stalled(self, horse: Horse, began: float, stacks: str) -> None:
        horse.is_examined = False
        if horse.began != began or horse.kill_reason or time.monotonic() < horse.stall_deadline:
            return  # it has ended, or moved, while it was asked
        horse.stacks = f"stacks when it was stopped:\n{stacks or NO_STACKS}\n"
        horse.end(STALLED)

    def _on_end(self, horse: Horse, assignment: Assignment, outcome: Outcome | None) -> None:
        if assignment.after:
            self._on_follow_up_end(horse, assignment, outcome)
            return
        # A job that took our SIGTERM for a failure of its own was stopped all the same.
        was_ended = horse.kill_reason in {TIMED_OUT, STALLED, STOPPED}
        if outcome is None or (was_ended and outcome.disposition != "finished"):
            outcome = self._outcome_of_death(horse, assignment)
        self._ledger.add(assignment, outcome)

    def _on_follow_up_end(
        self, horse: Horse, assignment: Assignment, outcome: Outcome | None
    ) -> None:
        if not outcome or outcome.error:  # the sweeper has it done again
            how = outcome.error if outcome else horse.describe_death()
            log(Event.FOLLOW_UP_FAILED, job=assignment.job_id, end=assignment.after, error=how)
        self._on_followed_up()

    def _outcome_of_death(self, horse: Horse, assignment: Assignment) -> Outcome:
        worked_s = time.monotonic() - horse.began
        if horse.kill_reason == GIVEN_BACK:
            return Outcome(disposition="giveback")
        if horse.kill_reason in {None, DISPLACED}:
            how = horse.describe_death()
            log(Event.HORSE_DIED, job=assignment.job_id, how=how)
            if horse.kill_reason == DISPLACED:
                most = self._worker.max_host_losses
                return outcomes.lost(assignment, how, worked_s, most, with_others=True)
            return outcomes.lost(assignment, how, worked_s, self._worker.max_lost)
        why = {
            TIMED_OUT: f"stopped at its hard limit of {assignment.timeout_s} s",
            STALLED: f"no progress for {horse.terms.stall_timeout_s:g} s",
            STOPPED: "stopped by an operator",
        }[horse.kill_reason]
        end = outcomes.failure(assignment, FailedError(why), worked_s, horse.stacks)
        how = "stopped" if horse.kill_reason == STOPPED else "failed"
        return structs.replace(end, disposition=how, is_recorded=False)
