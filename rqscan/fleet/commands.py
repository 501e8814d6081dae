"""Commands: what others may ask of a worker while it runs, and its answers.

A link of its own hears `rqscan:commands`, which every worker hears, and RQ's channel of this
worker; answers go out by the worker's command link. All of it takes place in the worker's loop, so
that a worker answers whatever its horses do. RQ's own commands get no answer, as in RQ.
"""

import selectors
import socket
import time
from collections.abc import Callable
from typing import Any

import msgspec

from rqscan.broker import keys
from rqscan.broker.endpoint import Endpoint
from rqscan.broker.link import LOST, Link, NoAnswer
from rqscan.broker.orders import REPLY_S, Answer, Command
from rqscan.errors import UsageError
from rqscan.fleet.attempts import Attempts
from rqscan.fleet.claims import Claims
from rqscan.fleet.errands import Errands
from rqscan.fleet.presence import Presence
from rqscan.fleet.registration import Registration
from rqscan.fleet.spooling import Spooling
from rqscan.logs import Event, log, set_level

__all__ = ["Commands"]

SEEN = frozenset({"ping", "status"})
"""Verbs that change nothing: they are not logged."""

LOOK_S = 120.0
"""Between looks at whether a quiet link still carries anything; beats notice an outage."""

PING = ("host", "pid", "state", "versions", "clock_offset_s", "utc_offset_s")

Data = dict[str, Any]
Say = Callable[[Data], None]


class RqCommand(msgspec.Struct, frozen=True):
    """A command as RQ sends it."""

    command: str
    job_id: str = ""
    execution_id: str = ""


