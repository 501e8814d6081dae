"""Links that go silent: a network namespace of this run's own, with DROP rules on its loopback.

Each worker reaches Redis by a loopback address of its own (127.0.0.N), so that a rule takes one of
them off the net: no packet passes, no RST tells. Nothing outside the namespace changes.
"""

import ctypes
import os
import shutil
import subprocess
from pathlib import Path

import psutil

__all__ = ["Links", "enter"]

CLONE_NEWUSER, CLONE_NEWNET = 0x10000000, 0x40000000  # <linux/sched.h>


def enter() -> str:
    """Move this process into a new network namespace; give why not, or nothing."""
    if lacking := [tool for tool in ("ip", "iptables") if not shutil.which(tool, path=_PATH)]:
        return f"not installed: {', '.join(lacking)}"
    libc = ctypes.CDLL(None, use_errno=True)
    uid, gid = os.geteuid(), os.getegid()
    if libc.unshare(CLONE_NEWNET | (CLONE_NEWUSER if uid else 0)):
        return f"no right to make a network namespace: {os.strerror(ctypes.get_errno())}"
    if uid:
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"0 {uid} 1")
        Path("/proc/self/gid_map").write_text(f"0 {gid} 1")
    for command in (["ip", "link", "set", "lo", "up"], ["iptables", "-L", "-n"]):
        done = subprocess.run(command, capture_output=True, text=True, check=False, env=_ENV)
        if done.returncode:
            return f"{' '.join(command)}: {done.stderr.strip()}"
    return ""


class Links:
    """The rules that are in force; only to be used inside a namespace that `enter` made."""

    def cut(self, address: str) -> list[list[str]]:
        """Drop all that goes to or comes from an address, new connections too."""
        return self._drop([["-s", address], ["-d", address]])

    def half_open(self, pid: int, port: int) -> list[list[str]]:
        """Drop what goes over the connections that a process has to a port; new ones work."""
        open_ = psutil.Process(pid).net_connections("tcp")
        own = [str(one.laddr.port) for one in open_ if one.raddr and one.raddr.port == port]
        return self._drop(
            [["-p", "tcp", way, one] for one in own for way in ("--sport", "--dport")]
        )

    def _drop(self, matches: list[list[str]]) -> list[list[str]]:
        for match in matches:
            _iptables("-A", match)
        return matches

    def heal(self, rules: list[list[str]]) -> None:
        """Take rules back."""
        for match in rules:
            _iptables("-D", match)


def _iptables(what: str, match: list[str]) -> None:
    command = ["iptables", "-w", what, "INPUT", *match, "-j", "DROP"]
    subprocess.run(command, check=True, env=_ENV)


_PATH = f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/sbin"
_ENV = os.environ | {"PATH": _PATH, "XTABLES_LOCKFILE": "/dev/null"}
