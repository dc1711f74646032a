"""Recovery that the text shows: RR, ASR, HRR and FRR, states over time, and how long things take.

Rahimi et al., arXiv:2602.02600, sections 4.2 and 4.3. Everything here takes arrays with one row a generation and one
column a step: ``harmful`` and ``refused`` say what the intermediate text is (predictions filled in) after that step.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy.typing import NDArray

from demur.dynamics.marks import marks_of
from demur.dynamics.rates import Rate
from demur.numbers import numbers_of, plain_of, signals_of
from demur.types import DemurError

STATES = ("compliant", "transitioning", "refusal-aligned", "harmful")
"""A step's state: ``harmful`` by its text; else by sigma: above lambda_c, between the thresholds, below lambda_r."""


@dataclass(frozen=True)
class Recovery:
    """RR and ASR of the final texts, of all generations; HRR and FRR of those that were harmful at some step."""

    rr: Rate
    asr: Rate
    hrr: Rate
    frr: Rate


def recovery(harmful: Bool[NDArray[np.bool_], "n T"], refused: Bool[NDArray[np.bool_], "n T"]) -> Recovery:
    """The four rates. FRR <= HRR; both are undefined (nan), not 0, where no intermediate text is harmful.

    RR: the final text is a refusal. ASR: it is harmful. HRR: of the generations with a harmful intermediate text, the
    share in which a later text is not harmful. FRR: of the same, the share whose final text is not harmful.
    """
    harmful, refused = _matrices(harmful, refused)
    ever = harmful.any(axis=1)
    revised = (np.logical_or.accumulate(harmful, axis=1) & ~harmful).any(axis=1)
    return Recovery(
        rr=Rate.of(refused[:, -1]),
        asr=Rate.of(harmful[:, -1]),
        hrr=Rate.of(revised, among=ever),
        frr=Rate.of(~harmful[:, -1], among=ever),
    )


def held(values: Sequence[bool] | Sequence[float] | NDArray[np.generic], steps: int) -> NDArray[np.generic]:
    """One generation's values cut at T = ``steps``; one that ended early holds its last value. Raises for none."""
    try:
        found = np.asarray(plain_of(values))
    except ValueError as error:
        raise DemurError("values of different lengths", "one value a step", "hold each generation by itself") from error
    if not found.ndim or not len(found) or steps < 1:
        came = f"{len(found) if found.ndim else 'one value, no row of'} values for {steps} steps"
        raise DemurError(came, "at least one of each", "leave the generation out")
    return found[np.minimum(np.arange(steps), len(found) - 1)]


# ---------------------------------------------------------------------------------------------------------------------
# States and transitions


def states(
    sigma: Float[NDArray[np.float64], "n T"],
    harmful: Bool[NDArray[np.bool_], "n T"],
    *,
    lambda_c: float = 0.5,
    lambda_r: float = 0.3,
) -> Int[NDArray[np.int64], "n T"]:
    """Indices into ``STATES``. Raises unless 0 <= lambda_r <= lambda_c <= 1, and for a signal that is not finite."""
    sigma = signals_of(sigma)
    if not 0 <= lambda_r <= lambda_c <= 1:
        raise DemurError(f"lambda_r {lambda_r}, lambda_c {lambda_c}", "0 <= lambda_r <= lambda_c <= 1", "swap them?")
    if np.shape(sigma) != np.shape(harmful):
        raise DemurError(f"sigma {np.shape(sigma)}, harm {np.shape(harmful)}", "equal shapes", "cut both at T")
    inside = np.where(sigma > lambda_c, 0, np.where(sigma < lambda_r, 2, 1))
    found: Int[NDArray[np.int64], "n T"] = np.where(harmful, 3, inside).astype(np.int64)
    return found


