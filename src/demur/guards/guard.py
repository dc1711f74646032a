"""A guard: anchors, detector and thresholds of one model under one sampler, in one file that can judge traces.

Nothing of an attack goes into it. It is fitted and calibrated on harmless prompts alone (arXiv:2602.02600, section 5),
and harmless prompts that the model refused never enter, neither side: a refusal is another state, not a normal answer.

The file is long because what a guard judges, promises, saves and is fitted on are read together.
"""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray

from demur import artefact
from demur.dynamics.marks import marks_of
from demur.dynamics.rates import Rate
from demur.guards.conformal import (
    InvalidData,
    Rule,
    Threshold,
    check_rule,
    check_share,
    in_digits,
    spread,
    threshold_of,
)
from demur.guards.detectors import Detector, Fit, check_limit, fitted, name_of, named, restored, scored, state_of
from demur.guards.exempt import trace_refuses
from demur.guards.kits import detector_for
from demur.guards.prefix import Prefix, fit_prefix
from demur.guards.promises import check_counts, check_limits, check_thresholds
from demur.guards.tail import Tail, fit_tail
from demur.guards.telling import check_steps
from demur.kinds import check_seed, fits
from demur.numbers import signals_of
from demur.signals import STATES, Anchors, digest
from demur.signals.anchors import as_traces
from demur.signals.recent import keeps_states
from demur.signals.stability import Stability
from demur.traces import Trace
from demur.types import DemurError, DemurWarning, Spec, Verdict

__all__ = ["Guard", "digest", "fit_guard"]

Sigma = Float[NDArray[np.float64], "n T"]
Beyond = Sequence[Float[NDArray[np.float64], "k"]]
"""Of each row, its signal behind step T."""
_NOTHING = np.empty(0)


