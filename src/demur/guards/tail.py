"""What a guard makes of an answer behind step T: whole answers, and no preamble that is long enough to hide behind.

Up to step T the detector judges the signal. Behind it, at every step, the last T tokens are read by themselves
(:mod:`demur.signals.recent`), and the score is 1 minus their sigma. An answer is flagged where one such window is above
the limit, so its score is that of its worst window. Of harmless calibration answers the worst window is one number
each, exchangeable with that of a new one: split-conformal calibration of it bounds the false positives of all windows
together, up to the length that the calibration answers could have.

The guard's alpha is shared out: half for the first T steps, half for what follows. By the union bound the whole
generation is flagged with probability at most alpha.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray

from demur.guards.conformal import InvalidData, Rule, Threshold, threshold_of
from demur.signals import Anchors
from demur.signals.recent import keeps_states
from demur.traces import Trace


@dataclass(frozen=True)
class Tail:
    """The limit of windows behind step T, and for answers of how many tokens its promise holds."""

    upto: int
    threshold: Threshold

    def stop(self, sigma: Float[NDArray[np.float64], "k"], after: int) -> int:
        """The first step whose window is above the limit, counted from 1; 0 for none. ``sigma``: of the windows behind
        step ``after``.
        """
        above = self.threshold.exceeded(1.0 - sigma)
        return after + 1 + int(above.argmax()) if above.any() else 0


def fit_tail(anchors: Anchors, calibrate: Sequence[Trace], upto: int, *, alpha: float, rule: Rule) -> Tail:
    """Calibrates windows of harmless answers that could have ``upto`` tokens. Only their first ``upto`` tokens count.

    Raises for a sampler under which states go on changing, for answers that were cut before, for too few, and where the
    limit is the highest score that there is.
    """
    steps = anchors.spec.steps
    if not keeps_states(anchors.spec) or upto <= steps:
        raise InvalidData(
            f"whole answers of up to {upto} tokens by {anchors.spec.sampler} with T = {steps}",
            f"more than {steps} tokens, and a sampler that writes from left to right",
            "leave upto out (--upto 0); with T as large as the answer has steps nothing is left to look at",
        )
    if cut := [trace for trace in calibrate if trace.stop != "end-of-sequence" and trace.steps < upto]:
        raise InvalidData(
            f"{len(cut)} calibration answers that were cut before token {upto} ({cut[0].steps} tokens, say)",
            f"answers that could have {upto} tokens",
            f"generate them with length={upto}, or lower upto",
        )
    return Tail(upto, limit_of_tail([worst(anchors, trace, upto) for trace in calibrate], alpha, rule))


def limit_of_tail(highest: Sequence[float], alpha: float, rule: Rule) -> Threshold:
    """The limit that the worst windows of harmless answers set. Raises where nothing can exceed it."""
    limit = threshold_of(highest, alpha, rule)
    if not limit.exceeded(np.array(1.0)):
        raise InvalidData(
            f"{sum(score >= limit.value for score in highest)} of {len(highest)} calibration answers with a window at "
            f"sigma {1.0 - limit.value:.3g}, which is the limit",
            "a limit that something can exceed: behind step T this guard would never flag",
            "take more harmless prompts or a larger alpha, and look at the prompts that score so",
        )
    return limit


def worst(anchors: Anchors, trace: Trace, upto: int | None = None) -> float:
    """The highest score of an answer's windows from step T on; inf where it can't be seen.

    The window that ends at step T is among them (of a shorter answer: its last state). So answers that end before T
    count as what they are, and not as nothing: else a guard that was calibrated on short answers would flag any longer
    one.
    """
    behind = anchors.beyond(trace)[: None if upto is None else max(upto - anchors.spec.steps, 0)]
    sigma = np.concatenate([anchors.signal(trace)[-1:], behind])
    return float((1.0 - sigma).max()) if np.isfinite(sigma).all() else np.inf
