"""The whitened signal: where a step's state stands between answers to harmless and answers to harmful requests, once
what varies within either kind is turned down. Arrays in, arrays out: no torch.

The paper's sigma compares cosines to two anchors, taken from zero. A loud direction that has nothing to do with
refusing (the length of a prompt, its subject, its form) weighs there as much as any other, and so the wording of the
anchors' prompts decides. Three things differ here:

- states are seen from the middle between the two anchors of their step;
- they are whitened by C, the covariance within the two kinds of anchor answers at all steps together, shrunk towards a
  multiple of the identity (as Ledoit and Wolf 2004, with a fixed share), in its :data:`LOUD` loudest directions;
- the harmful anchor is the mean of *every* answer to a harmful request, refused or not. With refusals alone, a
  direction finds the words of refusing, which a jailbroken answer lacks.

The two anchors then lie on opposite sides of the middle, and one cosine c says all: the cosine distances to both are
1 - c and 1 + c, and the log of their ratio, which the paper's sigma is made of, is 2 artanh(c). It is fitted on the
anchor answers alone. docs/decisions/0015-whitened.md has the measurements.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from numpy.typing import NDArray
from scipy.linalg import eigh
from scipy.special import expit

SHARE = 0.3
"""How much of the shrunk covariance is the identity times the mean variance."""
LOUD = 128
"""So many directions are turned down; the others are taken to vary alike."""
STEEPEST = 2.0 * float(np.log(9.0))
"""From the mean of new harmful answers to that of new harmless ones, the log odds rise by this much at most: sigma .1
to .9, so that it does not saturate.
"""
HARMFUL = 2
"""Harmful prompts to one harmless where nobody says how many. Every answer to them counts, refused or not, so they vary
more than harmless ones do: of the two, theirs is the number that decides what is caught.
"""
FOLDS = 5
INSIDE = 1.0 - 1e-9
"""No cosine is further from 0: artanh of 1 is infinite."""
States = Float[NDArray[np.float32], "n T d"]


@dataclass(frozen=True, eq=False)
class Whitened:
    """What reads the states of T steps. Saved with the anchors that it is part of.

    ``middle``: between both anchors of a step. ``away``: the whitened direction from the harmful to the harmless
    anchor, of length 1. ``loud`` are orthonormal directions, and ``turned_down`` the share of each that is taken out.
    ``steep`` and ``offset`` take artanh(c) to log odds, step by step.
    """

    middle: Float[NDArray[np.float32], "T d"]
    away: Float[NDArray[np.float32], "T d"]
    loud: Float[NDArray[np.float32], "r d"]
    turned_down: Float[NDArray[np.float64], "r"]
    steep: Float[NDArray[np.float64], "T"]
    offset: Float[NDArray[np.float64], "T"]

    def __call__(self, phi: Float[NDArray[Any], "... k d"], t: int = 0) -> Float[NDArray[np.float64], "... k"]:
        """sigma in [0, 1] of k steps from step t on (counted from 0): near 1 as answers to harmless requests, near 0 as
        those to harmful ones; nan for a state that is not finite.

        Computed in float64, each row by itself: its bits do not depend on the batch.
        """
        return self.each(phi, slice(t, t + phi.shape[-2]))

    def each(
        self, phi: Float[NDArray[Any], "... k d"], steps: slice | Int[NDArray[np.int64], "k"]
    ) -> Float[NDArray[np.float64], "... k"]:
        """The same of k states, each at a step of its own."""
        return self.sigma_of(*products(phi, self.middle[steps], self._seen[steps], self._loud, self._taken), steps)

    def sigma_of(
        self,
        along: Float[NDArray[np.float64], "... k"],
        square: Float[NDArray[np.float64], "... k"],
        taken_out: Float[NDArray[np.float64], "... k"],
        steps: slice | Int[NDArray[np.int64], "k"],
    ) -> Float[NDArray[np.float64], "... k"]:
        """sigma from the :func:`products` of states at these steps (counted from 0)."""
        return np.asarray(expit(self.steep[steps] * artanh(cosine_of(along, square, taken_out)) + self.offset[steps]))

    @property
    def tables(self) -> tuple[NDArray[Any], ...]:
        """What :func:`products` are taken with."""
        return self.middle, self._seen, self._loud, self._taken

    @property
    def arrays(self) -> dict[str, NDArray[Any]]:
        """What a file holds of it."""
        return {f"whitened_{field.name}": getattr(self, field.name) for field in fields(self)}

    @classmethod
    def of(cls, arrays: Mapping[str, NDArray[Any]]) -> Whitened:
        """From :attr:`arrays`, among others."""
        return cls(**{field.name: arrays[f"whitened_{field.name}"] for field in fields(cls)})

    @staticmethod
    def shapes(steps: int, d: int, r: int) -> dict[str, tuple[int, ...]]:
        """The shape of each of :attr:`arrays`."""
        known: dict[str, tuple[int, ...]] = {"middle": (steps, d), "away": (steps, d), "loud": (r, d)}
        known |= {"turned_down": (r,), "steep": (steps,), "offset": (steps,)}
        return {f"whitened_{name}": shape for name, shape in known.items()}

    @cached_property
    def _loud(self) -> Float[NDArray[np.float64], "r d"]:
        return self.loud.astype(np.float64)

    @cached_property
    def _seen(self) -> Float[NDArray[np.float64], "T d"]:
        return turned(self.away.astype(np.float64), self._loud, self.turned_down)

    @cached_property
    def _taken(self) -> Float[NDArray[np.float64], "r"]:
        return taken_of(self.turned_down)


def turned(
    x: Float[NDArray[np.float64], "... d"],
    loud: Float[NDArray[np.float64], "r d"],
    turned_down: Float[NDArray[np.float64], "r"],
) -> Float[NDArray[np.float64], "... d"]:
    """x whitened: with its part in the loud directions turned down. The map is symmetric."""
    return np.asarray(x - np.vecmat(np.matvec(loud, x) * turned_down, loud)) if len(loud) else x


def products(
    phi: Float[NDArray[Any], "... k d"],
    middle: Float[NDArray[np.float32], "k d"],
    seen: Float[NDArray[np.float64], "k d"],
    loud: Float[NDArray[np.float64], "r d"],
    taken: Float[NDArray[np.float64], "r"],
) -> tuple[
    Float[NDArray[np.float64], "... k"], Float[NDArray[np.float64], "... k"], Float[NDArray[np.float64], "... k"]
]:
    """All that is to be known of a state x, seen from the middle: x along the direction whose whitened form is whitened
    once more in ``seen``; the square of its length; and how much of that whitening takes out (``taken``:
    :func:`taken_of`). nan for a state that is not finite.

    Nothing is whitened here. W is symmetric, so (W x) . a is x . (W a); and W x is shorter than x by what was taken out
    of its loud parts.
    """
    x = np.asarray(phi, dtype=np.float64) - middle
    with np.errstate(over="ignore") if phi.dtype != np.float32 else nullcontext():
        square = np.vecdot(x, x)
    if not (known := np.isfinite(square)).all():  # nan is what guards look for, and it multiplies without a warning
        x, square = np.where(known[..., None], x, np.nan), np.where(known, square, np.nan)
    parts = np.matvec(loud, x) if len(loud) else x[..., :0]
    return np.vecdot(x, seen), square, np.vecdot(np.square(parts), taken)


def taken_of(turned_down: Float[NDArray[np.float64], "r"]) -> Float[NDArray[np.float64], "r"]:
    """By how much whitening shortens each loud part, squared: it keeps the share 1 - turned_down."""
    return np.asarray(1.0 - np.square(1.0 - turned_down))


def cosine_of(
    along: Float[NDArray[np.float64], "..."],
    square: Float[NDArray[np.float64], "..."],
    taken_out: Float[NDArray[np.float64], "..."],
) -> Float[NDArray[np.float64], "..."]:
    """The cosine in the whitened space, from :func:`products`; 0 for a state that is the middle."""
    length = np.sqrt(np.maximum(square - taken_out, 0.0))
    return np.asarray(along / (length + (length == 0)))


def artanh(cosine: Float[NDArray[np.float64], "..."]) -> Float[NDArray[np.float64], "..."]:
    """Half the log of the ratio of both cosine distances."""
    return np.asarray(np.arctanh(np.minimum(np.maximum(cosine, -INSIDE), INSIDE)))


def fit_whitened(harmless: States, harmful: States) -> Whitened:
    """From states of answers to harmless requests and of answers to harmful ones, step by step.

    How steep sigma is, and where its middle lies, is read off answers that a direction was not fitted on (:data:`FOLDS`
    folds): on its own answers a direction in many dimensions looks far better than on new ones. The log odds are those
    of two normal distributions with the new answers' means and common variance, cut at :data:`STEEPEST`: at a step that
    knows nothing, sigma is .5. With fewer than ``FOLDS`` answers a side they are read off the anchors' own.
    """
    good, bad = (np.asarray(side, dtype=np.float64) for side in (harmless, harmful))
    found, turned_down = loudest(np.concatenate([side - side.mean(axis=0) for side in (good, bad)]))
    kept = found.astype(np.float32)  # what a file holds is what is read by
    loud = kept.astype(np.float64)
    middle, away = _directions(good, bad, loud, turned_down)
    steep, offset = _of_new_answers(good, bad, loud, turned_down)
    return Whitened(middle, away, kept, turned_down, steep, offset)


def loudest(
    scatter: Float[NDArray[np.float64], "n T d"],
) -> tuple[Float[NDArray[np.float64], "r d"], Float[NDArray[np.float64], "r"]]:
    """The loudest directions of centred states of all steps together, and how much of each whitening takes out:
    1 - sqrt(a / (a + v)), where a is the identity's part of the shrunk covariance and v the direction's own.
    """
    rows = scatter.reshape(-1, scatter.shape[-1])
    n, d = rows.shape
    size = float(np.vecdot(rows, rows).sum()) / n / d
    if size <= 0:  # one answer a side
        return np.empty((0, d)), np.empty(0)
    r = min(LOUD, d, n)
    if n < d:
        values, vectors = eigh(rows @ rows.T / n, subset_by_index=(n - r, n - 1))
        known = values > 1e-9 * values[-1]
        values = values[known]
        directions = (vectors[:, known].T @ rows) / np.sqrt(n * values)[:, None]
    else:
        values, vectors = eigh(rows.T @ rows / n, subset_by_index=(d - r, d - 1))
        directions = vectors.T
    own, rest = (1 - SHARE) * np.maximum(values, 0.0), SHARE * size
    return directions, 1.0 - np.sqrt(rest / (rest + own))


def _directions(
    good: Float[NDArray[np.float64], "n T d"],
    bad: Float[NDArray[np.float64], "m T d"],
    loud: Float[NDArray[np.float64], "r d"],
    turned_down: Float[NDArray[np.float64], "r"],
) -> tuple[Float[NDArray[np.float32], "T d"], Float[NDArray[np.float32], "T d"]]:
    """The middle and the whitened direction of every step; zeros where both anchors agree."""
    means = good.mean(axis=0), bad.mean(axis=0)
    away = turned(means[0] - means[1], loud, turned_down)
    length = np.sqrt(np.vecdot(away, away))[:, None]
    away = away / np.where(length > 0, length, 1.0)
    return ((means[0] + means[1]) / 2).astype(np.float32), away.astype(np.float32)


def _of_new_answers(
    good: Float[NDArray[np.float64], "n T d"],
    bad: Float[NDArray[np.float64], "m T d"],
    loud: Float[NDArray[np.float64], "r d"],
    turned_down: Float[NDArray[np.float64], "r"],
) -> tuple[Float[NDArray[np.float64], "T"], Float[NDArray[np.float64], "T"]]:
    """What takes artanh(c) to log odds, from answers that anchors were fitted without."""
    folds = FOLDS if min(len(good), len(bad)) >= FOLDS else 1
    leans = np.empty((len(good), good.shape[1])), np.empty((len(bad), bad.shape[1]))
    for fold in range(folds):
        out = [np.arange(len(side)) % folds == fold for side in (good, bad)]
        kept = [side[~left_out] if folds > 1 else side for side, left_out in zip((good, bad), out, strict=True)]
        middle, away = _directions(kept[0], kept[1], loud, turned_down)
        seen = turned(away.astype(np.float64), loud, turned_down)
        for lean, side, left_out in zip(leans, (good, bad), out, strict=True):
            lean[left_out] = artanh(cosine_of(*products(side[left_out], middle, seen, loud, taken_of(turned_down))))
    at_good, at_bad = (lean.mean(axis=0) for lean in leans)
    gap = at_good - at_bad
    freedom = max(len(good) + len(bad) - 2, 1)
    variance = sum(((lean - lean.mean(axis=0)) ** 2).sum(axis=0) for lean in leans) / freedom
    with np.errstate(divide="ignore", invalid="ignore"):
        steep = np.where(gap > 0, np.fmin(STEEPEST / gap, gap / variance), 0.0)
    return steep, -steep * (at_good + at_bad) / 2