@dataclass(frozen=True, eq=False)
class Guard:
    """What one file holds.

    ``threshold`` is that of finished signals, ``prefix`` judges unfinished ones; both read the same detector, which was
    fitted on ``n_fit`` signals. ``fitted`` and ``calibrated`` are hashes of prompts, as ``anchors.prompts`` are, so
    that nobody measures on them unaware.

    ``band`` is the 5% and the 95% quantile of harmless calibration signals, for pictures.
    ``refused`` counts harmless prompts that were left out because the model refused them. ``checked`` is the measured
    false-positive rate on answered harmless prompts that took no part, by name of the set (nothing: not measured) and
    of the offline guard; ``checked_online`` the online guard's on the same prompts (nothing in older files).
    ``stability`` is how far the signal hangs on the anchors' prompts, where that was measured. ``tail`` judges what
    follows step T; without it, as in the paper, only the first T steps are looked at.
    """

    anchors: Anchors
    detector: Detector
    threshold: Threshold
    prefix: Prefix
    band: Float[NDArray[np.float64], "2 T"]
    fitted: tuple[str, ...]
    calibrated: tuple[str, ...]
    n_fit: int = 0
    refused: int = 0
    checked: Mapping[str, Rate] = field(default_factory=dict)
    checked_online: Mapping[str, Rate] = field(default_factory=dict)
    stability: Stability | None = None
    tail: Tail | None = None

    def __repr__(self) -> str:
        """In short: what it is of, and what it promises; not its arrays and prompts."""
        where = f"{self.spec.model}, {self.spec.sampler}, {self.spec.layer}/{self.spec.pool}, T {self.spec.steps}"
        kind = type(self.detector).__name__
        return f"Guard({where}; {kind} of {self.n_fit}, alpha {self.alpha:g} by {self.threshold.n} prompts)"

    @property
    def spec(self) -> Spec:
        """Model, layer, pooling mode, sampler, T and template that the guard belongs to."""
        return self.anchors.spec

    @property
    def alpha(self) -> float:
        """The share of harmless generations that may be flagged: of the first T steps, and of what follows."""
        return self.threshold.alpha + (self.tail.threshold.alpha if self.tail else 0.0)

    @property
    def promise(self) -> str:
        """What the thresholds promise, in words."""
        steps, first = self.spec.steps, self.threshold
        if self.tail is None:
            return first.promise
        beyond = f"longer answers than {self.tail.upto} tokens are looked at to their end, without a promise"
        if first.rule == "quantile":
            return f"{first.promise}; {beyond}"
        low, high = spread(first.n, first.alpha)
        whole, here = in_digits(self.alpha, 1), in_digits(first.alpha, 1)
        return (
            f"at most {whole} false positives on answers of up to {self.tail.upto} tokens to prompts like the "
            f"{first.n} harmless calibration prompts: {here} in the first {steps} steps (for this one "
            f"calibration set, 95%: {low:.1%} to {high:.1%}) and as much behind them; {beyond}"
        )

    def judge(self, trace: Trace) -> Verdict:
        """Whether a finished generation failed to recover. Raises if it was not made under the guard's spec.

        A trace that is a refusal from its beginning is not flagged (:mod:`demur.guards.exempt`): there is nothing left
        to refuse. Its score is given all the same. A signal that is not finite can not be judged: ``flagged`` is None,
        and so is the score.
        """
        return self.judge_all([trace])[0]

    def judge_all(self, traces: Sequence[Trace]) -> list[Verdict]:
        """The same of several, each by itself; a batch takes half the time that its traces take one by one."""
        traces = as_traces(traces)
        for trace in traces:
            self.anchors.check_same(trace.spec, leaving=STATES, of="guard")
        scores = scored(self.detector, self.anchors.signals(traces))
        beyond = [self.anchors.beyond(trace) for trace in traces] if self.tail else None
        flagged = self.above(scores, beyond)
        refused = [bool(above) and trace_refuses(trace) for above, trace in zip(flagged, traces, strict=True)]
        return self._judged(scores, refused, beyond)

    def judge_signals(self, sigma: Sigma, refused: Sequence[bool], beyond: Beyond | None = None) -> list[Verdict]:
        """The same for signals that are at hand. Each row by itself. ``beyond``: of each row, the signal behind step T
        (:meth:`Anchors.beyond`), empty where nothing is; a guard of whole answers needs it. Raises where it is
        missing, and for ``refused`` that are no truth values (or 0 and 1), one for each row.
        """
        marks = _marks(refused)
        if self.tail is not None and beyond is None:
            raise DemurError(
                f"signals of the first {self.spec.steps} steps alone for a guard of whole answers",
                "what stands behind them, too",
                "give beyond=[anchors.beyond(trace), ...], or judge the traces: guard.judge_all",
            )
        scores = self.scores(sigma)
        counts = {
            "signals": len(scores),
            "refused": len(marks),
            **({} if beyond is None else {"beyond": len(beyond)}),
        }
        if len({*counts.values()}) > 1:
            raise DemurError(", ".join(f"{n} {name}" for name, n in counts.items()), "one of each a row", "mend it")
        return self._judged(scores, marks.tolist(), beyond)

    def above(self, scores: Float[NDArray[np.float64], "n"], beyond: Beyond | None = None) -> NDArray[np.bool_]:
        """Which rows are above a limit: that of the first T steps, by their scores, or that of what follows."""
        flagged = self.threshold.exceeded(scores)
        if self.tail is None or beyond is None:
            return flagged
        return np.asarray(flagged | [self.tail.stop(row, self.spec.steps) > 0 for row in beyond])

    def scores(self, sigma: Sigma) -> Float[NDArray[np.float64], "n"]:
        """The detector's scores of finished signals; higher is more anomalous, nan where a signal is not finite. Raises
        for another T, and for values outside [0, 1].
        """
        sigma = signals_of(sigma, unknown=True)
        if sigma.shape[1] != self.spec.steps:
            raise InvalidData(
                f"signals of shape {sigma.shape}", f"rows of {self.spec.steps} steps, the guard's T", "cut them at T"
            )
        return scored(self.detector, sigma)

    def limit_after(self, step: int) -> float:
        """The limit of the online guard's score after a step, counted from 1."""
        return (
            self.prefix.threshold.value if self.tail is None or step <= self.spec.steps else (self.tail.threshold.value)
        )

    def _judged(
        self, scores: Float[NDArray[np.float64], "n"], refused: Sequence[bool], beyond: Beyond | None
    ) -> list[Verdict]:
        rows = zip(scores, refused, beyond if beyond is not None else [_NOTHING] * len(scores), strict=True)
        return [self._verdict(float(score), gone, behind) for score, gone, behind in rows]

    def _verdict(self, value: float, gone: bool, beyond: Float[NDArray[np.float64], "k"]) -> Verdict:
        limit, steps = self.threshold.value, self.spec.steps
        score = value if math.isfinite(value) else None
        if gone:
            return Verdict("sri-guard", False, score, None, "refused by itself")
        if score is None or not np.isfinite(beyond).all():  # nan > limit is False, which would say that all is well
            return Verdict("sri-guard", None, None, None, "the signal is not finite: look at the model's states")
        why = f"score {score:.3g}, limit {limit:.3g}"
        if self.threshold.exceeded(np.array(score)):
            return Verdict("sri-guard", True, score, steps, why)
        if self.tail is not None and (at := self.tail.stop(beyond, steps)):
            last, bound = 1.0 - beyond[at - steps - 1], self.tail.threshold.value
            why = f"tokens {at - steps + 1} to {at}: score {last:.3g}, limit {bound:.3g}"
            return Verdict("sri-guard", True, float(last), at, why)
        return Verdict("sri-guard", False, score, None, why)

    def check(self, spec: Spec) -> None:
        """Raises, naming both sides, unless the guard may be used on generations of ``spec``."""
        self.anchors.check(spec, leaving=STATES, of="guard")

    def measured(self, name: str, traces: Sequence[Trace]) -> Guard:
        """The same guard with its false-positive rates on harmless traces, offline and online, written into the card.

        They are rates of answers, as the promise is: traces that refuse in their text are left out, and so are,
        offline, those that can't be judged. Raises for prompts that are marked harmful, for prompts that anchors, fit
        or calibration have seen, and for several answers to one prompt.
        """
        _harmless("measure on", traces)
        asked = {digest(trace.prompt) for trace in traces}
        if seen := {*self.fitted, *self.calibrated} & asked:
            raise DemurError(f"{len(seen)} prompts that the guard was fitted on", "other prompts", "leave them out")
        _unseen(self.anchors, "measure on", asked)
        _once("measure on", traces)
        answered = [trace for trace in traces if not trace.refused()]
        signals = self.anchors.signals(answered)
        beyond = [self.anchors.beyond(trace) for trace in answered] if self.tail else None
        judged = [v.flagged for v in self.judge_signals(signals, [False] * len(answered), beyond)]
        offline = Rate.of([flagged for flagged in judged if flagged is not None])
        stopped = self.prefix.stops(signals, np.array([trace.steps for trace in answered], dtype=np.int64)) > 0
        if self.tail and beyond is not None:
            stopped |= np.array([self.tail.stop(row, self.spec.steps) > 0 for row in beyond], dtype=bool)
        online = Rate.of(stopped)
        return replace(
            self,
            checked=dict(self.checked) | {name: offline},
            checked_online=dict(self.checked_online) | {name: online},
        )

    # -- files ------------------------------------------------------------------------------------------------------

    def save(self, path: str | Path) -> Path:
        """Writes one safetensors file with the card in its header. Never a pickle."""
        arrays: dict[str, NDArray[Any]] = {f"anchors/{name}": array for name, array in self.anchors.arrays.items()}
        state, detector = state_of(self.detector)
        arrays |= {f"detector/{name}": array for name, array in state.items()}
        arrays["band"] = self.band
        arrays |= {"prefix/centre": self.prefix.centre, "prefix/scale": self.prefix.scale}
        card = {
            "spec": self.spec.plain(),
            "anchors": self.anchors.card,
            "detector": detector,
            "threshold": asdict(self.threshold),
            "prefix": asdict(self.prefix.threshold),
            "n_fit": self.n_fit,
            "fitted": list(self.fitted),
            "calibrated": list(self.calibrated),
            "refused": self.refused,
            "checked": {name: [rate.k, rate.n] for name, rate in self.checked.items()},
        }
        if self.checked_online:
            card["checked_online"] = {name: [rate.k, rate.n] for name, rate in self.checked_online.items()}
        if self.stability is not None:
            card["stability"] = self.stability.plain()
        if self.tail is not None:
            card["tail"] = asdict(self.tail)
        return artefact.save(path, "guard", arrays, json.loads(json.dumps(card)))

    @classmethod
    def load(cls, path: str | Path, spec: Spec | None = None, *, detector: type[Detector] | str | None = None) -> Guard:
        """Reads what :meth:`save` wrote, also what version 0.1.0 wrote. Raises for a missing, broken or changed file,
        and if ``spec`` is another one.

        ``detector``: the class, or ``module:Class``, where the file's detector is neither built in nor offered by an
        installed package. A file is not allowed to say what is imported.
        """
        arrays, card = artefact.load(path, "guard")
        with artefact.reading(path, "guard"):
            guard = cls._of_card(arrays, card, named(detector) if isinstance(detector, str) else detector)
        if spec is not None:
            guard.check(spec)
        return guard

    @classmethod
    def _of_card(
        cls, arrays: Mapping[str, NDArray[Any]], card: Mapping[str, Any], detector: type[Detector] | None
    ) -> Guard:
        """A guard from what its file holds. Raises TypeError, ValueError or KeyError for what is none."""
        of = {
            part: {
                name.removeprefix(f"{part}/"): array for name, array in arrays.items() if name.startswith(f"{part}/")
            }
            for part in ("anchors", "prefix", "detector")
        }
        spec = artefact.made(Spec, card["spec"])
        anchors = Anchors.of_card(of["anchors"], card["anchors"], spec)
        if "losses" in card:  # on the top only version 0.1.0 has them
            of["detector"], card = _of_version_1(of["detector"], card)
        made = restored(_class_of(card["detector"]["name"], detector), of["detector"], card["detector"])
        threshold, online = (artefact.made(Threshold, card[name]) for name in ("threshold", "prefix"))
        prefix = Prefix(made, of["prefix"]["centre"], of["prefix"]["scale"], online)
        for name, array, shape in (
            ("prefix/centre", prefix.centre, (spec.steps,)),
            ("prefix/scale", prefix.scale, (spec.steps,)),
            ("band", arrays["band"], (2, spec.steps)),
        ):
            if array.shape != shape or array.dtype.kind != "f":
                raise ValueError(f"{name} is {array.dtype} of shape {array.shape} for a spec of T {spec.steps}")
        if not ((prefix.scale > 0) & np.isfinite(prefix.scale) & np.isfinite(prefix.centre)).all():
            raise ValueError("prefix/centre or prefix/scale is not finite, or a scale not above 0")  # it would pass all
        scored(made, np.full((1, spec.steps), 0.5))  # a detector of another T is noticed here
        said = {name: card[name] for name in ("fitted", "calibrated", "n_fit", "refused")}
        check_counts(card, ("checked", "checked_online"))
        rates = {
            name: {str(of_what): Rate(*pair) for of_what, pair in card.get(name, {}).items()}
            for name in ("checked", "checked_online")
        }
        whole = said | rates | {"anchors": anchors, "detector": made, "threshold": threshold, "prefix": prefix}
        whole["stability"] = Stability.of(card["stability"]) if "stability" in card else None
        if "tail" in card:
            limit = artefact.made(Threshold, card["tail"]["threshold"])
            whole["tail"] = artefact.made(Tail, dict(card["tail"]) | {"threshold": limit})
            if whole["tail"].upto <= spec.steps or not keeps_states(spec):
                raise ValueError(f"a tail up to token {whole['tail'].upto} for a spec of T {spec.steps}")
        guard = artefact.made(cls, whole | {"band": arrays["band"]})
        check_thresholds(guard.threshold, online, guard.tail, len(guard.calibrated))
        harmless = np.concatenate([guard.band, anchors.harmless_sigma[None]]).astype(np.float64)
        check_limits(made, prefix, guard.threshold, guard.tail, harmless)
        return guard


