"""A shuffled order over any number of things, in no memory.

An index goes in, its place in the shuffled order comes out: four rounds of a keyed Feistel
network over an a by b grid that is barely larger than the size, walked on while it lands outside.
Same size and seed give the same order on every machine and version of Python.
"""

from collections.abc import Iterator
from math import isqrt

from rqscan.digest import blake2b

__all__ = ["Permutation"]

_MASK = (1 << 64) - 1
_ODD = 0x9E3779B97F4A7C15  # 2^64 / golden ratio: spreads low bits upward


class Permutation:
    """A bijection on ``range(size)`` chosen by a seed, with random access.

    Raises:
        IndexError: from ``[i]``, when i lies outside ``range(size)``.
    """

    def __init__(self, size: int, seed: int) -> None:
        self._size = size
        self._width = max(1, isqrt(size))
        self._height = -(-size // self._width)
        digest = blake2b(str(seed).encode(), digest_size=32).digest()
        self._keys = tuple(int.from_bytes(digest[i : i + 8]) for i in range(0, 32, 8))

    def __getitem__(self, index: int) -> int:
        if not 0 <= index < self._size:
            raise IndexError(index)
        width, height, (a, b, c, d) = self._width, self._height, self._keys
        while True:
            y, x = divmod(index, width)
            x = (x + _mix(y, a)) % width
            y = (y + _mix(x, b)) % height
            x = (x + _mix(y, c)) % width
            y = (y + _mix(x, d)) % height
            index = y * width + x
            if index < self._size:
                return index

    def __iter__(self) -> Iterator[int]:
        return map(self.__getitem__, range(self._size))


def _mix(value: int, key: int) -> int:
    mixed = (value + key) * _ODD & _MASK
    return (mixed ^ mixed >> 32) * (key | 1) >> 24 & _MASK
