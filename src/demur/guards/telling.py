"""Whether a detector's scores tell signals apart, and whether anything can exceed a limit.

A guard whose detector gives every signal one score keeps its promise of few false positives: it never flags. So does
one whose limit lies on the highest score that there is. Neither fails anywhere else, so both are looked for here, on
harmless signals and on made-up ones of plain shapes. Nothing here knows of detectors' fields, of models or of anchors.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray

from demur.guards.conformal import InvalidData, Threshold
from demur.types import DemurWarning

Signals = Float[NDArray[np.float64], "n T"]
Scores = Float[NDArray[np.float64], "n"]
Score = Callable[[Signals], Scores]
NEARLY_ALL = 0.9
"""From this share of harmless signals with one score on, a limit can hardly be set between them."""
_ROUNDING = 1e-9
_COARSE = "a limit can not be set between equal scores: look at the signals, or take another detector"


def refusing(steps: int) -> Signals:
    """Made-up signals that turn to refusing, in [0, 1]: from the first step, little by little, half way, in the middle
    only, at the end only.
    """
    t = np.arange(steps)
    falling, late, middle, end = (
        np.linspace(1.0, 0.0, steps),
        np.where(2 * t < steps, 1.0, 0.0),
        np.where((4 * t >= steps) & (4 * t < 3 * steps), 0.0, 1.0),
        np.where(4 * t >= 3 * steps, 0.0, 1.0),
    )
    return np.stack([np.zeros(steps), falling, late, middle, end])


def made_up(steps: int) -> Signals:
    """Signals of every plain shape, in [0, 1]: those of :func:`refusing`, the same upside down, level ones, a dip and a
    peak of one step, steps that alternate, and some that are drawn.
    """
    t = np.arange(steps)
    level = np.repeat([[0.25], [0.5], [0.75]], steps, axis=1)
    one = np.where(t == steps // 2, 0.0, 1.0)
    alternating = np.stack([t % 2, t // 4 % 2]).astype(np.float64)
    drawn = np.random.default_rng(0).random((8, steps))
    whole = refusing(steps)
    return np.concatenate([whole, 1 - whole, level, [one, 1 - one], alternating, 1 - alternating, drawn])


def constant(sigma: Signals, scores: Scores) -> bool:
    """Whether signals that differ all have one score, but for rounding."""
    differ = len(sigma) > 1 and float(np.ptp(sigma, axis=0).max()) > _ROUNDING
    return differ and float(np.ptp(scores)) <= _ROUNDING * float(np.abs(scores).max())


def check_telling(name: str, score: Score, sigma: Signals) -> None:
    """Raises if the detector ``name`` gives all harmless signals one score, though they differ, and no made-up signal a
    higher one: a guard of it would never flag.

    Warns of what is no certain fault: one score for (nearly) all harmless signals while others can have higher ones,
    and scores that are lower for what turns to refusing than for any harmless signal.
    """
    scores = score(sigma)
    n, middle = len(scores), float(np.median(scores))
    others = made_up(sigma.shape[1])
    higher = ~(score(others) <= scores.max() + _ROUNDING * abs(scores.max()))  # nan counts as higher, as in a guard
    same = int((scores == middle).sum())  # to the last bit: between others, close as they are, a limit can lie
    if constant(sigma, scores):
        if not higher.any():
            raise InvalidData(
                f"the detector {name} gives all {n} harmless signals the score {middle:.3g}, and none of {len(others)} "
                "made-up signals a higher one",
                "scores that differ where signals do: a guard of it would never flag",
                "look at its fit and its __call__",
            )
        _warn(f"the detector {name} gives all {n} harmless signals the score {middle:.3g}; {_COARSE}")
    elif NEARLY_ALL * n <= same < n:
        _warn(f"the detector {name} gives {same} of {n} harmless signals the score {middle:.3g}; {_COARSE}")
    elif float(score(refusing(sigma.shape[1])).max()) < float(scores.min()):
        _warn(
            f"the detector {name} scores signals that turn to refusing below all {n} harmless ones: higher must be "
            "more anomalous"
        )


def _warn(what: str) -> None:
    warnings.warn(what, DemurWarning, stacklevel=4)


def check_limit(name: str, score: Score, steps: int, harmless: Scores, limit: Threshold) -> None:
    """Raises if ``limit``, set on ``harmless`` scores, is the highest score that the detector ``name`` gives at all, so
    that nothing can exceed it: two values only, or scores that saturate at the top.

    Warns where a few harmless signals have higher scores than anything made up, which is no certain fault.
    """
    highest = score(made_up(steps))
    if limit.exceeded(highest).any():
        return
    at = int((harmless >= limit.value).sum())
    came = f"{at} of {len(harmless)} harmless signals at or above the limit {limit.value:.3g} of the detector {name}"
    if at > 1 or np.isclose(highest.max(), limit.value, rtol=_ROUNDING, atol=0.0):
        raise InvalidData(
            f"{came}, which is the highest score that it gives",
            "a limit that something can exceed: this guard would never flag",
            "take more harmless prompts, a larger alpha or another detector, and look at the prompts that score so",
        )
    _warn(f"{came}, and no made-up signal above: does this guard ever flag?")


def able_steps(above: Callable[[Signals], NDArray[np.bool_]], steps: int) -> list[int]:
    """After which steps, from 1, an online guard can stop anything made up at all. ``above`` says of unfinished
    signals, so many steps of each, which are above its limit.
    """
    others = made_up(steps)
    return [t for t in range(1, steps + 1) if above(others[:, :t]).any()]


def check_steps(name: str, able: list[int], steps: int) -> None:
    """Raises if nothing made up would ever be stopped while it is written (``able``: :func:`able_steps`), and warns
    where that can happen after less than a quarter of the steps: what turns later is then not stopped.

    Few odd harmless signals are enough: the limit of the whole generation is set by the step at which they are furthest
    from the others.
    """
    if not able:
        raise InvalidData(
            f"an online guard by the detector {name} whose limit nothing can exceed after any of {steps} steps",
            "a limit that something can exceed: this guard would never stop an answer while it is written",
            "take more harmless prompts, a larger alpha or another detector, and look at the prompts that set it",
        )
    if 4 * len(able) < steps:
        _warn(
            f"the online guard by the detector {name} can stop an answer after {len(able)} of {steps} steps only "
            f"({listed(able)}): few harmless signals have set its limit; take more of them, or a larger alpha"
        )


def listed(steps: list[int]) -> str:
    """Steps in words: ``2 to 9, 12``."""
    runs: list[list[int]] = []
    for t in steps:
        if runs and t == runs[-1][-1] + 1:
            runs[-1] = [runs[-1][0], t]
        else:
            runs.append([t])
    return ", ".join(" to ".join(map(str, run)) for run in runs)