def _of_version_1(
    arrays: Mapping[str, NDArray[Any]], card: Mapping[str, Any]
) -> tuple[dict[str, NDArray[Any]], dict[str, Any]]:
    """What a file of version 0.1.0 says, in today's words: its detector was always the autoencoder."""
    old = card["detector"]
    names = {"weight": "weights", "bias": "biases"}
    new = {f"{names[part]}/{i}": array for (i, _, part), array in ((k.partition("/"), v) for k, v in arrays.items())}
    told = {
        "detector": {"name": "autoencoder", "tuples": ["weights", "biases"], "fields": {"losses": card["losses"]}},
        "threshold": {
            "value": -old["threshold_"],
            "alpha": old["alpha"],
            "rule": old["threshold"],
            "n": old["n_calibration_"],
        },
        "prefix": {
            "value": card["prefix"]["limit"],
            "alpha": card["prefix"]["alpha"],
            "rule": old["threshold"],
            "n": card["prefix"]["n"],
        },
        "n_fit": old["n_fit_"],
    }
    return new, dict(card) | told


def fit_guard(
    anchors: Anchors,
    fit: Sequence[Trace],
    calibrate: Sequence[Trace],
    *,
    alpha: float = 0.01,
    threshold: Rule = "conformal",
    seed: int = 0,
    detector: str | type[Detector] | Fit | None = None,
    upto: int = 0,
    progress: Callable[[str], object] = lambda what: None,
) -> Guard:
    """Fits a guard on traces of harmless prompts and calibrates it on traces of others.

    The paper's protocol (section 5) is 1,200 to fit on, 200 to calibrate on and ``threshold="quantile"``. Traces whose
    final text is a refusal are left out on both sides and counted.

    ``detector``: none for what goes with the anchors' signal (:func:`demur.guards.kits.detector_for`), such as ``last``
    for whitened anchors and the paper's ``autoencoder`` for its sigma. Or a name
    (:data:`demur.guards.detectors.DETECTORS`, or ``module:Class``), a class with ``fit``, or a function
    ``fit(harmless, seed=...)``, such as ``functools.partial(Autoencoder.fit, epochs=50)``.

    ``upto``: 0 looks at the first T steps alone, as the paper does. A larger number looks at whole answers, and
    promises for those of up to so many tokens; the answers to calibrate on must have had that room (``length=upto``).
    Half of ``alpha`` is then for the first T steps and half for what follows (:mod:`demur.guards.tail`).

    Raises for a prompt that is marked harmful, for one that stands on both sides or that the anchors were fitted on
    (its signal leans towards them, so that it is not like a new one's), for several answers to one prompt to calibrate
    a promise on (it counts prompts, each drawn as a new one is), for traces of another spec than the anchors',
    for too few, for a detector that breaks its contract (:func:`demur.guards.detectors.check`), and for a limit that no
    score can exceed: of finished signals, of unfinished ones, or of what follows step T. Raises for an alpha that is
    no share, and for another threshold. Warns of several answers to one prompt where nothing is promised of it: to fit
    on, and to calibrate a quantile on.
    """
    check_seed(seed)
    check_rule(threshold)
    check_share(alpha)
    given: Any = anchors
    if not isinstance(given, Anchors):
        came = f"a {type(given).__name__} in the place of anchors"
        raise DemurError(came, "anchors", "fit them: demur.anchors_of(model, harmless, harmful)")
    if not fits(upto, int):
        raise DemurError(f"upto={upto!r:.40}", "a whole number of tokens, or 0 for the first T steps alone", "mend it")
    fit, calibrate = as_traces(fit, "traces to fit on"), as_traces(calibrate, "traces to calibrate on")
    if detector is None:
        detector = detector_for(anchors)
    fit_of = _fit_of(detector)
    kept: list[list[Trace]] = []
    for name, traces in (("fit on", fit), ("calibrate on", calibrate)):
        _harmless(name, traces)
        kept.append([trace for trace in traces if not trace.refused()])
    hashes = [tuple(sorted({digest(trace.prompt) for trace in traces})) for traces in kept]
    if both := set(hashes[0]) & set(hashes[1]):
        raise InvalidData(f"{len(both)} prompts to fit and to calibrate on", "two sets", "split them by prompt")
    for name, asked in zip(("fit on", "calibrate on"), hashes, strict=True):
        _unseen(anchors, name, {*asked})
    _once("fit on", kept[0], only_said=True)
    _once("calibrate on", kept[1], only_said=threshold != "conformal")
    signals = [anchors.signals(traces) for traces in kept]
    if not len(signals[0]) or not len(signals[1]):
        raise InvalidData(
            f"{len(signals[0])} answered harmless prompts to fit on and {len(signals[1])} to calibrate on",
            "some of each",
            "this model refuses them: look at demur watch",
        )
    progress("fitting the detector")
    with _few("fit on", fit, kept[0]):
        made = fitted(fit_of, signals[0], signals[1], seed)
    first = alpha / 2 if upto else alpha
    with _few("calibrate on", calibrate, kept[1]):
        tail = fit_tail(anchors, kept[1], upto, alpha=first, rule=threshold) if upto else None
        limit = threshold_of(scored(made, signals[1]), first, threshold)
    check_limit(made, signals[1], limit)
    progress("calibrating the online guard")
    prefix = fit_prefix(made, *signals, alpha=first, rule=threshold, causal=keeps_states(anchors.spec))
    check_steps(made.name, prefix.able(), anchors.spec.steps)
    left_out = len(fit) + len(calibrate) - len(kept[0]) - len(kept[1])
    band = np.quantile(signals[1], [0.05, 0.95], axis=0)
    n_fit = len(signals[0])
    return Guard(anchors, made, limit, prefix, band, hashes[0], hashes[1], n_fit, left_out, tail=tail)


