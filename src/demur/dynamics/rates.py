"""Rates with their intervals, differences between two runs on the same prompts, and areas. Numbers in, numbers out."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float
from numpy.typing import NDArray

from demur.types import DemurError


@dataclass(frozen=True)
class Rate:
    """k of n with Wilson's 95% interval (Wilson 1927). ``value`` is nan, and says so, where n is 0: undefined, not
    0.
    """

    k: int
    n: int

    def __post_init__(self) -> None:
        if not 0 <= self.k <= self.n:
            raise DemurError(f"{self.k} of {self.n}", "0 <= k <= n", "count again")

    @classmethod
    def of(cls, marks: Any, among: Any = None) -> Rate:
        """The share of ``marks``, of all or of those marked in ``among``."""
        marks = np.asarray(marks, dtype=bool)
        chosen = np.ones(len(marks), dtype=bool) if among is None else np.asarray(among, dtype=bool)
        return cls(int((marks & chosen).sum()), int(chosen.sum()))

    @property
    def value(self) -> float:
        """k / n in [0, 1], or nan."""
        return self.k / self.n if self.n else math.nan

    @property
    def interval(self) -> tuple[float, float]:
        """Wilson's 95% interval; (0, 1) where n is 0, since nothing is known."""
        from scipy.stats import binomtest

        if not self.n:
            return 0.0, 1.0
        found = binomtest(self.k, self.n).proportion_ci(method="wilson")
        return float(found.low), float(found.high)

    def __str__(self) -> str:
        if not self.n:
            return "undefined (n 0)"
        low, high = self.interval
        return f"{100 * self.value:.0f}% (n {self.n}, {100 * low:.0f} to {100 * high:.0f})"

    def row(self) -> dict[str, float | int | None]:
        """For JSON: ``rate`` (None where undefined), ``n``, ``low``, ``high``."""
        low, high = self.interval
        return {
            "rate": round(self.value, 4) if self.n else None,
            "n": self.n,
            "low": round(low, 4),
            "high": round(high, 4),
        }


@dataclass(frozen=True)
class Difference:
    """Rate of ``first`` minus rate of ``second`` on the same prompts, in [-1, 1].

    The 95% interval is a paired percentile bootstrap; ``p`` is McNemar's exact test (McNemar 1947) on the prompts where
    only one of the two is marked.
    """

    first: Rate
    second: Rate
    value: float
    low: float
    high: float
    only_first: int
    only_second: int
    p: float

    def __str__(self) -> str:
        points = f"{100 * self.value:+.0f} points ({100 * self.low:+.0f} to {100 * self.high:+.0f})"
        return f"{points}, n {self.first.n}, McNemar p {self.p:.2g}"


def compare(
    first: Bool[NDArray[np.bool_], "n"], second: Bool[NDArray[np.bool_], "n"], *, resamples: int = 4000, seed: int = 0
) -> Difference:
    """Two samplers (or defenses, or models) on the same prompts, in the same order. Raises for other lengths or
    none.
    """
    from scipy.stats import binomtest

    a, b = np.asarray(first, dtype=bool), np.asarray(second, dtype=bool)
    if a.shape != b.shape or a.ndim != 1 or not len(a):
        raise DemurError(f"marks of {a.shape} and {b.shape}", "one of each for every prompt", "pair them by prompt")
    pairs = a.astype(np.int64) - b
    rng = np.random.default_rng(seed)
    # A resample of pairs is a multinomial draw over the three values that a pair can have.
    counts = np.array([(pairs == v).sum() for v in (-1, 0, 1)])
    drawn = rng.multinomial(len(pairs), counts / len(pairs), size=resamples)
    low, high = np.quantile((drawn[:, 2] - drawn[:, 0]) / len(pairs), [0.025, 0.975])
    gained, lost = int(counts[2]), int(counts[0])
    p = float(binomtest(gained, gained + lost).pvalue) if gained + lost else 1.0
    return Difference(Rate.of(a), Rate.of(b), float(pairs.mean()), float(low), float(high), gained, lost, p)


@dataclass(frozen=True)
class Area:
    """How well a score (higher = more anomalous) tells positives from negatives.

    ``auroc`` in [0, 1], 0.5 is chance; ``precision`` is average precision, whose chance level is the positives' share;
    ``tpr_1`` and ``tpr_5`` are the shares of positives above the negatives' 99% and 95% quantile. Intervals (95%) of
    the area and of ``tpr_1`` are a bootstrap, drawn on each side apart. nan where a side is empty.
    """

    auroc: float
    low: float
    high: float
    precision: float
    tpr_1: float
    tpr_5: float
    positives: int
    negatives: int

    def __str__(self) -> str:
        return f"{self.auroc:.2f} ({self.low:.2f} to {self.high:.2f})"


def area(
    positive: Float[NDArray[Any], "p"] | Sequence[float],
    negative: Float[NDArray[Any], "q"] | Sequence[float],
    *,
    resamples: int = 500,
    seed: int = 0,
) -> Area:
    """AUROC, average precision and TPR at 1% and 5% FPR of a score. Raises for a score that is not finite."""
    from sklearn.metrics import average_precision_score

    pos, neg = np.asarray(positive, dtype=np.float64), np.asarray(negative, dtype=np.float64)
    if not (np.isfinite(pos).all() and np.isfinite(neg).all()):
        raise DemurError("scores with nan or infinite values", "finite scores", "look at the traces they come from")
    if not len(pos) or not len(neg):
        return Area(math.nan, math.nan, math.nan, math.nan, math.nan, math.nan, len(pos), len(neg))
    rng = np.random.default_rng(seed)
    # Placements: the share of negatives below each positive, ties half. The area is their mean; a bootstrap of both
    # sides reweights them, and needs no sorting of its own.
    order = np.sort(neg)
    drawn = np.empty(resamples)
    below, upto = np.searchsorted(order, pos, "left"), np.searchsorted(order, pos, "right")
    for i in range(resamples):
        weights = np.concatenate([[0], np.cumsum(rng.multinomial(len(neg), np.full(len(neg), 1 / len(neg))))])
        chosen = rng.integers(0, len(pos), len(pos))
        drawn[i] = ((weights[below[chosen]] + weights[upto[chosen]]) / 2).mean() / len(neg)
    low, high = np.quantile(drawn, [0.025, 0.975])
    marks = np.concatenate([np.ones(len(pos)), np.zeros(len(neg))])
    return Area(
        auroc=float(((below + upto) / 2).mean() / len(neg)),
        low=float(low),
        high=float(high),
        precision=float(average_precision_score(marks, np.concatenate([pos, neg]))),
        tpr_1=float((pos > np.quantile(neg, 0.99, method="higher")).mean()),
        tpr_5=float((pos > np.quantile(neg, 0.95, method="higher")).mean()),
        positives=len(pos),
        negatives=len(neg),
    )
