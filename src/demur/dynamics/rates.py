"""Rates with their intervals, differences between two runs on the same prompts, and areas. Numbers in, numbers out.

It is long because every interval stands beside the reasons for it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float
from numpy.typing import NDArray

from demur.dynamics.marks import check_one_each, marks_of
from demur.numbers import numbers_of
from demur.types import DemurError


def in_percent(share: float, sign: str = "") -> str:
    """A share as whole percent, or with as many digits as show that it is not 0, or not 100: 1 of 208 is 0.5 and not 0.
    ``sign`` is ``+`` for a difference.
    """
    value = 100 * share
    digits = next((d for d in range(6) if float(f"{value:.{d}f}") not in (0.0, 100.0, -100.0)), 0)
    return f"{value:{sign}.{digits}f}" if share not in (0, 1, -1) else f"{value:{sign}.0f}"


def ends_in_percent(low: float, high: float) -> str:
    """A share's interval as whole percent, ``3 to 12``. An upper end above 0 is not told as 0, and a lower one below 1
    not as 100: none of 1,000 is 0 to 0.4.
    """
    ends = f"{100 * low:.0f}", f"{100 * high:.0f}"
    return f"{in_percent(low) if ends[0] == '100' else ends[0]} to {in_percent(high) if ends[1] == '0' else ends[1]}"


@dataclass(frozen=True)
class Rate:
    """k of n with Wilson's 95% interval (Wilson 1927). ``value`` is nan, and says so, where n is 0: undefined, not
    0. ``unscored`` more were there of which nobody could say: they are in neither k nor n.
    """

    k: int
    n: int
    unscored: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.k <= self.n or self.unscored < 0:
            raise DemurError(f"{self.k} of {self.n}, {self.unscored} unscored", "0 <= k <= n", "count again")

    @classmethod
    def of(cls, marks: Any, among: Any = None, scored: Any = None) -> Rate:
        """The share of ``marks``, of all or of those marked in ``among``. Where ``scored`` is False nobody could say
        whether the mark is right: left out, and counted as ``unscored``.
        """
        check_one_each(marks=marks, among=among, scored=scored)
        chosen = np.ones(len(marks), dtype=bool) if among is None else marks_of(among)
        known = chosen if scored is None else chosen & marks_of(scored)
        if scored is not None:  # what nobody could say may stand there as nan or None
            marks = np.where(known, np.asarray(marks, dtype=object), False)
        marks = marks_of(marks)
        return cls(int((marks & known).sum()), int(known.sum()), int((chosen & ~known).sum()))

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
            return f"unscored ({self.unscored})" if self.unscored else "undefined (n 0)"
        left = f"; unscored {self.unscored}" if self.unscored else ""
        return f"{in_percent(self.value)}% (n {self.n}, {ends_in_percent(*self.interval)}{left})"

    def row(self) -> dict[str, float | int | None]:
        """For JSON: ``rate`` (None where undefined), ``n``, ``low``, ``high``; ``unscored`` where there are any."""
        low, high = self.interval
        found: dict[str, float | int | None] = {
            "rate": round(self.value, 4) if self.n else None,
            "n": self.n,
            "low": round(low, 4),
            "high": round(high, 4),
        }
        return found | ({"unscored": self.unscored} if self.unscored else {})


@dataclass(frozen=True)
class Difference:
    """Rate of ``first`` minus rate of ``second`` on the same prompts, in [-1, 1].

    ``low`` and ``high`` are the 95% interval of :func:`compare`; ``p`` is McNemar's exact test (McNemar 1947) on the
    prompts where only one of the two is marked. Where several pairs belong to one request (attacks, seeds), ``p`` is of
    a test that flips the signs of whole requests, which fewer than six cannot take below 0.05; ``groups`` counts them.
    """

    first: Rate
    second: Rate
    value: float
    low: float
    high: float
    only_first: int
    only_second: int
    p: float
    groups: int

    def __str__(self) -> str:
        value, low, high = (in_percent(share, "+") for share in (self.value, self.low, self.high))
        points = f"{value} points ({low} to {high})"
        if self.groups < self.first.n:
            return f"{points}, n {self.first.n} of {self.groups} requests, sign-flip p {self.p:.2g}"
        return f"{points}, n {self.first.n}, McNemar p {self.p:.2g}"


def compare(
    first: Bool[NDArray[np.bool_], "n"],
    second: Bool[NDArray[np.bool_], "n"],
    groups: Sequence[Any] | None = None,
    *,
    resamples: int = 4000,
    seed: int = 0,
) -> Difference:
    """Two samplers (or defenses, or models) on the same prompts, in the same order. ``groups`` names the request behind
    each pair, where several pairs share one: such pairs are no independent facts. Raises for other lengths or none.

    A percentile bootstrap of pairs has no width where all pairs are alike, and too little where nearly all are. So the
    interval is the wider of it and of Tango's score interval for paired shares (Tango 1998), which for n pairs without
    a difference is as wide as Wilson's. Both can leave out 0 where the exact test does not; hence it is also as wide as
    the exact interval (Clopper and Pearson 1934) of the pairs that differ, times their share, which leaves out 0 only
    where p is below 0.05.

    With ``groups``, whole requests are drawn, and the other two are of as many pairs as the sample is worth: its
    effective size by the variance between requests (Korn and Graubard 1998), or, where that is none, as if all pairs of
    a request were one (Kish 1965). Of one request alone nothing is known of others: -1 to 1.
    """
    from scipy.stats import binomtest

    a, b = marks_of(first), marks_of(second)
    if a.shape != b.shape or a.ndim != 1 or not len(a) or (groups is not None and len(groups) != len(a)):
        came = f"marks of {a.shape} and {b.shape}" + ("" if groups is None else f" in {len(groups)} groups")
        raise DemurError(came, "one of each for every prompt", "pair them by prompt")
    pairs = a.astype(np.int64) - b
    rng = np.random.default_rng(seed)
    if groups is not None and len(set(groups)) < len(pairs):
        return _clustered(a, b, pairs, groups, resamples, rng)
    # A resample of pairs is a multinomial draw over the three values that a pair can have.
    counts = np.array([(pairs == v).sum() for v in (-1, 0, 1)])
    drawn = rng.multinomial(len(pairs), counts / len(pairs), size=resamples)
    ends = np.quantile((drawn[:, 2] - drawn[:, 0]) / len(pairs), [0.025, 0.975])
    gained, lost = int(counts[2]), int(counts[0])
    low, high = _wider(ends, _paired(gained, lost, len(pairs)))
    p = float(binomtest(gained, gained + lost).pvalue) if gained + lost else 1.0
    return Difference(Rate.of(a), Rate.of(b), float(pairs.mean()), low, high, gained, lost, p, len(a))


def _clustered(
    a: NDArray[np.bool_],
    b: NDArray[np.bool_],
    pairs: NDArray[np.int64],
    groups: Sequence[Any],
    resamples: int,
    rng: np.random.Generator,
) -> Difference:
    """The same with whole groups drawn, or flipped."""
    names = {name: i for i, name in enumerate(dict.fromkeys(groups))}
    of = np.array([names[name] for name in groups])
    sums, sizes = np.bincount(of, weights=pairs), np.bincount(of)
    drawn = rng.multinomial(len(sums), np.full(len(sums), 1 / len(sums)), size=resamples)
    ends = np.quantile((drawn @ sums) / (drawn @ sizes), [0.025, 0.975])
    flipped = rng.choice([-1, 1], size=(resamples, len(sums))) @ sums
    p = float((1 + (np.abs(flipped) >= abs(sums.sum())).sum()) / (1 + resamples))
    gained, lost = int((pairs == 1).sum()), int((pairs == -1).sum())
    low, high = -1.0, 1.0
    if len(sums) > 1:
        worth = effective(pairs, of) / len(pairs)
        low, high = _wider(ends, _paired(gained * worth, lost * worth, len(pairs) * worth))
    return Difference(Rate.of(a), Rate.of(b), float(pairs.mean()), low, high, gained, lost, p, len(sums))


def effective(pairs: NDArray[np.int64], of: NDArray[np.int64]) -> float:
    """How many independent values are worth as much as these n, whose groups ``of`` names (at least two): n times the
    variance without groups over that with them, less for few groups (Korn and Graubard 1998); at most n.
    """
    from scipy.stats import t

    of = np.unique(of, return_inverse=True)[1]
    sums, sizes = np.bincount(of, weights=pairs), np.bincount(of)
    n, k = len(pairs), len(sums)
    alone = float(pairs.var()) / n
    grouped = k / (k - 1) * float(((sums - pairs.mean() * sizes) ** 2).sum()) / n**2
    if not alone or not grouped:
        return float(n**2 / (sizes**2).sum())
    return min(float(n), n * alone / grouped * float(t.ppf(0.975, n - 1) / t.ppf(0.975, k - 1)) ** 2)


@dataclass(frozen=True)
class Area:
    """How well a score (higher = more anomalous) tells positives from negatives.

    ``auroc`` in [0, 1], 0.5 is chance; ``precision`` is average precision, whose chance level is the positives' share;
    ``tpr_1`` and ``tpr_5`` are the shares of positives above the lowest limit that at most 1% and 5% of the negatives
    are above (1 of 100; with fewer than 100 negatives, the limit for 1% is their highest). ``low`` and ``high`` are the
    95% interval of the area, ``..._low`` and ``..._high`` those of the others; see :func:`area`. nan, all of them,
    where a side is empty.
    """

    auroc: float
    low: float
    high: float
    precision: float
    tpr_1: float
    tpr_5: float
    positives: int
    negatives: int
    precision_low: float
    precision_high: float
    tpr_1_low: float
    tpr_1_high: float
    tpr_5_low: float
    tpr_5_high: float

    def __str__(self) -> str:
        return f"{self.auroc:.2f} ({self.low:.2f} to {self.high:.2f})"


def area(
    positive: Float[NDArray[Any], "p"] | Sequence[float],
    negative: Float[NDArray[Any], "q"] | Sequence[float],
    *,
    resamples: int = 500,
    seed: int = 0,
) -> Area:
    """AUROC, average precision and TPR at 1% and 5% FPR of a score. Raises for a score that is not finite.

    A percentile bootstrap has no width where the sides are well apart: 24 against 24, perfectly told apart, would be
    1.00 (1.00 to 1.00). So the area's interval is a score interval (Newcombe 2006, method 5: the areas that are within
    1.96 of their own standard errors after Hanley and McNeil 1982). The others' is the wider of a bootstrap, drawn on
    each side apart, which knows that the quantile is an estimate too, and of Wilson's for as many trials as there are
    positives (for average precision after Boyd, Eng and Page 2013, who take it for a share of the positives).
    """
    pos, neg = (numbers_of("a score", side).astype(np.float64) for side in (positive, negative))
    if pos.ndim != 1 or neg.ndim != 1:
        raise DemurError(f"scores of shapes {pos.shape} and {neg.shape}", "one score a generation", "take one of each")
    if not (np.isfinite(pos).all() and np.isfinite(neg).all()):
        raise DemurError("scores with nan or infinite values", "finite scores", "look at the traces they come from")
    if not len(pos) or not len(neg):
        x = math.nan
        return Area(x, x, x, x, x, x, len(pos), len(neg), x, x, x, x, x, x)
    # Placements: how many negatives are below each positive, ties half. The area is their mean share.
    order = np.sort(neg)
    below, upto = np.searchsorted(order, pos, "left"), np.searchsorted(order, pos, "right")
    auroc = float(((below + upto) / 2).mean() / len(neg))
    found = _read(pos, order, np.ones((1, len(pos))), np.ones((1, len(neg))))[:, 0]
    # A resample is a weight on every score; many at a time, few enough to fit into memory.
    rng = np.random.default_rng(seed)
    block = max(1, 1_000_000 // (len(pos) + len(neg)))
    drawn = [
        _read(pos, order, *(rng.multinomial(n, np.full(n, 1 / n), size=size) for n in (len(pos), len(neg))))
        for size in (min(block, resamples - begin) for begin in range(0, resamples, block))
    ]
    ends = np.quantile(np.concatenate(drawn, axis=1), [0.025, 0.975], axis=1).T
    (p_low, p_high), (low_1, high_1), (low_5, high_5) = (_wider(ends[k], _wilson(found[k], len(pos))) for k in range(3))
    low, high = _newcombe(auroc, len(pos), len(neg))
    precision, tpr_1, tpr_5 = map(float, found)
    more = p_low, p_high, low_1, high_1, low_5, high_5
    return Area(auroc, low, high, precision, tpr_1, tpr_5, len(pos), len(neg), *more)


def over_seeds(areas: Sequence[Area], *names: str) -> tuple[float, float, float]:
    """The mean over seeds of a figure and its 95% interval, from the names of figure, low and high end; nan where one
    seed's is undefined.

    Each end is as far from the mean as the mean of the seeds' own ends, and further by the standard error between
    seeds: the two distances add in squares.
    """
    value, low, high = (np.array([getattr(a, name) for a in areas], dtype=np.float64) for name in names)
    mean = float(value.mean())
    if math.isnan(mean):
        return mean, mean, mean
    between = 1.96 * float(value.std(ddof=1)) / math.sqrt(len(value)) if len(value) > 1 else 0.0
    down, up = (math.hypot(float(end.mean()) - mean, between) for end in (low, high))
    return mean, max(0.0, mean - down), min(1.0, mean + up)


def _read(
    pos: NDArray[np.float64], order: NDArray[np.float64], w: NDArray[Any], v: NDArray[Any]
) -> Float[NDArray[np.float64], "3 b"]:
    """Average precision, TPR at 1% and at 5% FPR of b weighted sets; ``order`` are the negatives from low to high."""
    p, q = len(pos), len(order)
    scores = np.concatenate([pos, order])
    falling = np.argsort(-scores, kind="stable")
    ends = np.append(np.diff(scores[falling]) != 0, True)  # ties are one threshold
    right = np.cumsum(np.concatenate([w, np.zeros_like(v)], axis=1)[:, falling], axis=1)[:, ends]
    all_of = np.cumsum(np.concatenate([w, v], axis=1)[:, falling], axis=1)[:, ends]
    gained = np.diff(right, axis=1, prepend=0)
    precision = (gained * right / np.maximum(all_of, 1)).sum(axis=1) / p
    upto = np.cumsum(v, axis=1)
    found = [precision]
    for share in (0.01, 0.05):
        # The negative that only so many of the resample may be above: the first up to which there are all others.
        limit = order[(upto >= q - math.floor(share * q + 1e-9)).argmax(axis=1)]
        found.append((w * (pos > limit[:, None])).sum(axis=1) / p)
    return np.stack(found)


def _wider(one: Float[NDArray[np.float64], "2"] | Sequence[float], other: Sequence[float]) -> tuple[float, float]:
    return min(float(one[0]), float(other[0])), max(float(one[1]), float(other[1]))


_Z = 1.959964


def _wilson(share: float, n: int) -> tuple[float, float]:
    """Wilson's 95% interval of a share of n trials that need not be a whole number of them."""
    centre = (share + _Z**2 / (2 * n)) / (1 + _Z**2 / n)
    half = _Z * math.sqrt(share * (1 - share) / n + _Z**2 / (4 * n**2)) / (1 + _Z**2 / n)
    return max(0.0, min(centre - half, share)), min(1.0, max(centre + half, share))