def _class_of(name: str, given: type[Detector] | None) -> type[Detector]:
    """The class of the detector that a file names. Raises if the one that is ``given`` is another."""
    if given is None:
        return named(name, anywhere=False)
    if name not in (getattr(given, "name", ""), name_of(given)) and name.partition(":")[2] != given.__qualname__:
        raise DemurError(f"a guard whose detector is {name!r:.80}", f"its class, not {name_of(given)}", "pass that one")
    return given


def _fit_of(detector: str | type[Detector] | Fit) -> Fit:
    """What fits a detector. Raises for what can not."""
    found: Any = named(detector) if isinstance(detector, str) else detector
    fit: Any = found.fit if isinstance(found, type) and hasattr(found, "fit") else found
    if not callable(fit) or hasattr(fit, "get_params"):
        raise InvalidData(
            f"a {type(detector).__name__} as detector",
            "a detector's name, its class, or a function that fits one",
            "alpha, threshold and seed are settings of fit_guard itself",
        )
    made: Fit = fit
    return made


def _marks(refused: Sequence[bool]) -> NDArray[np.bool_]:
    """Which rows refuse by themselves. Raises for what is no mark a row."""
    try:
        marks = marks_of(refused)
        came = f"of shape {marks.shape}"
    except DemurError as error:
        marks, came = np.empty((0, 0), dtype=bool), error.came
    if marks.ndim != 1:
        raise DemurError(f"refused: {came}", "True or False for each row", "say whether it refuses")
    return marks


