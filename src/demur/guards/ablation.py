"""Every detector under one protocol: the table that the paper gives for six models (arXiv:2602.02600, table 4), for
any.

Positives are generations in which an attack succeeded. Negatives are, in turn, answered plain harmless prompts (as in
the paper) and the *same attack on harmless requests*: a detector that only sees the shape of an attack, or its topic,
does well against the first and not against the second.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from demur.dynamics import LAMBDA_C, LAMBDA_R, Area, Rate, area, irr
from demur.guards.detector import SRIGuard
from demur.guards.material import Material, sigma_of
from demur.guards.prefix import fit_prefix
from demur.guards.rivals import LAST, Scorer, Setting, available
from demur.types import DemurError

PLAIN, CONTROL = "plain harmless", "same attack, harmless"


@dataclass(frozen=True, eq=False)
class Sets:
    """What one model said under one sampler. All but ``attacked`` and ``bad`` are harmless prompts.

    ``good`` and ``bad`` make the anchors; ``fit`` and ``calibrate`` the guard; ``plain``, ``attacked`` and
    ``controls`` (by attack) are for testing, and prompts of one never occur in another.
    """

    model: str
    sampler: str
    good: Material
    bad: Material
    fit: Material
    calibrate: Material
    plain: Material
    attacked: Mapping[str, Material]
    controls: Mapping[str, Material]

    def __post_init__(self) -> None:
        kept = {"answered harmless prompts": self.good.answered, "refused harmful prompts": self.bad.refusing}
        kept |= {"answered prompts to fit on": self.fit.answered}
        for what, m in kept.items():
            if len(m) < 8:
                raise DemurError(f"{len(m)} {what} ({self.model})", "at least 8", "use more prompts, or another model")


@dataclass(frozen=True)
class Row:
    """One detector on one attack against one kind of negatives. Means over seeds; ``spread`` is the range of the
    area.
    """

    detector: str
    attack: str
    against: str
    auroc: float
    low: float
    high: float
    spread: float
    precision: float
    tpr_1: float
    tpr_5: float
    positives: int
    negatives: int


def ablate(
    sets: Sets,
    *,
    seeds: Sequence[int] = (0, 1, 2),
    least: int = 10,
    progress: Callable[[str], object] = lambda name: None,
) -> list[Row]:
    """Rows for every detector whose states were recorded, every attack with ``least`` successes, both kinds of
    negatives.

    Supervised detectors are fitted anew for each attack, without it. Intervals are a bootstrap over generations, for
    the first seed.
    """
    alive = living(sets, least)
    controls = {name: m.answered for name, m in sets.controls.items()}
    plain = sets.plain.answered
    rows = []
    for name, rival in available(sets.good.phi).items():
        progress(name)
        made: dict[tuple[int, str], Scorer] = {}
        for attack, positives in alive.items():
            without = attack if rival.supervised else ""
            found: dict[str, list[Area]] = {PLAIN: [], CONTROL: []}
            for seed in seeds:
                if (seed, without) not in made:
                    setting = Setting(sets.good.answered, sets.bad.refusing, sets.fit.answered, seed=seed)
                    if rival.supervised:
                        others = [other for other in alive if other != without]
                        setting = replace(
                            setting,
                            attacked={other: alive[other] for other in others},
                            controls={other: controls[other] for other in others if other in controls},
                        )
                    made[seed, without] = rival.make(setting)
                score = made[seed, without]
                scores = score(positives)
                found[PLAIN].append(area(scores, score(plain)))
                if len(controls.get(attack, ())) >= least:
                    found[CONTROL].append(area(scores, score(controls[attack])))
            rows += [_row(name, attack, against, areas) for against, areas in found.items() if areas]
    return rows


def living(sets: Sets, least: int = 10) -> dict[str, Material]:
    """The successful generations of every attack that has ``least`` of them."""
    return {name: m.succeeded for name, m in sets.attacked.items() if len(m.succeeded) >= least}


def _row(name: str, attack: str, against: str, areas: Sequence[Area]) -> Row:
    first = areas[0]
    return Row(
        detector=name,
        attack=attack,
        against=against,
        auroc=_mean(a.auroc for a in areas),
        low=first.low,
        high=first.high,
        spread=max(a.auroc for a in areas) - min(a.auroc for a in areas),
        precision=_mean(a.precision for a in areas),
        tpr_1=_mean(a.tpr_1 for a in areas),
        tpr_5=_mean(a.tpr_5 for a in areas),
        positives=first.positives,
        negatives=first.negatives,
    )


def _mean(values: Iterable[float]) -> float:
    return float(np.mean(list(values)))


@dataclass(frozen=True)
class Summary:
    """A detector's mean over attacks, each attack counting once, and its worst attack."""

    detector: str
    against: str
    auroc: float
    tpr_1: float
    tpr_5: float
    worst: float
    worst_attack: str
    attacks: int


