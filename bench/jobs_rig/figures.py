"""How figures of several rounds are printed."""

import math
import statistics
from collections.abc import Sequence

__all__ = ["missed", "percentile", "spread"]

MANY = 100
"""Above it, decimals say nothing."""


def spread(values: Sequence[float]) -> str:
    digits = 0 if statistics.median(values) > MANY else 2
    parts = (min(values), statistics.median(values), max(values))
    return "-".join(f"{value:.{digits}f}" for value in parts)


def percentile(ordered: list[float], share: float) -> float:
    return ordered[min(len(ordered) - 1, math.ceil(share * len(ordered)) - 1)]


def missed(is_missed: bool) -> str:  # noqa: FBT001 - one flag, one word
    return "  missed" if is_missed else ""