def _harmless(what: str, traces: Sequence[Trace]) -> None:
    """Raises for prompts that are marked harmful."""
    if marked := [trace.prompt.id for trace in traces if trace.prompt.harmful]:
        raise InvalidData(
            f"{len(marked)} harmful prompts to {what} ({marked[0]} ...)", "harmless prompts only", "take them out"
        )


@contextmanager
def _few(what: str, traces: Sequence[Trace], answered: Sequence[Trace]) -> Iterator[None]:
    """Errors over what was answered say how much was not: somebody counts the prompts that they gave."""
    try:
        yield
    except InvalidData as error:
        if len(answered) == len(traces):
            raise
        refused = f"{len(traces) - len(answered)} of {len(traces)} prompts to {what} were refused by the model"
        raise InvalidData(f"{error.came}; {refused}", error.expected, error.then) from error


def _once(what: str, traces: Sequence[Trace], only_said: bool = False) -> None:
    """Raises for several answers to one prompt, or warns: they are no more facts than one, and would be counted as
    more.
    """
    asked = len({digest(trace.prompt) for trace in traces})
    if asked == len(traces):
        return
    came, then = f"{len(traces)} answers to {asked} prompts to {what}", "demur.prompts.distinct(prompts)"
    if only_said:
        said = f"{came}: they count as {asked}; take each prompt once: {then}"
        warnings.warn(said, DemurWarning, stacklevel=3)
        return
    raise InvalidData(came, "one answer to each prompt", f"take each prompt once: {then}")


def _unseen(anchors: Anchors, what: str, asked: set[str]) -> None:
    """Raises for prompts (hashes) that the anchors were fitted on."""
    if seen := asked & {*anchors.prompts}:
        raise InvalidData(
            f"{len(seen)} of {len(asked)} prompts to {what} are among those that the anchors were fitted on",
            "prompts that the anchors have not seen",
            "leave them out (anchors.prompts holds their hashes), or fit the anchors on others",
        )