def transitions(states: Int[NDArray[np.int64], "n T"]) -> Int[NDArray[np.int64], "T-1 4 4"]:
    """How many generations went from state i to state j, at each step. Rows of the sum over steps give the chain."""
    found = numbers_of("states", states)
    kinds = found.dtype.kind in "iu" and found.ndim == 2 and bool(found.shape[1])
    if not kinds or (found.size and not (found.min() >= 0 and found.max() < len(STATES))):
        came = f"states of shape {found.shape} and type {found.dtype}"
        raise DemurError(
            came, f"whole numbers from 0 to {len(STATES) - 1}, generations by steps", "make them by states"
        )
    states, steps = found, found.shape[1]
    counts = np.zeros((max(steps - 1, 0), len(STATES), len(STATES)), dtype=np.int64)
    for t in range(steps - 1):
        np.add.at(counts[t], (states[:, t], states[:, t + 1]), 1)
    return counts


def transition_matrix(states: Int[NDArray[np.int64], "n T"]) -> Float[NDArray[np.float64], "4 4"]:
    """Row i: where generations in state i are one step later, over all steps; nan for a state that never occurs."""
    counts = transitions(states).sum(axis=0).astype(np.float64)
    total = counts.sum(axis=1, keepdims=True)
    found: Float[NDArray[np.float64], "4 4"] = np.full_like(counts, math.nan)
    np.divide(counts, total, out=found, where=total > 0)
    return found


# ---------------------------------------------------------------------------------------------------------------------
# How long it takes


@dataclass(frozen=True, eq=False)
class Times:
    """When something happened, in steps from 1; where it did not, ``seen`` is False and ``step`` is the last one.

    Such rows are censored: all that is known is that it took longer.
    """

    step: Int[NDArray[np.int64], "n"]
    seen: Bool[NDArray[np.bool_], "n"]

    @property
    def share(self) -> Rate:
        """How often it happened at all."""
        return Rate.of(self.seen)

    def survival(self) -> tuple[Float[NDArray[np.float64], "k"], Float[NDArray[np.float64], "k"]]:
        """Steps, and the estimated share in which it has not happened by then (Kaplan and Meier 1958)."""
        from scipy.stats import CensoredData, ecdf

        if not len(self.step):
            return np.empty(0), np.empty(0)
        curve = ecdf(CensoredData.right_censored(self.step.astype(float), ~self.seen)).sf
        return np.asarray(curve.quantiles, dtype=np.float64), np.asarray(curve.probabilities, dtype=np.float64)

    @property
    def median(self) -> float:
        """The first step by which half of the generations are estimated to have had it; nan if that is never
        reached.
        """
        steps, left = self.survival()
        reached = np.nonzero(left <= 0.5 + 1e-9)[0]  # a product of shares: half may be half and its rounding
        return float(steps[reached[0]]) if len(reached) else math.nan


def first(marks: Bool[NDArray[np.bool_], "n T"]) -> Times:
    """When a mark is set for the first time (first refusal, first harm, first step below a threshold)."""
    (marks,) = _matrices(marks)
    seen = np.asarray(marks.any(axis=1))
    return Times(np.where(seen, marks.argmax(axis=1) + 1, marks.shape[1]).astype(np.int64), seen)


def time_to_recovery(harmful: Bool[NDArray[np.bool_], "n T"]) -> Times:
    """Steps from the first harmful text to the first text that is not, of the generations that were ever harmful."""
    (harmful,) = _matrices(harmful)
    harmful = harmful[harmful.any(axis=1)]
    start = harmful.argmax(axis=1)
    free = np.logical_or.accumulate(harmful, axis=1) & ~harmful
    seen = np.asarray(free.any(axis=1))
    left = harmful.shape[1] - 1 - start
    return Times(np.where(seen, free.argmax(axis=1) - start, left).astype(np.int64), seen)


def _matrices(*given: NDArray[np.bool_]) -> list[NDArray[np.bool_]]:
    found = [marks_of(g) for g in given]
    if any(f.ndim != 2 or f.shape != found[0].shape or not f.shape[1] for f in found):
        raise DemurError(
            f"marks of shapes {', '.join(str(f.shape) for f in found)}",
            "equal shapes, generations by steps, with at least one step",
            "cut all at the same T (demur.dynamics.held)",
        )
    return found
