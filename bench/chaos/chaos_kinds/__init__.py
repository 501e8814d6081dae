"""Scan kinds of the chaos runs."""

__all__ = ["PORTS"]

PORTS = range(1, 21)
"""What `nap` finds open on each host, a row each."""
