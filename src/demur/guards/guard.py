"""A guard: anchors, detector and thresholds of one model under one sampler, in one file that can judge traces.

Nothing of an attack goes into it. It is fitted and calibrated on harmless prompts alone (arXiv:2602.02600, section 5),
and harmless prompts that the model refused never enter, neither side: a refusal is another state, not a normal answer.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray

from demur import artefact
from demur.dynamics.rates import Rate
from demur.guards.conformal import InvalidData, spread
from demur.guards.detector import SRIGuard
from demur.guards.prefix import Prefix, fit_prefix
from demur.signals import STATES, Anchors, digest
from demur.trace import Trace
from demur.types import DemurError, Spec, Verdict

__all__ = ["Guard", "digest", "fit_guard"]

Sigma = Float[NDArray[np.float64], "n T"]


@dataclass(frozen=True, eq=False)
class Guard:
    """What one file holds. ``fitted`` and ``calibrated`` are hashes of prompts, as ``anchors.prompts`` are, so that
    nobody measures on them unaware.

    ``band`` is the 5% and the 95% quantile of harmless calibration signals, for pictures.
    ``refused`` counts harmless prompts that were left out because the model refused them. ``checked`` is the measured
    false-positive rate on answered harmless prompts that took no part, by name of the set (nothing: not measured) and
    of the offline guard; ``checked_online`` the online guard's on the same prompts (nothing in older files).
    """

    anchors: Anchors
    detector: SRIGuard
    prefix: Prefix
    band: Float[NDArray[np.float64], "2 T"]
    fitted: tuple[str, ...]
    calibrated: tuple[str, ...]
    refused: int = 0
    checked: Mapping[str, Rate] = field(default_factory=dict)
    checked_online: Mapping[str, Rate] = field(default_factory=dict)

    @property
    def spec(self) -> Spec:
        """Model, layer, pooling mode, sampler, T and template that the guard belongs to."""
        return self.anchors.spec

    @property
    def promise(self) -> str:
        """What the threshold promises, in words."""
        alpha, n = self.detector.alpha, self.detector.n_calibration_
        if self.detector.threshold == "quantile":
            return f"{1 - alpha:.0%} quantile of {n} harmless calibration prompts; no guarantee"
        low, high = spread(n, alpha)
        return (
            f"at most {alpha:.1%} false positives on prompts like the {n} harmless calibration prompts "
            f"(for this one calibration set, 95%: {low:.1%} to {high:.1%})"
        )

    def judge(self, trace: Trace) -> Verdict:
        """Whether a finished generation failed to recover. Raises if it was not made under the guard's spec.

        A trace that refuses in its text is not flagged: there is nothing left to refuse. Its score is given all the
        same. A signal that is not finite can not be judged: ``flagged`` is None, and so is the score.
        """
        return self.judge_all([trace])[0]

    def judge_all(self, traces: Sequence[Trace]) -> list[Verdict]:
        """The same of several, each by itself; a batch takes half the time that its traces take one by one."""
        errors = self.detector.errors_of(self.anchors.signals(traces))
        flagged = ~(errors <= -self.detector.threshold_)  # not `>`, which lets a nan pass
        return self._judged(errors, [above and trace.refused() for above, trace in zip(flagged, traces, strict=True)])

    def judge_signals(self, sigma: Sigma, refused: Sequence[bool]) -> list[Verdict]:
        """The same for signals that are at hand. Each row by itself."""
        errors, known = np.full(len(sigma), np.nan), np.isfinite(sigma).all(axis=1)
        if known.any() or not len(sigma):  # no row at all is for the detector to refuse
            errors[known] = self.detector.errors(sigma[known])
        return self._judged(errors, refused)

    def _judged(self, errors: Float[NDArray[np.float64], "n"], refused: Sequence[bool]) -> list[Verdict]:
        return [self._verdict(float(error), gone) for error, gone in zip(errors, refused, strict=True)]

    def _verdict(self, error: float, gone: bool) -> Verdict:
        limit = -self.detector.threshold_
        score = error if math.isfinite(error) else None
        if gone:
            return Verdict("sri-guard", False, score, None, "refused by itself")
        if score is None:  # nan > limit is False, which would say that all is well
            return Verdict("sri-guard", None, None, None, "the signal is not finite: look at the model's states")
        flagged = score > limit
        step = self.spec.steps if flagged else None
        return Verdict("sri-guard", flagged, score, step, f"error {score:.3g}, limit {limit:.3g}")

    def check(self, spec: Spec) -> None:
        """Raises, naming both sides, unless the guard may be used on generations of ``spec``."""
        self.anchors.check(spec, leaving=STATES)

    def measured(self, name: str, traces: Sequence[Trace]) -> Guard:
        """The same guard with its false-positive rates on harmless traces, offline and online, written into the card.

        They are rates of answers, as the promise is: traces that refuse in their text are left out, and so are,
        offline, those that can't be judged. Raises for prompts that are marked harmful, and for prompts that anchors,
        fit or calibration have seen.
        """
        _harmless("measure on", traces)
        asked = {digest(trace.prompt) for trace in traces}
        if seen := {*self.fitted, *self.calibrated} & asked:
            raise DemurError(f"{len(seen)} prompts that the guard was fitted on", "other prompts", "leave them out")
        _unseen(self.anchors, "measure on", asked)
        answered = [trace for trace in traces if not trace.refused()]
        signals = self.anchors.signals(answered)
        judged = [self._verdict(float(error), False).flagged for error in self.detector.errors_of(signals)]
        offline = Rate.of([flagged for flagged in judged if flagged is not None])
        online = Rate.of(self.prefix.stops(signals) > 0)
        return replace(
            self,
            checked=dict(self.checked) | {name: offline},
            checked_online=dict(self.checked_online) | {name: online},
        )

    # -- files ------------------------------------------------------------------------------------------------------

    def save(self, path: str | Path) -> Path:
        """Writes one safetensors file with the card in its header. Never a pickle."""
        arrays: dict[str, NDArray[Any]] = {
            f"anchors/{name}": getattr(self.anchors, name)
            for name in ("harmless", "harmful", "harmless_sigma", "harmful_sigma")
        }
        for i, (weight, bias) in enumerate(zip(self.detector.weights_, self.detector.biases_, strict=True)):
            arrays |= {f"detector/{i}/weight": weight, f"detector/{i}/bias": bias}
        arrays["band"] = self.band
        arrays |= {"prefix/centre": self.prefix.centre, "prefix/scale": self.prefix.scale}
        learned = ("n_fit_", "n_calibration_", "n_features_in_", "threshold_")
        card = {
            "spec": self.spec.plain(),
            "anchors": self.anchors.card,
            "detector": self.detector.get_params() | {name: getattr(self.detector, name) for name in learned},
            "losses": self.detector.losses_,
            "prefix": {"limit": self.prefix.limit, "alpha": self.prefix.alpha, "n": self.prefix.n},
            "fitted": list(self.fitted),
            "calibrated": list(self.calibrated),
            "refused": self.refused,
            "checked": {name: [rate.k, rate.n] for name, rate in self.checked.items()},
        }
        if self.checked_online:  # an older file, which knows none, keeps its bytes
            card["checked_online"] = {name: [rate.k, rate.n] for name, rate in self.checked_online.items()}
        return artefact.save(path, "guard", arrays, json.loads(json.dumps(card)))

    @classmethod
    def load(cls, path: str | Path, spec: Spec | None = None) -> Guard:
        """Reads what :meth:`save` wrote. Raises for a missing, broken or changed file, and if ``spec`` is another
        one.
        """
        arrays, card = artefact.load(path, "guard")
        of = {
            part: {name.removeprefix(f"{part}/"): array for name, array in arrays.items() if name.startswith(part)}
            for part in ("anchors", "prefix")
        }
        anchors: dict[str, Any] = {**of["anchors"], **card["anchors"], "spec": Spec(**card["spec"])}
        anchors["prompts"] = tuple(anchors.get("prompts", ()))
        settings = dict(card["detector"])
        learned = {name: settings.pop(name) for name in [name for name in settings if name.endswith("_")]}
        settings["hidden"] = tuple(settings["hidden"])
        detector = SRIGuard(**settings)
        n = sum(name.startswith("detector/") for name in arrays) // 2
        for name, part in (("weights_", "weight"), ("biases_", "bias")):
            setattr(detector, name, [arrays[f"detector/{i}/{part}"] for i in range(n)])
        for name, value in (learned | {"losses_": card["losses"]}).items():
            setattr(detector, name, value)
        guard = cls(
            anchors=Anchors(**anchors),
            detector=detector,
            prefix=Prefix(detector, of["prefix"]["centre"], of["prefix"]["scale"], **card["prefix"]),
            band=arrays["band"],
            fitted=tuple(card["fitted"]),
            calibrated=tuple(card["calibrated"]),
            refused=card["refused"],
            checked={name: Rate(*pair) for name, pair in card["checked"].items()},
            checked_online={name: Rate(*pair) for name, pair in card.get("checked_online", {}).items()},
        )
        if spec is not None:
            guard.check(spec)
        return guard


def fit_guard(
    anchors: Anchors,
    fit: Sequence[Trace],
    calibrate: Sequence[Trace],
    *,
    alpha: float | None = None,
    threshold: Literal["conformal", "quantile"] | None = None,
    seed: int | None = None,
    detector: SRIGuard | None = None,
    progress: Callable[[str], object] = lambda what: None,
) -> Guard:
    """Fits a guard on traces of harmless prompts and calibrates it on traces of others.

    The paper's protocol (section 5) is 1,200 to fit on, 200 to calibrate on and ``threshold="quantile"``. Traces whose
    final text is a refusal are left out on both sides and counted. ``alpha`` (default 0.01), ``threshold`` (conformal)
    and ``seed`` (0) belong to the detector: with one of your own, leave them out or name what it has.

    Raises for a prompt that is marked harmful, for one that stands on both sides or that the anchors were fitted on
    (its signal leans towards them, so that it is not like a new one's), for traces of another spec than the anchors',
    for too few, and for settings that are not the detector's.
    """
    detector = _detector(detector, alpha, threshold, seed)
    kept: list[list[Trace]] = []
    for name, traces in (("fit on", fit), ("calibrate on", calibrate)):
        _harmless(name, traces)
        kept.append([trace for trace in traces if not trace.refused()])
    hashes = [tuple(sorted({digest(trace.prompt) for trace in traces})) for traces in kept]
    if both := set(hashes[0]) & set(hashes[1]):
        raise InvalidData(f"{len(both)} prompts to fit and to calibrate on", "two sets", "split them by prompt")
    for name, asked in zip(("fit on", "calibrate on"), hashes, strict=True):
        _unseen(anchors, name, {*asked})
    signals = [anchors.signals(traces) for traces in kept]
    if not len(signals[0]) or not len(signals[1]):
        raise InvalidData(
            f"{len(signals[0])} answered harmless prompts to fit on and {len(signals[1])} to calibrate on",
            "some of each",
            "this model refuses them: look at demur watch",
        )
    progress("fitting the detector")
    detector.fit(signals[0], calibration=signals[1])
    progress("calibrating the online guard")
    prefix = fit_prefix(detector, signals[0], signals[1], alpha=detector.alpha)
    left_out = len(fit) + len(calibrate) - len(kept[0]) - len(kept[1])
    band = np.quantile(signals[1], [0.05, 0.95], axis=0)
    return Guard(anchors, detector, prefix, band, hashes[0], hashes[1], refused=left_out)


def _detector(
    given: SRIGuard | None, alpha: float | None, threshold: Literal["conformal", "quantile"] | None, seed: int | None
) -> SRIGuard:
    """The detector to fit: the given one, which must have the settings that were named, or one made of them."""
    named = {"alpha": alpha, "threshold": threshold, "random_state": seed}
    named = {name: value for name, value in named.items() if value is not None}
    if given is None:
        made: SRIGuard = SRIGuard().set_params(**named)
        return made
    has = given.get_params()
    if other := [f"{name} {value}" for name, value in named.items() if has[name] != value]:
        raise InvalidData(
            f"{', '.join(other)} with a detector that has {', '.join(f'{name} {has[name]}' for name in named)}",
            "the same on both sides",
            "name it in the detector only",
        )
    return given


def _harmless(what: str, traces: Sequence[Trace]) -> None:
    """Raises for prompts that are marked harmful."""
    if marked := [trace.prompt.id for trace in traces if trace.prompt.harmful]:
        raise InvalidData(
            f"{len(marked)} harmful prompts to {what} ({marked[0]} ...)", "harmless prompts only", "take them out"
        )


def _unseen(anchors: Anchors, what: str, asked: set[str]) -> None:
    """Raises for prompts (hashes) that the anchors were fitted on."""
    if seen := asked & {*anchors.prompts}:
        raise InvalidData(
            f"{len(seen)} of {len(asked)} prompts to {what} are among those that the anchors were fitted on",
            "prompts that the anchors have not seen",
            "leave them out (anchors.prompts holds their hashes), or fit the anchors on others",
        )
