"""Every detector under one protocol: the table that the paper gives for six models (arXiv:2602.02600, table 4), for
any.

Positives are generations in which an attack succeeded. Negatives are, in turn, answered plain harmless prompts (as in
the paper) and the *same attack on harmless requests*: a detector that only sees the shape of an attack, or its topic,
does well against the first and not against the second.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray

from demur.ablation.material import LAST, Material
from demur.ablation.rivals import Rival, Scorer, Scores, Setting, available
from demur.dynamics import Area, area, over_seeds
from demur.traces import Key
from demur.types import DemurError

PLAIN, CONTROL = "plain harmless", "same attack, harmless"


@dataclass(frozen=True, eq=False)
class Sets:
    """What one model said under one sampler. All but ``attacked``, ``bad`` and ``refused`` are harmless prompts.

    ``good`` and ``bad`` make the anchors; ``fit`` and ``calibrate`` the guard; ``plain``, ``attacked``, ``controls``
    (by attack) and ``refused`` (plain harmful prompts) are for testing. No request of a test occurs in anchors, fit or
    calibration, plain or wrapped. Among themselves the tests share requests: every attack wraps the same ones.
    ``causal``: written from left to right, each token's state final once it is written.
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
    refused: Material | None = None
    causal: bool = False

    def __post_init__(self) -> None:
        kept = {"answered harmless prompts": self.good.answered, "refused harmful prompts": self.bad.refusing}
        kept |= {"answered prompts to fit on": self.fit.answered}
        for what, m in kept.items():
            if len(m) < 8:
                raise DemurError(f"{len(m)} {what} ({self.model})", "at least 8", "use more prompts, or another model")

    @cached_property
    def setting(self) -> Setting:
        """What a detector that has seen no attack may learn from."""
        return Setting(self.good.answered, self.bad.refusing, self.fit.answered, harmful=self.bad)

    def in_pool(self, key: Key) -> Sets:
        """The same with the states of one layer and pooling mode alone."""

        def cut(m: Material) -> Material:
            return replace(m, phi={key: m.phi[key]})

        return replace(
            self,
            good=cut(self.good),
            bad=cut(self.bad),
            fit=cut(self.fit),
            calibrate=cut(self.calibrate),
            plain=cut(self.plain),
            attacked={name: cut(m) for name, m in self.attacked.items()},
            controls={name: cut(m) for name, m in self.controls.items()},
            refused=None if self.refused is None else cut(self.refused),
        )

    def sigma(self, m: Material, key: Key = LAST) -> Float[NDArray[np.float64], "n T"]:
        """The signal of generations under these sets' anchors, in [0, 1], 0 = refusing."""
        return self.setting.sigma(m, key)


@dataclass(frozen=True)
class Comparison:
    """One detector on one attack against one kind of negatives.

    Figures are means over seeds with their 95% intervals (:func:`demur.dynamics.over_seeds`). ``spread`` is the range
    of the area over seeds; detectors without dice have one seed and none.
    """

    detector: str
    attack: str
    against: str
    auroc: float
    low: float
    high: float
    spread: float
    precision: float
    precision_low: float
    precision_high: float
    tpr_1: float
    tpr_1_low: float
    tpr_1_high: float
    tpr_5: float
    tpr_5_low: float
    tpr_5_high: float
    positives: int
    negatives: int


def ablate(
    sets: Sets,
    *,
    seeds: Sequence[int] = (0, 1, 2),
    least: int = 10,
    detectors: Sequence[str] = (),
    rivals: Mapping[str, Rival] | None = None,
    progress: Callable[[str], object] = lambda name: None,
) -> list[Comparison]:
    """Rows for every detector whose states were recorded, every attack with ``least`` successes, both kinds of
    negatives. ``detectors`` are others, by name or ``module:Class``, that stand beside ours; ``rivals`` stand in place
    of all of these.

    Supervised detectors are fitted anew for each attack, without it, without its kin (:func:`kin`), and twice over:
    every request is judged by a fit on the other half of the requests, since all attacks wrap the same ones. Where
    nothing is left to learn from they have no row.
    """
    alive = living(sets, least)
    controls = {name: m.answered for name, m in sets.controls.items()}
    plain = sets.plain.answered
    rows = []
    for name, rival in (available(sets.good.phi, detectors) if rivals is None else rivals).items():
        progress(name)
        own = tuple(seeds) if rival.seeded else tuple(seeds)[:1]
        setting = sets.setting
        made: list[Scorer | None] = []
        if alive and not rival.supervised:
            made = [rival.make(replace(setting, seed=seed)) for seed in own]
        for attack, positives in alive.items():
            negatives = {PLAIN: plain, CONTROL: controls.get(attack, plain.only(np.zeros(len(plain), dtype=bool)))}
            negatives = {k: m for k, m in negatives.items() if len(m) >= (least if k == CONTROL else 1)}
            if rival.supervised:
                others = [other for other in alive if not kin(other, attack)]
                seen = replace(
                    setting,
                    attacked={other: alive[other] for other in others},
                    controls={other: controls[other] for other in others if other in controls},
                )
                made = [crossed(rival, replace(seen, seed=seed), positives, *negatives.values()) for seed in own]
            scored = [(score(positives), score) for score in made if score is not None]
            for against, m in negatives.items() if scored else ():
                rows.append(compared(name, attack, against, [area(scores, score(m)) for scores, score in scored]))
    return rows


