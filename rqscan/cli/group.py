"""The group of all commands, and how each end becomes an exit code.

Each start must be quick and small: a command's module, and with it all that the command needs, is
imported when the command is called, and rich_click when it draws a help.
"""

import errno
import math
import os
import re
import sys
from collections.abc import Callable
from datetime import timedelta
from importlib import import_module
from itertools import groupby
from typing import Any

import click

from rqscan import __version__
from rqscan.errors import RqscanError

__all__ = [
    "Command",
    "Group",
    "Seconds",
    "json_option",
    "log_options",
    "read_age",
    "run",
    "split",
]

COMMANDS = {  # name, of the module and of the function in it: (panel, help)
    "up": ("Run", "Run everything on this machine."),
    "worker": ("Run", "Run the jobs of some queues."),
    "scheduler": ("Run", "Start the scans that are due."),
    "scan": ("Scan", "Scan targets and wait for the end."),
    "scans": ("Scan", "List the scans."),
    "cancel": ("Scan", "Stop what is queued and running of a scan."),
    "resume": ("Scan", "Run again only what is missing."),
    "results": ("Scan", "Show what a scan has found."),
    "top": ("Watch", "Watch queues, workers and scans."),
    "metrics": ("Watch", "Serve the figures for Prometheus."),
    "ping": ("Watch", "Ask the workers for a sign of life."),
    "doctor": ("Watch", "Check Redis, store, workers, clocks and this host."),
    "queue": ("Operate", "List, pause, resume and empty queues."),
    "failed": ("Operate", "Show, requeue and delete failed jobs."),
    "schedule": ("Operate", "Show and change what is due when."),
    "control": ("Operate", "Tell workers what to do."),
    "spool": ("Operate", "Show and drain what this host keeps for the database."),
    "config": ("Set-up", "Show the settings in force."),
    "kinds": ("Set-up", "List the scan kinds with their parameters."),
    "db": ("Set-up", "Make and check the database's tables, delete old scans."),
}
NEAR = 40  # characters before and after one that cannot be written
UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON and nothing else.")


def log_options(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options of what it logs, as `log_level` and `log_json`."""
    levels = click.Choice(["DEBUG", "INFO", "WARNING", "ERROR"], case_sensitive=False)
    json = click.option("--log-json", is_flag=True, help="Log JSON lines.")
    level = click.option("-l", "--log-level", default="INFO", show_default=True, type=levels)
    return level(json(command))


class Seconds(click.FloatRange):
    """A range of seconds; what is no number is none of it, though Python reads `nan`."""

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """Give the number.

        Raises:
            click.BadParameter: it is out of range, or none.
        """
        found: float = super().convert(value, param, ctx)
        if not math.isfinite(found):
            self.fail(f"{value!r} is not a finite number", param, ctx)
        return found


def read_age(text: str) -> timedelta | None:
    """Read how long ago something is, such as 10m, 2h or 90d; None if the text tells none.

    Raises:
        OverflowError: it is longer than times go.
    """
    ago = re.fullmatch(r"(\d+)([smhd])", text, re.ASCII)
    return timedelta(**{UNITS[ago[2]]: int(ago[1])}) if ago else None


def split(_ctx: click.Context, _param: click.Parameter, texts: tuple[str, ...]) -> list[str]:
    """Give the parts of an option that takes several, by commas or repeated."""
    return [part.strip() for text in texts for part in text.split(",") if part.strip()]


class Command(click.Command):
    """A command that rich_click draws: it is imported when somebody asks for usage or help."""

    def get_usage(self, ctx: click.Context) -> str:
        """Give the line with the command's options and arguments."""
        return _drawn(ctx).get_usage()

    def get_help(self, ctx: click.Context) -> str:
        """Give the whole page."""
        ctx.color = True  # rich has settled whether there are colours: click must keep them
        return _drawn(ctx).get_help()


class Group(Command, click.Group):
    """A group of such commands."""

    command_class = Command


def _drawn(ctx: click.Context) -> click.Context:
    """Give the same context of the same command, but as rich_click has them."""
    import rich_click as rich

    command = ctx.command
    same: dict[str, Any] = {"name": command.name, "params": command.params, "help": command.help}
    drawn = rich.RichCommand(**same)
    if isinstance(command, click.Group):
        drawn = rich.RichGroup(**same, commands=command.commands)
    if command is _group:
        panels = groupby(COMMANDS, key=lambda name: COMMANDS[name][0])
        drawn.panels = [rich.RichCommandPanel(panel, [*names]) for panel, names in panels]
        drawn.panels.append(rich.RichOptionPanel("Options"))
    return rich.RichContext(
        drawn, ctx.parent, ctx.info_name, help_option_names=ctx.help_option_names
    )


class _LazyGroup(Group):
    """Knows stubs, and imports the true command when it is to run."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name, stub, rest = super().resolve_command(ctx, args)
        if name is None or stub is None:
            return name, stub, rest
        command: click.Command = getattr(import_module(f"rqscan.cli.{name}"), name)
        if _config not in command.params:  # so that `python worker.py --config X` works too
            command.params.append(_config)
        return name, command, rest


def _keep_path(ctx: click.Context, _param: click.Parameter, path: str | None) -> None:
    if path:
        ctx.find_root().obj = path


_config = click.Option(
    ["--config"],
    metavar="PATH",
    expose_value=False,
    callback=_keep_path,
    help="The rqscan.toml to read (else RQSCAN_CONFIG, the working folder, the user's folder).",
)
_group = _LazyGroup(
    name="rqscan",
    help="Scan networks with a fleet of workers that loses no job and no result.",
    params=[_config],
    context_settings={"help_option_names": ["-h", "--help"]},
    commands=[click.Command(name, help=text) for name, (_, text) in COMMANDS.items()],
)
click.version_option(__version__, message="rqscan %(version)s")(_group)


def run(argv: list[str] | None) -> int:
    """Run one command and give its exit code."""
    sys.stdout = sys.stdout or open(os.devnull, "w")  # noqa: PTH123, SIM115 - closed by our caller
    try:
        code = _group.main(argv, prog_name="rqscan", standalone_mode=False)
        sys.stdout.flush()
    except RqscanError as e:
        code = _fail(str(e), e.exit_code, e.advice)
    except click.exceptions.NoArgsIsHelpError as e:
        click.echo(e.message, color=True)
        code = e.exit_code
    except click.ClickException as e:
        if isinstance(e, click.UsageError) and e.ctx:
            click.echo(e.ctx.get_usage().strip(), err=True)
        code = _fail(e.format_message(), e.exit_code)
    except (click.Abort, KeyboardInterrupt):
        code = 130
    except BrokenPipeError:  # the reader has seen enough, and Python must not flush again
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 1
    except UnicodeEncodeError as e:  # an argument with other bytes, as a name of something
        text = e.object[max(0, e.start - NEAR) : e.end + NEAR]
        code = _fail(f"{text!r} is no {e.encoding.upper()} text; check the arguments", 2)
    except OSError as e:  # a file that the user named, or a full disk under stdout
        if e.filename is None and e.errno != errno.ENOSPC:
            raise
        code = _fail(f"cannot use {e.filename or 'stdout'}: {e.strerror}", 2 if e.filename else 1)
    return code if isinstance(code, int) else 0


def _fail(message: str, code: int, advice: str | None = None) -> int:
    """Say what is wrong in one line, with at most one line of advice."""
    from rqscan.cli.show import defuse

    click.echo(f"rqscan: error: {defuse(message)}", err=True)
    if advice:
        click.echo(defuse(advice), err=True)
    return code
