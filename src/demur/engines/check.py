"""Whether a guard still holds in an engine that runs, and its limits set anew there. No engine is needed to read this:
what comes in are verdicts.

A guard's promise is about signals like those that it was calibrated on. An engine that rounds, quantises or writes
another template gives others. Two numbers tell: how many harmless answers are flagged, and how many end with a sigma
outside of what nine in ten calibration answers had. And a guard belongs to weights: where the engine's are others, it
is stale, whatever the numbers say, until it is recalibrated.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray

from demur.engines.endpoint import Answered
from demur.guards import Guard
from demur.guards.conformal import spread, threshold_of
from demur.guards.detectors import check_limit, scored
from demur.guards.prefix import fit_prefix
from demur.guards.tail import limit_of_tail
from demur.guards.telling import check_steps
from demur.signals.recent import keeps_states
from demur.types import DemurError

OUTSIDE = 0.1
"""The share of calibration answers outside of the guard's band, by its making."""
ENGINE = ("engine", "engine_version", "quantization", "kv_dtype", "dtype", "weights")
"""What a spec says of where states were computed."""
LEAST = 20
"""With fewer answers nothing is said but *undecided*."""


@dataclass(frozen=True)
class Share:
    """k of n, with Clopper and Pearson's exact 95% interval, and the most that it may be."""

    k: int
    n: int
    most: float

    @property
    def interval(self) -> tuple[float, float]:
        """Exact; (0, 1) where n is 0."""
        from scipy.stats import binomtest

        if not self.n:
            return 0.0, 1.0
        found = binomtest(self.k, self.n).proportion_ci(method="exact")
        return float(found.low), float(found.high)

    @property
    def word(self) -> str:
        """Whether it is within what it may be: ``holds``, ``stale``, or ``undecided``."""
        low, high = self.interval
        return "stale" if low > self.most else "holds" if high <= self.most else "undecided"

    def __str__(self) -> str:
        low, high = self.interval
        return f"{self.k} of {self.n}, {low:.1%} to {high:.1%} (at most {self.most:.1%})"


@dataclass(frozen=True)
class Checked:
    """What a check found. ``flagged``: harmless answers that the guard flagged; ``outside``: those whose last sigma of
    the first T lies outside of the guard's band. ``shift`` is the mean of that sigma less the middle of the band.
    ``refused`` answers and ``unseen`` ones (*not watched*) are in neither. ``other``: in what the engine is another one
    than the guard's. ``shift`` is nan where no answer tells it.
    """

    flagged: Share
    outside: Share
    shift: float
    refused: int
    unseen: int
    other: tuple[str, ...] = ()

    @property
    def word(self) -> str:
        """``stale`` if either number says so or the engine is another one, ``holds`` if both numbers do, and would if
        all that was not watched had been flagged; else ``undecided``.
        """
        words = {self.flagged.word, self.outside.word}
        if self.other:
            return "stale"
        if self.flagged.n < LEAST:
            return "undecided"
        return "stale" if "stale" in words else "holds" if words == {"holds"} and self.watches else "undecided"

    @property
    def watches(self) -> bool:
        """Whether so few answers were not watched that they do not change the word."""
        flagged = self.flagged
        return not self.unseen or Share(flagged.k + self.unseen, flagged.n + self.unseen, flagged.most).word == "holds"

    def plain(self) -> dict[str, Any]:
        """As JSON may hold it."""
        shares = {
            name: {"k": share.k, "n": share.n, "interval": list(share.interval), "most": share.most}
            for name, share in (("flagged", self.flagged), ("outside", self.outside))
        }
        shift = self.shift if math.isfinite(self.shift) else None
        told = {"says": self.word, **shares, "shift": shift, "refused": self.refused, "unseen": self.unseen}
        return told | {"other": list(self.other)}


