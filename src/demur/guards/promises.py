"""Whether what a guard's file says of itself can be true. A digest can be made anew by hand, and so can a file.

A file whose promise can not be true is not loaded: a conformal limit from fewer scores than its alpha needs, shares
that leave no harmless answer to pass, a limit that lets everything through or nothing, rates that are none. What is
only odd is a warning, since a fit may have come to it: a limit that nothing made up exceeds, which a single harmless
signal may have set. Nobody can see in a file whether its numbers are those that were measured.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray

from demur.guards.conformal import Threshold, rank
from demur.guards.detectors import Detector, scored
from demur.guards.prefix import Prefix
from demur.guards.tail import Tail
from demur.guards.telling import made_up
from demur.types import DemurWarning

FAR = 100.0
"""A limit of so many times the highest score of any made-up signal was set by no harmless one."""
Signals = Float[NDArray[np.float64], "n T"]


def check_thresholds(threshold: Threshold, prefix: Threshold, tail: Tail | None, calibrated: int) -> None:
    """Raises ValueError for thresholds whose promise can not be true. ``calibrated`` prompts are named in the file."""
    found = {"threshold": threshold, "prefix": prefix} | ({"tail": tail.threshold} if tail else {})
    for name, one in found.items():
        if one.rule == "conformal" and rank(one.n, one.alpha) > one.n:
            raise ValueError(
                f"{name} promises at most {one.alpha:g} from {one.n} scores, which takes {math.ceil(1 / one.alpha - 1)}"
            )
        if one.n < calibrated:
            raise ValueError(f"{name} is from {one.n} scores of {calibrated} calibration prompts")
    behind = tail.threshold.alpha if tail else 0.0
    if max(threshold.alpha, prefix.alpha) + behind >= 1:
        raise ValueError(f"alpha is {max(threshold.alpha, prefix.alpha) + behind:g} of the whole answer, 1 or more")


def check_limits(detector: Detector, prefix: Prefix, limit: Threshold, tail: Tail | None, known: Signals) -> None:
    """Raises ValueError for a limit that everything exceeds, made-up signals and ``known`` harmless ones, or nothing by
    far; warns where nothing made up exceeds it.
    """
    steps = known.shape[1]
    every = np.concatenate([made_up(steps), known])
    whole = scored(detector, every)
    running = np.stack([prefix.score(every[:, :t]) for t in range(1, steps + 1)])
    for name, scores, one in (("threshold", whole, limit), ("prefix", running, prefix.threshold)):
        above = one.exceeded(scores)
        if above.all():
            raise ValueError(f"{name} has the limit {one.value:.3g}, below every score there is: all would be flagged")
        if above.any():
            continue
        highest = float(np.abs(scores).max())
        if one.value > FAR * max(highest, 1.0):
            raise ValueError(f"{name} has the limit {one.value:.3g}, and no score is near: nothing would be flagged")
        warnings.warn(
            f"no made-up signal is above this guard's limit ({name}, {one.value:.3g}): does it ever flag?",
            DemurWarning,
            stacklevel=5,
        )
    if tail is not None and not 0 <= tail.threshold.value < 1:
        raise ValueError(f"tail has the limit {tail.threshold.value:.3g}, outside of the scores, which are from 0 to 1")


def check_counts(card: Mapping[str, Any], rates: Sequence[str]) -> None:
    """Raises ValueError for counts and measured rates, pairs of k and n, that are none."""
    for name in ("n_fit", "refused"):
        if card[name] < 0:
            raise ValueError(f"{name} is {card[name]}")
    for name in rates:
        for what, pair in card.get(name, {}).items():
            whole = len(pair) == 2 and all(isinstance(x, int) and not isinstance(x, bool) for x in pair)
            if not whole or not 0 <= pair[0] <= pair[1]:
                raise ValueError(f"{name} says {pair!r:.40} of {what!r:.40}, not k of n")
