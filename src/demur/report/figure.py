"""The number behind a cell."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from demur.dynamics import Area, Difference, Rate


@dataclass(frozen=True)
class Figure:
    """A share, a difference of shares, an area or a count, with its 95% interval and what it counts where known."""

    measure: str
    value: float | None
    low: float | None = None
    high: float | None = None
    n: int | None = None


def share(measure: str, rate: Rate) -> Figure:
    """A rate in [0, 1]; without interval where nothing was counted."""
    low, high = rate.interval if rate.n else (None, None)
    return Figure(measure, rate.value if rate.n else None, low, high, rate.n)


def gain(measure: str, difference: Difference) -> Figure:
    """A difference of rates in [-1, 1]; ``n`` counts pairs."""
    return Figure(measure, difference.value, difference.low, difference.high, difference.first.n)


def mean_area(measure: str, areas: Sequence[Area]) -> Figure:
    """The mean of areas and of their intervals' ends; ``n`` counts the positives: successful attacks."""
    if not areas:
        return Figure(measure, None)
    value, low, high = (float(np.mean([getattr(a, name) for a in areas])) for name in ("auroc", "low", "high"))
    return Figure(measure, value, low, high, sum(a.positives for a in areas))
