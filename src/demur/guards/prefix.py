"""Judging a signal while it is being written, with one promise for the whole generation.

At step t only sigma_1 .. sigma_t are known. They are held at sigma_t up to T and scored
by the detector: s_t, which at t = T is the offline score. Early scores are larger and vary more than late ones, so each
is standardised by what harmless signals have at that step: z_t = (s_t - centre_t) / scale_t, of log s_t where the
detector is ``logarithmic``.

A model that writes from left to right has little to go by at first, and later steps hold all of it and more: one that
looks as often as there are steps would spend on the first ones most of what it may flag wrongly. There early looks must
show more: scale_t holds a factor (t / T)^(-1/4), the boundary of Wang and Tsiatis (1987) with Delta = 1/4, between
Pocock's (1977; one limit for all looks) and that of O'Brien and Fleming (1979). On a canvas the whole answer is seen at
every step, and what gives a jailbreak away may be gone at the end: there it is one limit, Pocock's.
docs/decisions/0020-early-looks.md has what each of them catches.

A guard that may stop at any step flags a generation if max_t z_t exceeds the limit. That maximum is one number a
generation, so split-conformal calibration of it bounds the false-positive rate of the *whole* generation: centre and
scale come from the signals that the detector was fitted on, the limit is the conformal quantile of the maximum over
calibration signals, and those are exchangeable with a new harmless one. No correction for looking T times is needed,
and stopping at the first exceedance flags the same generations as waiting for the maximum.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from numpy.typing import NDArray

from demur.guards.conformal import InvalidData, Rule, Threshold, check_rule, check_share, threshold_of
from demur.guards.detectors import Detector, scored
from demur.guards.telling import able_steps
from demur.numbers import signals_of

Sigma = Float[NDArray[np.float64], "n T"]
_FLOOR = 1e-6
"""Below this an error is rounding: log scores start here."""
_LEAST = 1e-3
"""The least scale: of logarithms, or in units of what a detector's own scores span."""
_EARLY = {"causal": 0.25, "canvas": 0.0}
"""Wang and Tsiatis' 1/2 - Delta: how much more early looks must show."""
_LEAST_OF_USUAL = {"causal": 0.5, "canvas": 1.0}
"""The least scale in units of its median over steps. Where harmless signals hardly differ at a step, one odd signal is
thousands of scales away there; the limit, which is one for all steps, would then be out of reach at every other one.
Canvases hardly differ at their first steps, and have no boundary that asks more of those.
"""


@dataclass(frozen=True, eq=False)
class Prefix:
    """What the online guard knows: the detector, ``centre`` and ``scale`` of its scores by step, and the threshold of
    their maximum, whose ``alpha`` bounds the share of harmless generations that are stopped at any step. What early
    looks must show more is in the scale.
    """

    detector: Detector
    centre: Float[NDArray[np.float64], "T"]
    scale: Float[NDArray[np.float64], "T"]
    threshold: Threshold

    def score(self, sigma: Float[NDArray[np.float64], "n t"]) -> Float[NDArray[np.float64], "n"]:
        """z_t of signals of which t steps are known (1 <= t <= T); higher is more anomalous."""
        t, whole = sigma.shape[1], len(self.centre)
        if not 1 <= t <= whole:
            raise InvalidData(f"{t} values of sigma", f"1 to {whole}, the guard's T", "cut the signal at T")
        filled = sigma if t == whole else np.concatenate([sigma, np.repeat(sigma[:, -1:], whole - t, axis=1)], axis=1)
        return self.score_held(filled, t)

    def score_held(self, held: Sigma, t: int | Int[NDArray[np.int64], "n"]) -> Float[NDArray[np.float64], "n"]:
        """z_t of signals that are already held at their value of step t up to T; ``t`` for all, or row by row."""
        return np.asarray((_comparable(self.detector, held) - self.centre[t - 1]) / self.scale[t - 1])

    def scores(self, sigma: Sigma) -> Sigma:
        """z_1 .. z_T of whole signals: what the online guard sees, step by step. Raises for what is no signal."""
        sigma = signals_of(sigma, unknown=True)
        return np.stack([self.score(sigma[:, : t + 1]) for t in range(sigma.shape[1])], axis=1)

    def able(self) -> list[int]:
        """After which steps, from 1, the limit can be exceeded by a signal of some plain shape: where this guard can
        act (:func:`demur.guards.telling.able_steps`).
        """
        return able_steps(lambda seen: self.threshold.exceeded(self.score(seen)), len(self.centre))

    def stops(self, sigma: Sigma, steps: Int[NDArray[np.int64], "n"] | None = None) -> NDArray[np.int64]:
        """The step (from 1) at which each signal would be stopped; 0 for never.

        ``steps``: how many steps each answer took. What a signal only holds behind them stops nothing, as at work
        (None: every value counts, which is an upper bound).
        """
        above = self.threshold.exceeded(self.scores(sigma))
        if steps is not None:
            above &= np.arange(1, above.shape[1] + 1) <= np.asarray(steps)[:, None]
        return np.where(above.any(axis=1), above.argmax(axis=1) + 1, 0)


def fit_prefix(
    detector: Detector,
    fit: Sigma,
    calibration: Sigma,
    *,
    alpha: float,
    rule: Rule = "conformal",
    causal: bool = False,
) -> Prefix:
    """Standardises on the detector's own signals and calibrates the maximum on others. Raises for too few of them, for
    what is no signal, and for an alpha or a rule that is none.

    ``causal``: the answers are written from left to right, a token's state final once it is written, so that early
    looks must show more (:func:`demur.signals.recent.keeps_states`).

    Scores of signals that the detector was fitted on are somewhat too small, but at every step, and the limit is set on
    signals that it has not seen: the promise does not lean on them.
    """
    check_rule(rule)
    check_share(alpha)
    fit, calibration = signals_of(fit), signals_of(calibration, name="calibration")
    steps = fit.shape[1]
    every = np.stack([_comparable(detector, _held(fit, t + 1)) for t in range(steps)], axis=1)
    centre = np.median(every, axis=0)
    least = _LEAST if _logarithmic(detector) else _LEAST * (float(np.ptp(every)) or 1.0)
    scale = np.maximum(np.quantile(every, 0.9, axis=0) - centre, least)
    kind = "causal" if causal else "canvas"
    scale = np.maximum(scale, _LEAST_OF_USUAL[kind] * np.median(scale)) * _more(steps, _EARLY[kind])
    open_ended = Prefix(detector, centre, scale, Threshold(np.inf, alpha, rule, len(calibration)))
    highest = open_ended.scores(calibration).max(axis=1)
    return Prefix(detector, centre, scale, threshold_of(highest, alpha, rule))


def _more(steps: int, early: float) -> Float[NDArray[np.float64], "T"]:
    """How many times as far above the centre a score must be at each step: 1 at T; with 1/4, 2.4 at the first of 32."""
    return np.asarray((np.arange(1, steps + 1) / steps) ** -early)


def _held(sigma: Sigma, t: int) -> Sigma:
    return np.asarray(sigma[:, np.minimum(np.arange(sigma.shape[1]), t - 1)])


def _comparable(detector: Detector, held: Sigma) -> Float[NDArray[np.float64], "n"]:
    """Scores on the scale on which steps are compared."""
    scores = scored(detector, held)
    return np.log(np.maximum(scores, _FLOOR)) if _logarithmic(detector) else scores


def _logarithmic(detector: Detector) -> bool:
    return bool(getattr(detector, "logarithmic", False))
