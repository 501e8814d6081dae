"""Chance: for pauses that must not be the same everywhere.

Not by `random`: its generator would have to be seeded anew in every work-horse.
"""

import os

__all__ = ["chance"]


def chance() -> float:
    """Give a number from 0 to below 1, another one in each process."""
    return int.from_bytes(os.urandom(4)) / 2**32
