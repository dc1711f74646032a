"""Scores of how a signal or a state goes along, fitted on harmless paths alone. Arrays in, arrays out: nothing here
knows of rivals, models or sets.

A path is one generation: T values of a signal, or T pooled states of d numbers. Scores are one number a path, higher
for what is unlike the harmless ones, and each path is scored by itself.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray

from demur.signals.whitened import Whitened, fit_whitened, turned

Signals = Float[NDArray[np.float64], "n T"]
States = Float[NDArray[np.float32], "n T d"]
Scores = Float[NDArray[np.float64], "n"]
WIDTH = 4
"""Steps of a window."""
COMPONENTS = 6
HIDDEN = 4
ROUNDS = 30
_LEAST_VARIANCE = 1e-2
"""Of what has variance 1: no hidden state is narrower."""


def windows(x: Float[NDArray[np.float64], "n T ..."], width: int = WIDTH) -> Float[NDArray[np.float64], "n k ..."]:
    """Means of successive windows of steps, none overlapping another; the last one is cut at T."""
    begins = range(0, x.shape[1], width)
    return np.stack([x[:, begin : begin + width].mean(axis=1) for begin in begins], axis=1)


def rolling(sigma: Signals, width: int = WIDTH) -> Float[NDArray[np.float64], "n k"]:
    """Means of all windows of ``width`` steps (of T, if that is less)."""
    seen = np.lib.stride_tricks.sliding_window_view(sigma, min(width, sigma.shape[1]), axis=1)
    return np.asarray(seen.mean(axis=-1))


# ---------------------------------------------------------------------------------------------------------------------
# How segments of an answer agree


def in_white(read: Whitened, phi: States) -> Float[NDArray[np.float64], "n T d"]:
    """Whitened states, seen from the middle between both anchors: one for all steps, since a middle that moves would
    move what stands still.
    """
    x = np.asarray(phi, dtype=np.float64) - read.middle.mean(axis=0)
    return turned(x, read.loud.astype(np.float64), read.turned_down)


def turns(read: Whitened, phi: States) -> Float[NDArray[np.float64], "n k"]:
    """1 - cosine between the mean states of successive windows: 0 where an answer goes on as it went, up to 2."""
    means = windows(in_white(read, phi))
    before, after = means[:, :-1], means[:, 1:]
    length = np.sqrt(np.vecdot(before, before) * np.vecdot(after, after))
    return np.asarray(1.0 - np.vecdot(before, after) / np.where(length > 0, length, 1.0))


def jumps(read: Whitened, phi: States) -> Float[NDArray[np.float64], "n k"]:
    """Euclidean distances between the mean states of successive windows."""
    moved = np.diff(windows(in_white(read, phi)), axis=1)
    return np.asarray(np.sqrt(np.vecdot(moved, moved)))


def fit_segments(
    harmless: States,
    harmful: States,
    fit: States,
    of: Callable[[Whitened, States], Float[NDArray[np.float64], "n k"]],
    read_off: Callable[[Float[NDArray[np.float64], "n k"]], Scores],
) -> Callable[[States], Scores]:
    """Anchor answers whiten; ``of`` (:func:`turns`, :func:`jumps`) is standardised, window by window, by what harmless
    answers to fit on have there, since pooled states move more at first; ``read_off`` makes one number of it.

    0 for every path of one window.
    """
    read = fit_whitened(harmless, harmful)
    known = of(read, fit)
    centre, scale = known.mean(axis=0), known.std(axis=0) + 1e-9

    def score(phi: States) -> Scores:
        found = (of(read, phi) - centre) / scale
        return read_off(found) if found.shape[1] else np.zeros(len(phi))

    return score


# ---------------------------------------------------------------------------------------------------------------------
# A hidden Markov model of harmless paths


@dataclass(frozen=True, eq=False)
class HiddenMarkov:
    """A hidden Markov model with Gaussian emissions of diagonal covariance (Rabiner 1989), fitted by EM."""

    start: Float[NDArray[np.float64], "h"]
    move: Float[NDArray[np.float64], "h h"]
    centre: Float[NDArray[np.float64], "h f"]
    variance: Float[NDArray[np.float64], "h f"]

    @classmethod
    def fit(
        cls, x: Float[NDArray[np.float64], "n T f"], hidden: int = HIDDEN, *, seed: int = 0, rounds: int = ROUNDS
    ) -> HiddenMarkov:
        """From paths of one length. Begins at the means of k-means; moves and starts have one pseudo-count each, and
        variances a floor, so that a state that is rare does not shrink to a point.
        """
        from sklearn.cluster import KMeans

        flat = x.reshape(-1, x.shape[-1])
        near = KMeans(hidden, n_init=1, random_state=seed).fit_predict(flat)
        weight = np.eye(hidden)[near].reshape(*x.shape[:2], hidden)
        pairs = np.einsum("nti,ntj->ij", weight[:, :-1], weight[:, 1:])
        model = cls._of_counts(x, weight, pairs)
        for _ in range(rounds):
            model = cls._of_counts(x, *model._expected(x)[:2])
        return model

    @classmethod
    def _of_counts(
        cls,
        x: Float[NDArray[np.float64], "n T f"],
        weight: Float[NDArray[np.float64], "n T h"],
        pairs: Float[NDArray[np.float64], "h h"],
    ) -> HiddenMarkov:
        """The M step: from how much of each step every hidden state has, and how often each follows each."""
        total = weight.sum(axis=(0, 1))[:, None] + 1e-9
        centre = np.einsum("nth,ntf->hf", weight, x) / total
        variance = np.einsum("nth,ntf->hf", weight, x**2) / total - centre**2
        start, move = weight[:, 0].sum(axis=0) + 1.0, pairs + 1.0
        return cls(
            start / start.sum(), move / move.sum(axis=1, keepdims=True), centre, np.maximum(variance, _LEAST_VARIANCE)
        )

    def _emitted(self, x: Float[NDArray[np.float64], "n T f"]) -> Float[NDArray[np.float64], "n T h"]:
        """Log densities."""
        off = (x[:, :, None] - self.centre) ** 2 / self.variance + np.log(2 * np.pi * self.variance)
        return np.asarray(-0.5 * off.sum(axis=-1))

    def _forward(
        self, x: Float[NDArray[np.float64], "n T f"]
    ) -> tuple[
        Float[NDArray[np.float64], "n T h"], Float[NDArray[np.float64], "n T h"], Float[NDArray[np.float64], "n"]
    ]:
        """Scaled densities of each step, filtered shares of the hidden states, and the log likelihood of each path."""
        log = self._emitted(x)
        highest = log.max(axis=-1, keepdims=True)
        dense = np.exp(log - highest)
        shares, total = np.empty_like(dense), highest.sum(axis=(1, 2))
        before = np.broadcast_to(self.start, dense[:, 0].shape)
        for t in range(x.shape[1]):
            here = before * dense[:, t]
            size = here.sum(axis=1, keepdims=True)
            shares[:, t] = here / size
            total = total + np.log(size[:, 0])
            before = np.vecmat(shares[:, t], self.move)
        return dense, shares, total

    def _expected(
        self, x: Float[NDArray[np.float64], "n T f"]
    ) -> tuple[Float[NDArray[np.float64], "n T h"], Float[NDArray[np.float64], "h h"], float]:
        """The E step: shares of the hidden states given whole paths, expected moves, and the log likelihood."""
        dense, shares, total = self._forward(x)
        weight, pairs = shares.copy(), np.zeros_like(self.move)
        ahead = np.ones_like(dense[:, 0])
        for t in range(x.shape[1] - 2, -1, -1):
            ahead = dense[:, t + 1] * ahead
            pair = shares[:, t, :, None] * self.move * ahead[:, None]
            pair /= pair.sum(axis=(1, 2), keepdims=True)
            pairs += pair.sum(axis=0)
            weight[:, t] = pair.sum(axis=2)
            ahead = np.matvec(self.move, ahead)
            ahead = ahead / ahead.sum(axis=1, keepdims=True)
        return weight, pairs, float(total.sum())

    def log_likelihood(self, x: Float[NDArray[np.float64], "n T f"]) -> Scores:
        """Of each path, whole."""
        return self._forward(x)[2]


def fit_markov(harmless: States, seed: int = 0) -> Callable[[States], Scores]:
    """A path's negative log likelihood per step under a hidden Markov model of harmless paths.

    What the model sees of a state: its first principal components among harmless states of all steps, each of variance
    1, and the logarithm of what they leave over, standardised: an odd state may be odd where harmless ones hardly vary.
    """
    flat = np.asarray(harmless, dtype=np.float64).reshape(-1, harmless.shape[-1])
    middle = flat.mean(axis=0)
    kept = min(COMPONENTS, flat.shape[1], len(flat))
    values, vectors = np.linalg.eigh((flat - middle).T @ (flat - middle) / len(flat))
    directions = vectors[:, ::-1][:, :kept].T
    size = np.sqrt(np.maximum(values[::-1][:kept], 1e-12 * max(float(values[-1]), 1e-300)))

    def seen(phi: States) -> Float[NDArray[np.float64], "n T f"]:
        x = np.asarray(phi, dtype=np.float64) - middle
        along = np.matvec(directions, x)
        left = np.maximum(np.vecdot(x, x) - np.vecdot(along, along), 0.0) + 1e-12
        return np.concatenate([along / size, np.log(left)[..., None]], axis=-1)

    known = seen(harmless)
    centre, scale = known.mean(axis=(0, 1)), known.std(axis=(0, 1)) + 1e-9
    model = HiddenMarkov.fit((known - centre) / scale, seed=seed)
    return lambda phi: -model.log_likelihood((seen(phi) - centre) / scale) / phi.shape[1]


# ---------------------------------------------------------------------------------------------------------------------
# Several scores as one


def fit_sum(*known: Scores) -> Callable[..., Scores]:
    """The sum of several scores, each standardised by what harmless answers have (``known``, one array a score)."""
    of = [(scores.mean(), scores.std() + 1e-9) for scores in known]
    return lambda *scores: np.sum([(x - m) / s for x, (m, s) in zip(scores, of, strict=True)], axis=0)
