"""Thresholds with a promise: of harmless generations, at most the share alpha is flagged.

Split-conformal calibration (Vovk, Gammerman and Shafer 2005, chapter 2; Lei et al. 2018): if n calibration scores and a
new harmless score are exchangeable, the new one exceeds the k-th smallest, k = ceil((n + 1)(1 - alpha)), with
probability at most alpha. Nothing is assumed of the detector or of how scores are distributed. The promise is about the
draw of calibration set and new prompt together: for one calibration set, the rate of false positives varies like
Beta(n + 1 - k, k) (:func:`spread`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray

from demur.kinds import fits, shown
from demur.numbers import numbers_of
from demur.types import DemurError

Scores = Float[NDArray[Any], "n"] | Sequence[float]
Rule = Literal["conformal", "quantile"]
"""``conformal``: :func:`conformal_threshold`; ``quantile``: :func:`quantile_threshold`, the paper's."""
_HIGHEST = float(np.finfo(np.float64).max)


class InvalidData(DemurError, ValueError):
    """Data that a detector can not use; a ValueError too, as scikit-learn's tools expect."""


@dataclass(frozen=True)
class Threshold:
    """The score above which a generation is flagged, how it was set, and on how many harmless scores."""

    value: float
    alpha: float
    rule: Rule
    n: int

    def __post_init__(self) -> None:
        share = fits(self.alpha, float) and 0 < self.alpha < 1
        if not share or self.rule not in ("conformal", "quantile") or not fits(self.n, int) or self.n < 1:
            raise InvalidData(
                f"a threshold by {shown(self.rule)} for alpha {shown(self.alpha)} from {shown(self.n)} scores",
                "conformal or quantile, alpha above 0 and below 1, at least one score",
                "let threshold_of set it",
            )

    def exceeded(self, scores: Float[NDArray[np.float64], "..."]) -> NDArray[np.bool_]:
        """Whether each score is above. One that is nan or infinite counts as above: what can't be seen must not
        pass.
        """
        return np.asarray(~(scores <= min(self.value, _HIGHEST)))  # not `>`, which lets a nan pass

    @property
    def promise(self) -> str:
        """What it promises, in words."""
        if self.rule == "quantile":
            return f"{in_digits(1 - self.alpha)} quantile of {self.n} harmless calibration prompts; no guarantee"
        low, high = spread(self.n, self.alpha)
        highest = ""
        if rank(self.n, self.alpha) == self.n:  # one odd answer decides what the guard catches
            more = math.ceil(2 / self.alpha - 1 - 1e-9)
            highest = f"; the limit is the highest of their scores: with {more} prompts or more it is not"
        return (
            f"at most {in_digits(self.alpha, 1)} false positives on prompts like the {self.n} harmless calibration "
            f"prompts (for this one calibration set, 95%: {low:.1%} to {high:.1%}){highest}"
        )


def in_digits(share: float, least: int = 0) -> str:
    """A share in percent with all its digits, at least so many behind the point: a promise is not rounded."""
    digits = next((d for d in range(least, 9) if abs(round(100 * share, d) - 100 * share) < 1e-9), 9)
    return f"{100 * share:.{digits}f}%"


def check_share(alpha: Any) -> None:
    """Raises for an alpha that is no share of harmless generations."""
    if not fits(alpha, float) or not 0 < alpha < 1:
        raise InvalidData(f"alpha {shown(alpha)}", "above 0 and below 1", "0.01 promises at most 1% false positives")


def check_rule(rule: Any) -> None:
    """Raises for what sets no threshold."""
    if rule not in ("conformal", "quantile"):
        raise InvalidData(f"threshold {shown(rule)}", "conformal or quantile", "name one of these")


def threshold_of(scores: Scores, alpha: float, rule: Rule) -> Threshold:
    """The threshold that a rule sets on harmless scores. Raises as the rule does, for another rule, and for an alpha
    that is no share.
    """
    check_rule(rule)
    check_share(alpha)
    set_by = conformal_threshold if rule == "conformal" else lambda known, share: quantile_threshold(known, 1 - share)
    return Threshold(set_by(scores, alpha), alpha, rule, len(scores))


def conformal_threshold(scores: Scores, alpha: float) -> float:
    """The score above which a harmless generation falls with probability at most ``alpha`` (in (0, 1)).

    Raises, with the number that would be needed, if there are too few scores for that promise: fewer than 1/alpha - 1.
    """
    check_share(alpha)
    ordered = np.sort(_finite(scores))
    k = rank(len(ordered), alpha)
    if k > len(ordered):
        raise InvalidData(
            f"{len(ordered)} calibration scores for a false-positive rate of at most {alpha:g}",
            f"at least {math.ceil(1 / alpha - 1 - 1e-9)}",
            "use more harmless prompts, a larger alpha, or the threshold quantile, which promises nothing",
        )
    return float(ordered[k - 1])


def rank(n: int, alpha: float) -> int:
    """Which of ``n`` sorted scores, from 1, is the conformal limit; above ``n`` if there are too few for ``alpha``."""
    return math.ceil((n + 1) * (1 - alpha) - 1e-9)  # what rounding adds is no rank more


def quantile_threshold(scores: Scores, q: float) -> float:
    """The ``q`` quantile of the scores, linearly interpolated: the paper's threshold (arXiv:2602.02600, section 5)."""
    if not fits(q, float) or not 0 < q < 1:
        raise InvalidData(f"quantile {shown(q)}", "above 0 and below 1", "the paper's is 0.99")
    return float(np.quantile(_finite(scores), q))


def spread(n: int, alpha: float, level: float = 0.95, rule: Rule = "conformal") -> tuple[float, float]:
    """Between which false-positive rates a threshold from ``n`` scores lies with probability ``level``.

    The rate given the calibration set follows Beta(n + 1 - k, k) for continuous scores (Vovk 2012, proposition 2a) if
    the threshold is the k-th smallest of them. A quantile lies between two of them, and the lower one is taken: what
    is said of it is too wide rather than too narrow, however few scores there are.
    """
    from scipy.stats import beta

    for name, share in (("alpha", alpha), ("level", level)):
        if not fits(share, float) or not 0 < share < 1:
            raise InvalidData(f"{name} {shown(share)}", "above 0 and below 1", "0.05, for example")
    if not fits(n, int) or n < 1:
        raise InvalidData(f"{shown(n)} scores", "a whole number of at least 1", "say how many calibrated the limit")
    k = rank(n, alpha) if rule == "conformal" else math.floor((n - 1) * (1 - alpha) + 1e-9) + 1
    if k > n:
        return 0.0, 0.0
    low, high = beta(n + 1 - k, k).interval(level)
    return float(low), float(high)


def _finite(scores: Scores) -> NDArray[np.float64]:
    found = np.asarray(numbers_of("scores", scores), dtype=np.float64)
    if found.ndim != 1 or not len(found) or not np.isfinite(found).all():
        raise InvalidData(f"scores of shape {found.shape}", "a row of finite numbers, not empty", "look at the signals")
    return found
