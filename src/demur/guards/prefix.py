"""Judging a signal while it is being written, with one promise for the whole generation.

At step t only sigma_1 .. sigma_t are known. They are held at sigma_t up to T, as a trace that ends early is, and scored
by the detector: s_t, which at t = T is the offline score. Early scores are larger and vary more than late ones, so each
is standardised by what harmless signals have at that step: z_t = (log s_t - centre_t) / scale_t.

A guard that may stop at any step flags a generation if max_t z_t exceeds the limit. That maximum is one number a
generation, so split-conformal calibration of it bounds the false-positive rate of the *whole* generation: centre and
scale come from the signals that the detector was fitted on, the limit is the conformal quantile of the maximum over
calibration signals, and those are exchangeable with a new harmless one. No correction for looking T times is needed,
and stopping at the first exceedance flags the same generations as waiting for the maximum.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray

from demur.guards.conformal import InvalidData, conformal_threshold
from demur.guards.detector import SRIGuard

Sigma = Float[NDArray[np.float64], "n T"]
_HIGHEST = np.finfo(np.float64).max
_FLOOR = 1e-6
"""Below this an error is rounding: log scores start here."""


@dataclass(frozen=True, eq=False)
class Prefix:
    """What the online guard knows: the detector, ``centre`` and ``scale`` of log scores by step, and the limit.

    ``alpha`` bounds the share of harmless generations that are stopped at any step; ``n`` were used to calibrate.
    """

    detector: SRIGuard
    centre: Float[NDArray[np.float64], "T"]
    scale: Float[NDArray[np.float64], "T"]
    limit: float
    alpha: float
    n: int

    def score(self, sigma: Float[NDArray[np.float64], "n t"]) -> Float[NDArray[np.float64], "n"]:
        """z_t of signals of which t steps are known (1 <= t <= T); higher is more anomalous, above ``limit`` is
        flagged.
        """
        t, whole = sigma.shape[1], len(self.centre)
        if not 1 <= t <= whole:
            raise InvalidData(f"{t} values of sigma", f"1 to {whole}, the guard's T", "cut the signal at T")
        filled = sigma if t == whole else np.concatenate([sigma, np.repeat(sigma[:, -1:], whole - t, axis=1)], axis=1)
        return self.score_held(filled, t)

    def score_held(self, held: Sigma, t: int) -> Float[NDArray[np.float64], "n"]:
        """z_t of signals that are already held at their value of step t up to T; unchecked."""
        return self._standardised(self.detector.errors_of(held), t - 1)

    def _standardised(self, errors: Float[NDArray[np.float64], "n"], at: Any) -> Float[NDArray[np.float64], "n"]:
        """z of errors at one step, counted from 0, or at a step each."""
        found: Float[NDArray[np.float64], "n"] = (_logs(errors) - self.centre[at]) / self.scale[at]
        return found

    def exceeds_held(self, held: Sigma, t: int) -> NDArray[np.bool_]:
        """``exceeds(score_held(held, t))`` in fewer operations: what runs beside every step of a generation."""
        return np.asarray(~(self.detector.errors_of(held) <= self.highest[t - 1]))  # not `>`, which lets a nan pass

    @cached_property
    def highest(self) -> Float[NDArray[np.float64], "T"]:
        """The highest error of each step whose score does not exceed; below every error where there is none.

        Scores rise with errors, so comparing errors with these is comparing scores with the limit. Found by halving
        the range of all floats, whose bits are in their order: exact, where the inverse of a score would be rounded.
        """
        steps = np.arange(len(self.centre))
        low = np.zeros(len(steps), dtype=np.int64)
        high = np.full(len(steps), np.float64(_HIGHEST).view(np.int64) + 1)  # infinity's bits; its score exceeds
        while (high - low > 1).any():
            middle = low + (high - low) // 2
            above = self.exceeds(self._standardised(middle.view(np.float64), steps))
            low, high = np.where(above, low, middle), np.where(above, middle, high)
        none = self.exceeds(self._standardised(np.zeros(len(steps)), steps))
        found: Float[NDArray[np.float64], "T"] = np.where(none, -1.0, low.view(np.float64))
        return found

    def scores(self, sigma: Sigma) -> Sigma:
        """z_1 .. z_T of whole signals: what the online guard sees, step by step."""
        return np.stack([self.score(sigma[:, : t + 1]) for t in range(sigma.shape[1])], axis=1)

    def exceeds(self, scores: Float[NDArray[np.float64], "..."]) -> NDArray[np.bool_]:
        """Whether each score is above the limit. One that is nan or infinite counts as above: what can't be seen must
        not pass. (Log scores have a floor: none is infinite downwards.)
        """
        return np.asarray(~(scores <= min(self.limit, _HIGHEST)))  # not `>`, which lets a nan pass

    def stops(self, sigma: Sigma) -> NDArray[np.int64]:
        """The step (from 1) at which each signal would be stopped; 0 for never."""
        above = self.exceeds(self.scores(sigma))
        return np.where(above.any(axis=1), above.argmax(axis=1) + 1, 0)


def fit_prefix(detector: SRIGuard, fit: Sigma, calibration: Sigma, *, alpha: float) -> Prefix:
    """Standardises on the detector's own signals and calibrates the maximum on others. Raises for too few of them.

    Errors on signals that the detector was fitted on are somewhat too small, but at every step, and the limit is set on
    signals that it has not seen: the promise does not lean on them.
    """
    steps = fit.shape[1]
    every = np.stack([_logs(detector.errors_of(_held(fit, t + 1))) for t in range(steps)], axis=1)
    centre = np.median(every, axis=0)
    scale = np.maximum(np.quantile(every, 0.9, axis=0) - centre, 1e-3)
    open_ended = Prefix(detector, centre, scale, np.inf, alpha, len(calibration))
    highest = open_ended.scores(calibration).max(axis=1)
    if detector.threshold == "conformal":
        limit = conformal_threshold(highest, alpha)
    else:
        limit = float(np.quantile(highest, 1 - alpha))
    return Prefix(detector, centre, scale, limit, alpha, len(calibration))


def _held(sigma: Sigma, t: int) -> Sigma:
    return np.asarray(sigma[:, np.minimum(np.arange(sigma.shape[1]), t - 1)])


def _logs(errors: Float[NDArray[np.float64], "n"]) -> Float[NDArray[np.float64], "n"]:
    found: Float[NDArray[np.float64], "n"] = np.log(np.maximum(errors, _FLOOR))
    return found
