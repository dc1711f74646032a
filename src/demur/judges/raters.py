"""How far two judges agree, beyond chance."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from demur.dynamics.rates import in_percent
from demur.types import DemurError, Verdict


@dataclass(frozen=True)
class Agreement:
    """Two judges on the same texts.

    ``kappa`` is Cohen's (Cohen 1960) in [-1, 1], 0 is chance; nan where it is undefined: no pair, or both judges gave
    one and the same answer throughout. ``share`` in [0, 1] is how often they agree (nan without a pair). ``n`` pairs
    were compared; ``unscored`` pairs were left out since at least one judge could not judge.
    """

    kappa: float
    share: float
    n: int
    unscored: int

    def __str__(self) -> str:
        kappa = "undefined" if math.isnan(self.kappa) else f"{self.kappa:.2f}"
        share = "undefined" if math.isnan(self.share) else f"{in_percent(self.share)}%"
        return f"kappa {kappa}, agree {share} (n {self.n}, unscored {self.unscored})"


def agreement(first: Sequence[Verdict], second: Sequence[Verdict]) -> Agreement:
    """Agreement of two lists of verdicts on the same texts, in the same order. Raises for other lengths."""
    from sklearn.metrics import cohen_kappa_score

    if len(first) != len(second):
        raise DemurError(f"{len(first)} and {len(second)} verdicts", "one of each for every text", "pair them by text")
    pairs = [
        (a.flagged, b.flagged)
        for a, b in zip(first, second, strict=True)
        if a.flagged is not None and b.flagged is not None
    ]
    unscored = len(first) - len(pairs)
    if not pairs:
        return Agreement(math.nan, math.nan, 0, unscored)
    share = sum(a == b for a, b in pairs) / len(pairs)
    # With a single answer throughout, chance alone agrees always: kappa would be 0 / 0.
    one_answer = len({mark for pair in pairs for mark in pair}) == 1
    kappa = math.nan if one_answer else float(cohen_kappa_score(*zip(*pairs, strict=True)))
    return Agreement(kappa, share, len(pairs), unscored)