def kin(one: str, other: str) -> bool:
    """Whether an attack is another one or holds it: all words of one name are in the other's, as in ``role`` and
    ``role-prefix``.
    """
    first, second = (set(re.findall(r"[a-z0-9]+", name.lower())) for name in (one, other))
    return one == other or first <= second or second <= first


def crossed(rival: Rival, setting: Setting, *tested: Material) -> Scorer | None:
    """A scorer of the ``tested`` sets in which every row is judged by a fit that saw none of its half of the requests.

    Positives and negatives are halved apart. None where a half leaves no successful attack to learn from.
    """
    half: dict[str, int] = {}
    for m in tested:
        fresh = [request for request in dict.fromkeys(m.requests) if request not in half]
        half |= {request: i % 2 for i, request in enumerate(fresh)}
    scorers = []
    for k in (0, 1):

        def others(m: Material, k: int = k) -> Material:
            return m.only(np.array([half.get(request) != k for request in m.requests], dtype=bool))

        seen = replace(
            setting,
            fit=others(setting.fit),
            attacked={name: others(m) for name, m in setting.attacked.items()},
            controls={name: others(m) for name, m in setting.controls.items()},
        )
        if not any(map(len, seen.attacked.values())) or not len(seen.fit):
            return None
        scorers.append(rival.make(seen))

    def score(m: Material) -> Scores:
        mine = np.array([half[request] for request in m.requests], dtype=np.int64)
        found = np.empty(len(m))
        for k, scorer in enumerate(scorers):
            found[mine == k] = scorer(m.only(mine == k))
        return found

    return score


def living(sets: Sets, least: int = 10) -> dict[str, Material]:
    """The successful generations of every attack that has ``least`` of them."""
    return {name: m.succeeded for name, m in sets.attacked.items() if len(m.succeeded) >= least}


def compared(name: str, attack: str, against: str, areas: Sequence[Area]) -> Comparison:
    """A detector's areas, one a seed, as one row."""
    auroc, low, high = over_seeds(areas, "auroc", "low", "high")
    figures: dict[str, float] = {}
    for what in ("precision", "tpr_1", "tpr_5"):
        names = what, f"{what}_low", f"{what}_high"
        figures |= dict(zip(names, over_seeds(areas, *names), strict=True))
    return Comparison(
        detector=name,
        attack=attack,
        against=against,
        auroc=auroc,
        low=low,
        high=high,
        spread=max(a.auroc for a in areas) - min(a.auroc for a in areas),
        positives=areas[0].positives,
        negatives=areas[0].negatives,
        **figures,
    )


def _mean(values: Iterable[float]) -> float:
    return float(np.mean(list(values)))


@dataclass(frozen=True)
class Summary:
    """A detector's mean over attacks, each attack counting once, and its worst attack.

    Ends of intervals are means over attacks too. Attacks wrap the same requests, so they err together: a mean of them
    is hardly surer than one.
    """

    detector: str
    against: str
    auroc: float
    low: float
    high: float
    tpr_1: float
    tpr_1_low: float
    tpr_1_high: float
    tpr_5: float
    tpr_5_low: float
    tpr_5_high: float
    worst: float
    worst_attack: str
    attacks: int


_MEANS = ("auroc", "low", "high", "tpr_1", "tpr_1_low", "tpr_1_high", "tpr_5", "tpr_5_low", "tpr_5_high")


def summarised(rows: Sequence[Comparison]) -> list[Summary]:
    """Table 4: one line for each detector and kind of negatives, in the order of the rows."""
    found = []
    for key in dict.fromkeys((row.detector, row.against) for row in rows):
        mine = [row for row in rows if (row.detector, row.against) == key]
        worst = min(mine, key=lambda row: row.auroc)
        means = {name: _mean(getattr(row, name) for row in mine) for name in _MEANS}
        found.append(
            Summary(*key, **means, worst=worst.auroc, worst_attack=worst.attack, attacks=len(mine))  # type: ignore[arg-type]
        )
    return found
