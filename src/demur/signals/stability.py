"""How far a signal depends on the anchors' prompts: anchors of other prompts of the same sets, and what they change.

Anchors are fitted again on halves of the answers, and the other half is told apart by them. Halves are drawn at random,
and by kind: all prompts of a category stand on one side, so that anchors meet subjects that they have not seen. What
moves little between random halves, and much between kinds, hangs on the wording of the prompts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float
from numpy.typing import NDArray

from demur.signals.anchors import SignalName
from demur.signals.sigma import refusal_signal
from demur.signals.whitened import fit_whitened
from demur.traces import Trace
from demur.types import DemurError, Layer, Pool

DRAWS = 10
_STEPS = 8
"""So many of the T steps are looked at, the last among them."""
LEAST = 8
"""Fewer answers a side than this can not be halved."""
UNSTEADY = 0.1
"""A spread of the TPR above this is said wherever the anchors are used."""
States = Float[NDArray[np.float32], "n T d"]


@dataclass(frozen=True)
class Spread:
    """What ten anchor sets gave on the answers that they had not seen.

    ``area`` and ``tpr`` (at 5% false positives) tell harmful prompts' answers from harmless ones' by the mean of sigma:
    means, and standard deviations over the sets. ``sigma`` is how far a harmless answer's mean sigma moves from set to
    set (standard deviation, mean over answers).
    """

    sets: int
    area: float
    area_spread: float
    tpr: float
    tpr_spread: float
    sigma: float

    def __str__(self) -> str:
        return (
            f"TPR at 5% {self.tpr:.2f} (spread {self.tpr_spread:.2f}), area {self.area:.3f} "
            f"({self.area_spread:.3f}), sigma moves by {self.sigma:.3f}"
        )


@dataclass(frozen=True)
class Stability:
    """Between random halves of the anchors' prompts, and between halves by kind (None: no kinds are known)."""

    random: Spread
    kinds: Spread | None = None

    @property
    def warning(self) -> str:
        """What must be said; empty where the wording changes little."""
        worst = max((s for s in (self.random, self.kinds) if s), key=lambda s: s.tpr_spread)
        if worst.tpr_spread <= UNSTEADY:
            return ""
        return (
            f"The anchors' wording decides much here: between anchor sets the TPR at 5% has a standard deviation of "
            f"{worst.tpr_spread:.2f}. Take more prompts, of more kinds."
        )

    def plain(self) -> dict[str, Any]:
        """As JSON may hold it."""
        return asdict(self)

    @classmethod
    def of(cls, said: Mapping[str, Any]) -> Stability:
        """From :meth:`plain`. Raises TypeError for what is none."""
        kinds = said.get("kinds")
        return cls(Spread(**said["random"]), None if kinds is None else Spread(**kinds))


def stability(
    harmless: Sequence[Trace],
    harmful: Sequence[Trace],
    *,
    layer: Layer = "last",
    pool: Pool = "generated",
    signal: SignalName = "sri",
    seed: int = 0,
) -> Stability:
    """How far anchors of these traces depend on their prompts. Kinds are the prompts' categories, where both sides have
    at least four each. Raises for fewer than :data:`LEAST` answered harmless or harmful prompts that can be used.
    """
    good = [trace for trace in harmless if not trace.refused()]
    bad = [trace for trace in harmful if signal == "whitened" or trace.refused()]
    if min(len(good), len(bad)) < LEAST:
        raise DemurError(
            f"{len(good)} and {len(bad)} answers", f"at least {LEAST} a side, to halve", "use more prompts"
        )
    phis = [np.stack([trace.aligned(layer, pool) for trace in side]) for side in (good, bad)]
    steps = np.unique(np.linspace(0, phis[0].shape[1] - 1, _STEPS).round().astype(np.int64))
    phis = [phi[:, steps] for phi in phis]
    rng = np.random.default_rng(seed)
    drawn = [[_half(rng, np.arange(len(phi))) for phi in phis] for _ in range(DRAWS)]
    kinds = [np.array([trace.prompt.category for trace in side]) for side in (good, bad)]
    known = all(len({*of} - {""}) >= 4 for of in kinds)
    by_kind = [[_half(rng, of) for of in kinds] for _ in range(DRAWS)] if known else []
    return Stability(_spread(phis, drawn, signal), _spread(phis, by_kind, signal) if by_kind else None)


def _half(rng: np.random.Generator, of: NDArray[Any]) -> Bool[NDArray[np.bool_], "n"]:
    """Half of the values that there are, and so about half of the rows."""
    values = rng.permutation(np.unique(of))
    return np.isin(of, values[: len(values) // 2])


def _spread(phis: Sequence[States], drawn: Sequence[Sequence[NDArray[np.bool_]]], signal: SignalName) -> Spread:
    areas, tprs = [], []
    means = np.full((len(drawn), len(phis[0])), np.nan)
    for i, halves in enumerate(drawn):
        own = [phi[half] for phi, half in zip(phis, halves, strict=True)]
        others = [phi[~half] for phi, half in zip(phis, halves, strict=True)]
        good, bad = (_read(own, other, signal).mean(axis=1) for other in others)
        means[i, ~halves[0]] = good
        areas.append(float((bad[:, None] < good).mean() + (bad[:, None] == good).mean() / 2))
        # The highest limit that at most 5% of the harmless are below; a quantile between two of them lets more be.
        tprs.append(float((bad < np.sort(good)[len(good) // 20]).mean()))
    seen = (~np.isnan(means)).sum(axis=0) > 1
    moves = float(np.nanstd(means[:, seen], axis=0, ddof=1).mean()) if seen.any() else 0.0
    area, tpr = float(np.mean(areas)), float(np.mean(tprs))
    spreads = [float(np.std(values, ddof=1)) for values in (areas, tprs)]
    return Spread(len(drawn), *(round(x, 4) for x in (area, spreads[0], tpr, spreads[1], moves)))


def _read(own: Sequence[States], other: States, signal: SignalName) -> Float[NDArray[np.float64], "n T"]:
    if signal == "whitened":
        return fit_whitened(own[0], own[1])(other)
    return refusal_signal(other, *(side.mean(axis=0, dtype=np.float64).astype(np.float32) for side in own))
