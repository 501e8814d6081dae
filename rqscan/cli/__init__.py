"""The command line; here is only its door, which opens on Linux alone."""

import sys

__all__ = ["main"]


def main(argv: list[str] | None = None) -> int:
    """Run one command and give its exit code."""
    platform: str = sys.platform  # as a variable: mypy takes the name for a constant
    if platform == "linux":
        from rqscan.cli.group import run

        return run(argv)
    is_windows = platform == "win32"
    advice = "on Windows use WSL: wsl --install" if is_windows else "use a Linux host or container"
    sys.stderr.write(f"rqscan: error: rqscan runs on Linux only; {advice}\n")
    return 2