def checked(guard: Guard, answers: Sequence[Answered], engine: Mapping[str, Any] | None = None) -> Checked:
    """What verdicts of harmless prompts, which had no part in the guard, say of it; ``engine`` is what the engine says
    of itself.
    """
    seen, refused, unseen = _answered(answers)
    limits = [guard.threshold, *([] if guard.tail is None else [guard.tail.threshold])]
    allowed = sum(spread(limit.n, limit.alpha, rule=limit.rule)[1] for limit in limits)
    strays = 2 * spread(guard.threshold.n, OUTSIDE / 2, rule="quantile")[1]  # as the band is made
    off: list[float] = []
    out = 0
    for one in seen:
        at = len(one["sigma"]) - 1
        low, high = (float(edge[at]) for edge in guard.band)
        last = one["sigma"][-1]
        out += last is None or not low <= last <= high
        off += [] if last is None else [last - (low + high) / 2]
    flagged = sum(bool(one["flagged"]) for one in seen)
    known = [value for value in off if np.isfinite(value)]
    shift = float(np.mean(known)) if known else float("nan")
    return Checked(Share(flagged, len(seen), allowed), Share(out, len(seen), strays), shift, refused, unseen,
                   _other(guard, engine or {}))  # fmt: skip


def _other(guard: Guard, engine: Mapping[str, Any]) -> tuple[str, ...]:
    """In what an engine differs from the one that a guard belongs to, guard first. What it does not say is left out."""
    names = ENGINE if guard.spec.engine else ENGINE[2:]  # a guard of demur's own engine fits where the same is computed
    pairs = [(name, str(getattr(guard.spec, name)), str(engine[name])) for name in names if name in engine]
    return tuple(f"{name}: {mine or 'none'} against {its or 'unknown'}" for name, mine, its in pairs if mine != its)


def _answered(answers: Sequence[Answered]) -> tuple[list[dict[str, Any]], int, int]:
    """Verdicts of answers that were given and watched, and how many were refused, and not watched."""
    given = [one for one in answers if not one.refused]
    seen = [one.verdict for one in given if one.verdict["watched"] and one.verdict["sigma"]]
    return seen, len(answers) - len(given), len(given) - len(seen)


def recalibrated(
    guard: Guard,
    fit: Sequence[Answered],
    calibrate: Sequence[Answered],
    engine: Mapping[str, Any],
    hashes: tuple[Sequence[str], Sequence[str]],
) -> Guard:
    """The guard with its limits set on answers of an engine, whose it is from then on. Anchors and detector stay.

    ``engine``: what the engine says of itself; ``hashes``: of the prompts to fit and to calibrate on. Raises for too
    few answers, and for limits that nothing can exceed, as fitting does.
    """
    sets = [_answered(side) for side in (fit, calibrate)]
    if min(len(seen) for seen, _, _ in sets) < LEAST:
        raise DemurError(
            f"{len(sets[0][0])} answers to fit on and {len(sets[1][0])} to calibrate on, refusals left out",
            f"{LEAST} of each",
            "ask for more",
        )
    signals = [np.stack([_held(one["sigma"], guard.spec.steps) for one in seen]) for seen, _, _ in sets]
    first, detector = guard.threshold, guard.detector
    limit = threshold_of(scored(detector, signals[1]), first.alpha, first.rule)
    check_limit(detector, signals[1], limit)
    limits = guard.prefix.threshold
    prefix = fit_prefix(detector, *signals, alpha=limits.alpha, rule=limits.rule, causal=keeps_states(guard.spec))
    check_steps(detector.name, prefix.able(), guard.spec.steps)
    tail = guard.tail
    if tail is not None:
        worst = [np.nan if one["worst"] is None else one["worst"] for one in sets[1][0]]
        tail = replace(tail, threshold=limit_of_tail(worst, tail.threshold.alpha, tail.threshold.rule))
    named: dict[str, Any] = {name: str(engine.get(name, "")) for name in ENGINE}
    spec = replace(guard.spec, **named)
    return replace(
        guard, anchors=replace(guard.anchors, spec=spec), threshold=limit, prefix=prefix, tail=tail,
        band=np.quantile(signals[1], [0.05, 0.95], axis=0), n_fit=len(signals[0]), checked={}, checked_online={},
        fitted=tuple(sorted({*hashes[0]})), calibrated=tuple(sorted({*hashes[1]})), refused=sets[0][1] + sets[1][1],
    )  # fmt: skip


def _held(sigma: Sequence[float | None], steps: int) -> Float[NDArray[np.float64], "T"]:
    """A signal whose last value is held up to T. An engine does not hold the state, as demur does; see
    docs/decisions/0018-inside-an-engine.md.
    """
    known = np.array([np.nan if value is None else value for value in sigma], dtype=np.float64)
    return np.concatenate([known, np.repeat(known[-1:], steps - len(known))])
