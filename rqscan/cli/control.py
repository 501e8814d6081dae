"""`rqscan control`: tell workers what to do, and hear what each says to it."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import click

from rqscan.cli import settings
from rqscan.cli.group import Group, json_option
from rqscan.cli.ping import addressed, timeout_option
from rqscan.cli.show import defuse, print_json, print_table
from rqscan.errors import FailedError, UsageError

if TYPE_CHECKING:
    from rqscan.broker.orders import Answer

__all__ = ["control"]

STACKS_S = 5.0  # work-horses dump theirs between two steps of Python


@click.group(cls=Group)
def control() -> None:
    """Tell workers what to do; exit 1 if one of them is silent or refuses."""


def _addressed(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command WORKER… or --all, --timeout and --json."""
    command = json_option(timeout_option(command))
    command = click.option("--all", "is_all", is_flag=True, help="All workers.")(command)
    return click.argument("workers", nargs=-1, metavar="[WORKER]...")(command)


@control.command
@_addressed
def status(**about: Any) -> int:
    """Show what each WORKER says of itself and its jobs."""
    return _tell("status", {}, about)


@control.command
@_addressed
def drain(**about: Any) -> int:
    """Have each WORKER claim nothing more until it is resumed; what runs goes on."""
    return _tell("drain", {}, about)


@control.command
@_addressed
def resume(**about: Any) -> int:
    """Have each drained WORKER claim jobs again."""
    return _tell("resume", {}, about)


@control.command
@click.option("--now", is_flag=True, help="Give running jobs back at once (a cold stop).")
@_addressed
def stop(now: bool, **about: Any) -> int:
    """End each WORKER as a SIGTERM does: running jobs may finish."""
    return _tell("stop", {"now": now}, about)


@control.command("log-level")
@click.argument("level", type=click.Choice(["DEBUG", "INFO", "WARNING", "ERROR"], False))
@_addressed
def log_level(level: str, **about: Any) -> int:
    """Have each WORKER log from LEVEL up until it ends."""
    return _tell("log-level", {"level": level}, about)


@control.command
@_addressed
def stacks(**about: Any) -> int:
    """Show the Python stacks of the jobs that each WORKER runs."""
    about["timeout_s"] = max(about["timeout_s"], STACKS_S)
    return _tell("stacks", {}, about)


@control.command("stop-job")
@click.argument("job")
@timeout_option
@json_option
def stop_job(job: str, timeout_s: float, as_json: bool) -> int:
    """Stop JOB, which some worker runs; it is not run again."""
    from rqscan.broker import keys
    from rqscan.broker.connect import connect, outage

    with outage(), connect(settings()) as client:
        known: Any = client.hmget(keys.job(job), "status", "worker_name")
    state, name = ((one or b"").decode(errors="replace") for one in known)
    if not state:
        raise UsageError(f"no job {job!r} is in Redis")
    if state != "started":
        raise FailedError(f"job {job!r} does not run: it is {state}")
    about = {"workers": (name,), "is_all": False, "timeout_s": timeout_s, "as_json": as_json}
    return _tell("stop-job", {"job_id": job}, about)


def _tell(verb: str, args: dict[str, Any], about: dict[str, Any]) -> int:
    if bool(about["workers"]) == about["is_all"]:
        raise UsageError("name the workers, or tell them --all, but not both")
    rows = _ask(verb, args, about["workers"], about["timeout_s"])
    if about["as_json"]:
        print_json(rows)
    elif verb == "stacks":
        for row in rows:
            for job, text in row["answer"].get("jobs", {}).items():
                lines = "\n".join(map(defuse, text.splitlines()))
                click.echo(f"{defuse(row['worker'])}: job {defuse(job)}\n{lines}\n")
    else:
        shown = [
            {
                "worker": row["worker"],
                "answered": "yes" if row["answered"] else "SILENT",
                "answer": row["error"] or row["answer"] or "",
            }
            for row in rows
        ]
        print_table(["worker", "answered", "answer"], shown)
    is_done = all(row["answered"] and not row["error"] for row in rows)
    return 0 if is_done and all(row["answer"].get("stopped", True) for row in rows) else 1


def _ask(
    verb: str, args: dict[str, Any], workers: Sequence[str], timeout_s: float
) -> list[dict[str, Any]]:
    from rqscan.broker.connect import connect, outage
    from rqscan.broker.control import ask

    with outage(), connect(settings()) as client:
        known = addressed(client, workers)
        if not known:
            raise FailedError("no worker is registered")
        answers = {
            said.worker: said
            for said, _ in ask(
                client, verb, args, workers=workers, expected=known, timeout_s=timeout_s
            )
        }
    return [_row(name, answers.get(name)) for name in sorted(known.keys() | answers)]


def _row(name: str, said: "Answer | None") -> dict[str, Any]:
    return {
        "worker": name,
        "answered": said is not None,
        "answer": said.data if said else {},
        "error": said.error if said else None,
    }
