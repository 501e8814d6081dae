"""Plain jobs: one that lasts, and one that fails by any of seven causes."""

import os

CAUSES = {
    "refused": (ConnectionRefusedError, "{ip}:{n} refused the connection", "wakaka", 31),
    "silent": (TimeoutError, "{ip} did not answer within {n} ms", "default", 20),
    "broken off": (ConnectionAbortedError, "{ip} ended the handshake after {n} ms", "wakaka", 14),
    "garbage": (ValueError, "the banner of {ip} is no text from byte {n}", "wakaka", 9),
    "locked": (PermissionError, "{ip} refused the community of device {n}", "default", 7),
    "huge": (MemoryError, "{ip} announced an answer of {n} bytes", "wakaka", 4),
    "unknown": (LookupError, "{ip} is of the unknown model {n}", "default", 2),
}
"""Error, its text, and the queue and the number of the jobs that fail by it."""


def last(seconds):
    """Take a while, on a host whose clock is wrong too: libfaketime breaks `time.sleep`."""
    os.system(f"exec sleep {seconds}")


def ask(cause, ip, n):
    error, text, *_ = CAUSES[cause]
    raise error(text.format(ip=ip, n=n))
