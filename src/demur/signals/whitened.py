"""The whitened signal: how far a step's state has come from refusing to complying, along the one direction that tells
the two apart best once the answers' own scatter is taken out. Arrays in, arrays out: no torch.

The paper's sigma compares cosines to two anchors, so a loud direction that has nothing to do with refusing (the length
of a prompt, its subject, its form) weighs as much as any other. Here a step's direction is that of Fisher's linear
discriminant, w = C^-1 (harmless anchor - harmful anchor), with C the covariance within the two kinds of anchor answers,
shrunk towards a multiple of the identity (Ledoit and Wolf, *A well-conditioned estimator for large-dimensional
covariance matrices*, Journal of Multivariate Analysis 88, 2004, lemmas 3.2 to 3.4). It is fitted on the anchor answers
alone. C has at most as many directions as there are answers, so that no matrix of hidden size x hidden size is made.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray
from scipy.special import expit

STEEPEST = 2.0 * float(np.log(9.0))
"""From the mean of new refusals to that of new answers that comply, the log odds rise by this much at most: sigma .1 to
.9, so that it does not saturate.
"""
FOLDS = 5
States = Float[NDArray[np.float32], "n T d"]


@dataclass(frozen=True, eq=False)
class Whitened:
    """A direction and an offset for every step."""

    weights: Float[NDArray[np.float32], "T d"]
    offsets: Float[NDArray[np.float64], "T"]

    def __call__(self, phi: Float[NDArray[Any], "... k d"], t: int = 0) -> Float[NDArray[np.float64], "... k"]:
        """sigma in [0, 1] of k steps from step t on (counted from 0); nan for a state that is not finite.

        Computed in float64, each row by itself: its bits do not depend on the batch.
        """
        end = t + phi.shape[-2]
        x = np.asarray(phi, dtype=np.float64)
        with np.errstate(invalid="ignore", over="ignore"):  # infinite states give nan, which guards look for
            lean = np.vecdot(x, self.weights[t:end].astype(np.float64)) + self.offsets[t:end]
            return np.asarray(np.where(np.isfinite(x).all(axis=-1), expit(lean), np.nan))


def fit_whitened(harmless: States, harmful: States) -> Whitened:
    """From states of harmless prompts that were answered and of harmful ones that were refused, step by step.

    How steep sigma is, and where its middle lies, is read off answers that a direction was not fitted on (:data:`FOLDS`
    folds): on its own answers a direction in many dimensions looks far better than on new ones. The log odds are those
    of two normal distributions with the new answers' means and common variance, cut at :data:`STEEPEST`: at a step that
    knows nothing, sigma is .5. With fewer than ``FOLDS`` answers a side it is .9 and .1 at the anchors themselves.
    """
    steps = harmless.shape[1]
    weights = np.empty((steps, harmless.shape[2]), dtype=np.float32)
    offsets = np.empty(steps)
    for t in range(steps):
        good, bad = (np.asarray(side[:, t], dtype=np.float64) for side in (harmless, harmful))
        direction = discriminant(good, bad)
        steep, middle = _of_new_answers(good, bad)
        weights[t] = direction * steep
        offsets[t] = -np.vecdot(weights[t].astype(np.float64), bad.mean(axis=0)) - middle * steep
    return Whitened(weights, offsets)


def discriminant(
    good: Float[NDArray[np.float64], "n d"], bad: Float[NDArray[np.float64], "m d"]
) -> Float[NDArray[np.float64], "d"]:
    """C^-1 (mean of good - mean of bad), of the length that takes one mean to the other by 1; zeros if they agree."""
    centres = good.mean(axis=0), bad.mean(axis=0)
    away = centres[0] - centres[1]
    x = np.concatenate([good - centres[0], bad - centres[1]])
    n, d = x.shape
    inner = x @ x.T  # n x n: all that is needed of the covariance
    share, size = shrinkage(inner, d)
    if size <= 0:  # one answer a side: no scatter is known
        direction = away
    elif share >= 1:
        direction = away / size
    else:  # (a I + c x'x)^-1, by the matrix inversion lemma
        a, c = share * size, (1 - share) / n
        direction = (away - x.T @ np.linalg.solve(np.eye(n) / c + inner / a, x @ away / a)) / a
    length = float(direction @ away)
    return direction / length if length > 0 else np.zeros(d)


def shrinkage(inner: Float[NDArray[np.float64], "n n"], d: int) -> tuple[float, float]:
    """How much of the identity there is in the shrunk covariance of n centred rows in d dimensions, in (0, 1], and the
    mean variance, from the rows' inner products (Ledoit and Wolf 2004, lemmas 3.2 to 3.4).
    """
    n = len(inner)
    squares = np.diagonal(inner)
    size = float(squares.sum()) / n / d
    norm = float((inner**2).sum()) / n**2
    spread = norm / d - size**2
    error = (float((squares**2).sum()) / n - norm) / n / d
    if spread <= 0:
        return 1.0, size
    return float(np.clip(error / spread, 1e-6, 1.0)), size


def _of_new_answers(
    good: Float[NDArray[np.float64], "n d"], bad: Float[NDArray[np.float64], "m d"]
) -> tuple[float, float]:
    """How fast the log odds rise, and where they are 0, along directions for answers that these were fitted without;
    counted from the harmful anchor, with the harmless one at 1.
    """
    if min(len(good), len(bad)) < FOLDS:
        return STEEPEST, 0.5
    places: tuple[list[float], list[float]] = ([], [])
    for fold in range(FOLDS):
        out_good, out_bad = (np.arange(len(side)) % FOLDS == fold for side in (good, bad))
        direction = discriminant(good[~out_good], bad[~out_bad])
        origin = bad[~out_bad].mean(axis=0)
        for stands, held_out in zip(places, (good[out_good], bad[out_bad]), strict=True):
            stands.extend(((held_out - origin) @ direction).tolist())
    at_good, at_bad = (float(np.mean(stands)) for stands in places)
    gap = at_good - at_bad
    squares = sum(float(((np.asarray(stands) - np.mean(stands)) ** 2).sum()) for stands in places)
    variance = squares / (len(good) + len(bad) - 2)
    if gap <= 0:
        return 0.0, 0.5
    return min(STEEPEST / gap, gap / variance if variance > 0 else np.inf), (at_good + at_bad) / 2