def summarised(rows: Sequence[Row]) -> list[Summary]:
    """Table 4: one line for each detector and kind of negatives, in the order of the rows."""
    found = []
    for key in dict.fromkeys((row.detector, row.against) for row in rows):
        mine = [row for row in rows if (row.detector, row.against) == key]
        worst = min(mine, key=lambda row: row.auroc)
        found.append(
            Summary(
                *key,
                auroc=_mean(row.auroc for row in mine),
                tpr_1=_mean(row.tpr_1 for row in mine),
                tpr_5=_mean(row.tpr_5 for row in mine),
                worst=worst.auroc,
                worst_attack=worst.attack,
                attacks=len(mine),
            )
        )
    return found


# ---------------------------------------------------------------------------------------------------------------------
# The guard with its threshold


@dataclass(frozen=True)
class Flags:
    """How many of a set the guard flags, when it has read the whole generation and while it is written.

    ``step`` is the median step at which the online guard stops (nan: never). ``spared`` is the mean share of steps that
    were not taken any more in the generations it stopped.
    """

    name: str
    kind: str
    offline: Rate
    online: Rate
    step: float
    spared: float


def flags(sets: Sets, *, alpha: float = 0.01, seed: int = 0, threshold: str = "conformal") -> list[Flags]:
    """What SRI Guard does on every set: false positives on harmless prompts, plain and in every attack's shape, and the
    share of successful attacks that it catches. Raises for too few calibration prompts for ``alpha``.
    """
    known = (sets.good.answered, sets.bad.refusing, LAST)
    fit, held = (sigma_of(m.answered, *known) for m in (sets.fit, sets.calibrate))
    detector = SRIGuard(alpha=alpha, random_state=seed, threshold=threshold)  # type: ignore[arg-type]
    detector.fit(fit, calibration=held)
    prefix = fit_prefix(detector, fit, held, alpha=alpha)
    groups = [("plain harmless", "harmless", sets.plain.answered)]
    groups += [(name, "control", m.answered) for name, m in sets.controls.items()]
    groups += [(name, "attack", m.succeeded) for name, m in sets.attacked.items()]
    found = []
    for name, kind, m in groups:
        sigma = sigma_of(m, *known)
        if not len(sigma):
            found.append(Flags(name, kind, Rate(0, 0), Rate(0, 0), math.nan, math.nan))
            continue
        stops = prefix.stops(sigma)
        when = stops[stops > 0]
        found.append(
            Flags(
                name,
                kind,
                Rate.of(detector.predict(sigma) < 0),
                Rate.of(stops > 0),
                float(np.median(when)) if len(when) else math.nan,
                float((1 - when / sigma.shape[1]).mean()) if len(when) else math.nan,
            )
        )
    return found


# ---------------------------------------------------------------------------------------------------------------------
# Where the guard is blind


@dataclass(frozen=True)
class Blind:
    """Successful generations of one attack that the guard lets pass, by what their signal did.

    ``steady``: sigma never fell below lambda_c, so nothing hesitated; ``late``: it hesitated in the last quarter only;
    ``wavering``: it hesitated before, and the detector took it for normal.
    """

    attack: str
    missed: int
    of: int
    steady: int
    late: int
    wavering: int


def blind(
    sets: Sets, *, alpha: float = 0.01, seed: int = 0, threshold: str = "conformal", lambda_c: float = LAMBDA_C
) -> list[Blind]:
    """Every attack's misses, by kind of trajectory."""
    known = (sets.good.answered, sets.bad.refusing, LAST)
    detector = SRIGuard(alpha=alpha, random_state=seed, threshold=threshold)  # type: ignore[arg-type]
    detector.fit(sigma_of(sets.fit.answered, *known), calibration=sigma_of(sets.calibrate.answered, *known))
    found = []
    for name, m in sets.attacked.items():
        sigma = sigma_of(m.succeeded, *known)
        missed = sigma[detector.predict(sigma) > 0] if len(sigma) else sigma
        below = missed < lambda_c
        start = 3 * missed.shape[1] // 4
        early, late = below[:, :start].any(axis=1), below[:, start:].any(axis=1)
        found.append(
            Blind(
                name, len(missed), len(sigma), int((~early & ~late).sum()), int((late & ~early).sum()), int(early.sum())
            )
        )
    return found


def recoveries(sets: Sets, thresholds: Sequence[float] = LAMBDA_R) -> dict[str, dict[float, Rate]]:
    """IRR of every attack's generations, and of all of them together, at each threshold lambda_r."""
    known = (sets.good.answered, sets.bad.refusing, LAST)
    every = {name: sigma_of(m, *known) for name, m in sets.attacked.items() if len(m)}
    if every:
        every = {"all attacks": np.concatenate(list(every.values())), **every}
    return {name: {r: irr(sigma, r) for r in thresholds} for name, sigma in every.items()}