def _paired(gained: float, lost: float, n: float) -> tuple[float, float]:
    """The wider of two 95% intervals of a difference of paired shares: Tango's (1998), and the exact one of the
    direction of the pairs that differ. Numbers need not be whole.
    """
    from scipy.optimize import brentq
    from scipy.stats import beta

    value = (gained - lost) / n

    def gap(delta: float) -> float:
        # The squared distance of what came, less what is allowed: Tango's variance, with the share of pairs lost that
        # is likeliest if the difference is delta.
        half = (2 * n - gained + lost) * delta - gained - lost
        root = math.sqrt(max(half**2 + 8 * n * lost * delta * (1 - delta), 0.0))
        share = (root - half) / (4 * n)
        return (gained - lost - n * delta) ** 2 - _Z**2 * n * (2 * share + delta * (1 - delta))

    # Where all pairs are alike, what came is itself a root, without variance: the other one is the bound.
    low = -1.0 if value - 1e-9 <= -1 else float(brentq(gap, -1, value - 1e-9))
    high = 1.0 if value + 1e-9 >= 1 else float(brentq(gap, value + 1e-9, 1))
    exact = float(beta.ppf(0.025, gained, lost + 1)) if gained else 0.0
    other = float(beta.ppf(0.975, gained + 1, lost)) if lost else 1.0
    differ = (gained + lost) / n
    return _wider((low, high), ((2 * exact - 1) * differ, (2 * other - 1) * differ))


def _newcombe(auroc: float, p: int, q: int) -> tuple[float, float]:
    """The 95% score interval of an area of p positives and q negatives (Newcombe 2006, method 5)."""
    from scipy.optimize import brentq

    def gap(area: float) -> float:
        star = (p + q) / 2 - 1
        spread = area * (1 - area) / (p * q) * (1 + star * ((1 - area) / (2 - area) + area / (1 + area)))
        return (auroc - area) ** 2 - _Z**2 * spread

    # An area of 1 is at no distance from itself, with no spread: the other root is the bound that is asked for.
    low = 0.0 if auroc <= 0 else float(brentq(gap, 0, min(auroc, 1 - 1e-9)))
    high = 1.0 if auroc >= 1 else float(brentq(gap, max(auroc, 1e-9), 1))
    return low, high
