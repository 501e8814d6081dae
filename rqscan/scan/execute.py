"""Execute: the only function that a scan's job names."""

from typing import Any

from rqscan import config
from rqscan.installed import plugins
from rqscan.scan.runner import Attempt, Runner

__all__ = ["run_chunk"]


def run_chunk(**payload: Any) -> dict[str, int]:
    """Run one chunk under the settings of this host; what a job's payload names.

    Our workers call `Runner.run` in a process that has it ready; this is for RQ's own.
    """
    return Runner(config.load(), plugins()).run(payload, Attempt())