class Commands:
    """What one worker is told.

    Args:
        name: of the worker.
        endpoint: of the Redis to use.
        selector: the loop's.
        answers: the link by which answers go out.
        attempts: what runs here.
        claims: what is taken.
        registration: what is published of the worker.
        stop: asks the worker to stop, with what told it to: a warm stop, a cold one at the second.
        spooling: drains the home's spool.
        errands: has the rest of a schedule's tasks done.
    """

    def __init__(
        self,
        name: str,
        endpoint: Endpoint,
        selector: selectors.BaseSelector,
        answers: Link,
        *,
        attempts: Attempts,
        claims: Claims,
        registration: Registration,
        stop: Callable[[str], None],
        spooling: Spooling,
        errands: Errands,
    ) -> None:
        self._name, self._answers, self._stop = name, answers, stop
        self._attempts, self._claims, self._registration = attempts, claims, registration
        self._spooling, self._errands = spooling, errands
        self._own = keys.commands_of(name).encode()
        self._link = Link(
            endpoint, selector, self._on_up, lambda _: None, name="rqscan", on_push=self._on_push
        )
        self._next_ping = 0.0
        self._verbs: dict[str, Callable[[Data, Say], None]] = {
            "ping": lambda _, say: say(_part(self._registration.presence(), PING)),
            "status": lambda _, say: say(msgspec.to_builtins(self._registration.presence())),
            "drain": lambda _, say: self._drain(say, on=True),
            "resume": lambda _, say: self._drain(say, on=False),
            "stop": self._on_stop,
            "stop-job": self._on_stop_job,
            "log-level": self._on_log_level,
            "drain-spool": self._on_drain_spool,
            "prune": self._on_prune,
            "upkeep": self._on_upkeep,
            "stacks": lambda _, say: self._attempts.dump_stacks(lambda jobs: say({"jobs": jobs})),
        }

    @property
    def deadline(self) -> float:
        """Monotonic time at which `check` has something to do."""
        if not self._answers.is_up:
            return float("inf")  # whatever was asked could not be answered
        return min(self._link.deadline, self._next_ping if self._link.is_up else float("inf"))

    def check(self) -> None:
        """Connect if it is time to; see that a quiet link still carries anything."""
        if not self._answers.is_up:
            self._link.reset()  # the same way leads to it
            return
        self._link.check()
        if self._link.is_up and time.monotonic() >= self._next_ping:
            self._next_ping = time.monotonic() + LOOK_S
            self._link.send("PING")
        self._link.flush()

    def close(self) -> None:
        """Hear nothing more."""
        self._link.close()

    def _on_up(self) -> None:
        self._next_ping = time.monotonic() + LOOK_S
        for channel in (keys.COMMANDS, self._own):
            self._link.send("SUBSCRIBE", channel, then=self._on_subscribed)

    def _on_subscribed(self, answer: Any) -> None:
        if isinstance(answer, NoAnswer) and answer is not LOST:
            self._registration.outage.refused("subscribe", answer)

    def _on_push(self, channel: bytes, text: bytes) -> None:
        try:
            if channel == self._own:
                self._obey_rq(msgspec.json.decode(text, type=RqCommand))
                return
            command = msgspec.json.decode(text, type=Command)
        except msgspec.MsgspecError:  # anybody may publish anything
            return
        if not command.workers or self._name in command.workers:
            self._obey(command)

    def _obey(self, command: Command) -> None:
        if command.verb not in SEEN:
            log(Event.COMMAND_TAKEN, worker=self._name, verb=command.verb, args=command.args)
        act = self._verbs.get(command.verb)
        if act is None:
            self._say(command, {}, f"this worker knows no command {command.verb!r}")
            return
        try:
            act(command.args, lambda data: self._say(command, data))
        except UsageError as e:
            self._say(command, {}, str(e))

    def _say(self, command: Command, data: Data, error: str | None = None) -> None:
        reply = keys.reply(command.id)
        answer = Answer(worker=self._name, host=socket.gethostname(), data=data, error=error)
        self._answers.send("RPUSH", reply, msgspec.json.encode(answer))
        self._answers.send("EXPIRE", reply, REPLY_S)

    def _obey_rq(self, told: RqCommand) -> None:
        log(Event.COMMAND_TAKEN, worker=self._name, verb=told.command, job=told.job_id)
        if told.command == "shutdown":
            self._stop(told.command)
        elif told.command == "stop-job":
            self._attempts.stop_job(told.job_id)
        elif told.command == "stop-execution":  # RQ's executions are our tokens
            held = {one.token: one.job_id for one in self._attempts.held}
            if told.execution_id in held:
                self._attempts.stop_job(held[told.execution_id])
        elif told.command == "kill-horse":
            self._attempts.kill_horses()

    def _drain(self, say: Say, *, on: bool) -> None:
        self._claims.is_draining = on
        self._claims.is_wanted = True
        self._registration.renew()  # the fleet sees it at once
        say(_part(self._registration.presence(), ("state",)))

    def _on_stop(self, args: Data, say: Say) -> None:
        for _ in range(2 if args.get("now") else 1):
            self._stop("command")
        say(_part(self._registration.presence(), ("state",)))

    def _on_stop_job(self, args: Data, say: Say) -> None:
        job_id = str(args.get("job_id"))
        say({"job_id": job_id, "stopped": self._attempts.stop_job(job_id)})

    def _on_drain_spool(self, args: Data, say: Say) -> None:
        self._spooling.drain_within(_seconds(args, "within_s"))
        say({})

    def _on_prune(self, args: Data, say: Say) -> None:
        self._errands.run("prune", _seconds(args, "older_than_s"))
        say({})

    def _on_upkeep(self, _: Data, say: Say) -> None:
        self._errands.run("upkeep")
        say({})

    def _on_log_level(self, args: Data, say: Say) -> None:
        level = str(args.get("level")).upper()
        try:
            set_level(level)
        except ValueError:
            raise UsageError(f"there is no log level {level!r}") from None
        say({"level": level})


def _seconds(args: Data, name: str) -> float:
    value = args.get(name)
    if not isinstance(value, int | float) or not 0 <= value < float("inf"):
        raise UsageError(f"expected {name} to be a number of seconds, got: {value!r}")
    return value


def _part(presence: Presence, names: tuple[str, ...]) -> Data:
    return {name: getattr(presence, name) for name in names}
