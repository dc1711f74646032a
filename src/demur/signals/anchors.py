"""Anchors: the mean step representations of complying and of refusing, and the signals of traces between them."""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import Float, Int
from numpy.typing import NDArray

from demur import artefact
from demur.kinds import check_is, has_no_order
from demur.signals.recent import keeps_states, recent
from demur.signals.shown import Shown, reading
from demur.signals.sigma import EPS, TAU, between, directions_of, refusal_signal, says_nothing, sigma_of
from demur.signals.whitened import Whitened
from demur.traces import Trace
from demur.types import DemurError, DemurWarning, Prompt, Spec

STATES = ("layer", "pool", "signal")
"""What a spec says of pooled states and how they are read: the anchors' own, since traces may hold several."""
SignalName = Literal["sri", "whitened"]
SIGNALS: tuple[SignalName, ...] = ("sri", "whitened")
"""How anchors read states: the paper's sigma, or along a whitened direction."""
_GROUP = 16  # so many traces' states are held in float64 at once


def digest(prompt: Prompt) -> str:
    """Sixteen hex digits of what a model is asked: system prompt, earlier turns, text and prefill."""
    earlier = [[[turn.role, turn.content] for turn in prompt.messages]] if prompt.messages else []
    asked = json.dumps([prompt.system, prompt.text, prompt.prefill, *earlier])
    return hashlib.sha256(asked.encode()).hexdigest()[:16]


def as_traces(traces: Any, called: str = "traces") -> list[Trace]:
    """Traces as a list. Raises for what is none: one trace, prompts, the paths of files."""
    listed = isinstance(traces, Iterable) and not isinstance(traces, str | bytes) and not has_no_order(traces)
    found = list(traces) if listed else [traces]
    wrong = [one for one in found if not (listed and isinstance(one, Trace))]
    if wrong:
        alone = isinstance(wrong[0], Trace)
        raise DemurError(
            f"{'one trace' if alone else f'a {type(wrong[0]).__name__}'} in the place of {called}",
            "a list of traces",
            "put it into a list: [trace]" if alone else "make them: demur.generate(model, prompts)",
        )
    return found


@dataclass(frozen=True, eq=False)
class Anchors:
    """Mean step representations of complying and of refusing, one each per step, for one spec.

    ``refusals``: ``observed`` (harmful prompts that the model refused) or ``scripted`` (a written refusal replayed
    after each harmful prompt, for models that refuse nothing). ``harmless_sigma`` and ``harmful_sigma`` are the mean
    signals of the very traces they were fitted on, as references for pictures, not as measurements.

    ``prompts`` are hashes (:func:`digest`) of all prompts that were asked, on both sides, sorted: their signals lean
    towards the anchors, so nobody may calibrate or measure on them. Empty where it is not known (older files).

    ``whitened`` reads states in place of the cosines to both anchors, where the spec's ``signal`` says so
    (:mod:`demur.signals.whitened`). Then the harmful side is every answer to a harmful request, ``n_refused`` of which
    are refusals; otherwise it is refusals alone.
    """

    harmless: Float[NDArray[np.float32], "T d"]
    harmful: Float[NDArray[np.float32], "T d"]
    harmless_sigma: Float[NDArray[np.float32], "T"]
    harmful_sigma: Float[NDArray[np.float32], "T"]
    spec: Spec
    refusals: Literal["observed", "scripted"]
    n_harmless: int
    n_harmful: int
    asked_harmless: int
    asked_harmful: int
    prompts: tuple[str, ...] = ()
    n_refused: int = 0
    whitened: Whitened | None = None

    def __repr__(self) -> str:
        """In short: what they are of, and of how many answers."""
        where = f"{self.spec.model}, {self.spec.sampler}, {self.spec.layer}/{self.spec.pool}, T {self.spec.steps}"
        where += f", {self.signal_name}" if self.whitened is not None else ""
        kept = f"{self.n_harmless} answered, {self.harmful_side}"
        return f"Anchors({where}; {kept})"

    @property
    def harmful_side(self) -> str:
        """What the harmful anchor is the mean of, in words."""
        if self.whitened is None or self.refusals == "scripted":
            return f"{self.n_harmful} refused ({self.refusals})"
        return f"{self.n_harmful} harmful ones, {self.n_refused} of them refused"

    @property
    def warning(self) -> str:
        """What must be said wherever these anchors are used; empty for the paper's, of observed refusals."""
        if self.refusals == "observed":
            whitened = "Whitened anchors: low sigma means 'like answers to harmful requests', refused or not."
            return whitened if self.whitened is not None else ""
        return (
            "Scripted anchors: this model's refusal anchor comes from written refusals replayed after harmful prompts, "
            "not from refusals of its own. Low sigma means 'like reading a refusal', not 'about to refuse'."
        )

    @property
    def references(self) -> tuple[tuple[str, tuple[float, ...]], ...]:
        """Named curves for pictures: the mean signals of the two sides that the anchors were fitted on."""
        observed = "prompts that were refused" if self.whitened is None else "harmful prompts"
        refused = "written refusals" if self.refusals == "scripted" else observed
        curves = (("prompts that were answered", self.harmless_sigma), (refused, self.harmful_sigma))
        return tuple((name, tuple(float(value) for value in curve)) for name, curve in curves)

    def show(self, traces: Trace | Sequence[Trace], *, show_harmful: bool = False) -> Shown:
        """Traces with their signals, step by step: in a notebook, the page; ``.save("x.html")`` writes it.

        Redacted as every view (:func:`demur.redaction.hidden`) unless ``show_harmful``. Raises for no trace, and for
        one that was not made under the anchors' spec.
        """
        shown = as_traces([traces] if isinstance(traces, Trace) else traces)
        notes = [self.warning] if self.warning else []
        scenes = []
        for trace, sigma in zip(shown, self.signals(shown), strict=True):
            own = [*sigma[: trace.steps].tolist(), *(self.beyond(trace).tolist() if keeps_states(self.spec) else ())]
            title = f"{trace.prompt.label}: {trace.spec.model}, {trace.spec.sampler}"
            scenes.append(
                trace.scene(
                    own,
                    show_harmful=show_harmful,
                    title=title,
                    verdict=reading(trace, own),
                    notes=notes,
                    references=self.references,
                )
            )
        if not scenes:
            raise DemurError("no traces", "at least one", "generate some first: demur.generate(model, prompts)")
        return Shown(tuple(scenes))

    @property
    def signal_name(self) -> SignalName:
        """How states are read, one of :data:`SIGNALS`."""
        return "sri" if self.whitened is None else "whitened"

    def signal(self, trace: Trace, *, tau: float = TAU, eps: float = EPS) -> Float[NDArray[np.float64], "T"]:
        """sigma of a trace. Raises, naming both sides, if the trace was not made under the anchors' spec.

        ``tau`` and ``eps`` are those of the paper's sigma; another value is an error for whitened anchors.
        """
        if not isinstance(trace, Trace):
            raise DemurError(
                f"a {type(trace).__name__} instead of a trace", "one trace", "several: anchors.signals(traces)"
            )
        if (tau, eps) == (TAU, EPS):
            sigma: Float[NDArray[np.float64], "T"] = self.signals([trace])[0]
            return sigma
        self.check(trace.spec, leaving=STATES)
        if self.whitened is not None:
            raise DemurError(f"tau {tau} and eps {eps} for whitened anchors", "none: they have none", "leave both out")
        phi = trace.aligned(self.spec.layer, self.spec.pool)  # type: ignore[arg-type]
        return refusal_signal(phi, self.harmless, self.harmful, tau=tau, eps=eps)

    def signals(self, traces: Sequence[Trace]) -> Float[NDArray[np.float64], "n T"]:
        """sigma of several traces, row by row what :meth:`signal` gives. Raises as that does."""
        traces = as_traces(traces)
        for spec in {id(trace.spec): trace.spec for trace in traces}.values():  # traces of one batch share theirs
            self.check(spec, leaving=STATES)
        found = np.empty((len(traces), self.spec.steps))
        for begin in range(0, len(traces), _GROUP):
            group = traces[begin : begin + _GROUP]
            states = [trace.aligned(self.spec.layer, self.spec.pool) for trace in group]  # type: ignore[arg-type]
            phi = np.stack(states) if len(states) > 1 else states[0][None]
            found[begin : begin + _GROUP] = self.at(phi, 0)
        return found

    def beyond(self, trace: Trace) -> Float[NDArray[np.float64], "k"]:
        """sigma behind step T: of the last T tokens alone, after steps T + 1 ... s, against the anchors of step T.
        Empty for an answer of at most T tokens (:mod:`demur.signals.recent`).

        Raises as :meth:`signal` does, and for a sampler under which a token's state goes on changing.
        """
        (trace,) = as_traces([trace])
        self.check(trace.spec, leaving=STATES)
        if not keeps_states(self.spec):
            raise DemurError(
                f"the signal of {self.spec.sampler} behind step {self.spec.steps}",
                "a sampler that writes from left to right",
                "fit anchors with more steps, so that T covers the whole answer",
            )
        phi = trace.aligned(self.spec.layer, self.spec.pool, trace.steps)  # type: ignore[arg-type]
        return self.at_last(recent(phi, self.spec.steps))

    def at_last(self, phi: Float[NDArray[np.float32], "k d"]) -> Float[NDArray[np.float64], "k"]:
        """sigma of k states, each against the anchors of step T."""
        found: Float[NDArray[np.float64], "k"] = self.at(phi[:, None], len(self.harmless) - 1)[:, 0]
        return found

    @cached_property
    def directions(self) -> Float[NDArray[np.float64], "T 2 d"]:
        """Unit vectors of both anchors of every step, the harmful one first; taken once. Warns of anchors that tell
        nothing (:func:`demur.signals.sigma.says_nothing`).
        """
        if said := says_nothing(self.harmless, self.harmful):
            warnings.warn(f"anchors of {self.spec.model}: {said}", DemurWarning, stacklevel=4)
        return directions_of(self.harmless, self.harmful, EPS)

    def at(self, phi: Float[NDArray[Any], "b k d"], t: int) -> Float[NDArray[np.float64], "b k"]:
        """sigma of k steps from t on (counted from 0) of b rows: bit for bit what :meth:`signal` gives of them."""
        if self.whitened is not None:
            return self.whitened(phi, t)
        return between(phi, self.directions[t : t + phi.shape[1]], TAU, EPS)

    def each(
        self, phi: Float[NDArray[Any], "b d"], steps: Int[NDArray[np.int64], "b"]
    ) -> Float[NDArray[np.float64], "b"]:
        """The same of b states, each at a step of its own (counted from 0)."""
        if self.whitened is not None:
            return self.whitened.each(phi, steps)
        return between(phi, self.directions[steps], TAU, EPS)

    @property
    def tables(self) -> tuple[NDArray[Any], ...]:
        """What the products are taken with that sigma is made of: unit vectors (:attr:`directions`), or those of
        :attr:`demur.signals.whitened.Whitened.tables`.
        """
        return (self.directions,) if self.whitened is None else self.whitened.tables

    def of_products(
        self, products: Float[NDArray[np.float64], "b 3"], steps: Int[NDArray[np.int64], "b"]
    ) -> Float[NDArray[np.float64], "b"]:
        """sigma of states of which only their products are known, at these steps (counted from 0): as
        :func:`demur.signals.sigma.sigma_of` or :meth:`demur.signals.whitened.Whitened.sigma_of` takes them.
        """
        seen = np.isfinite(products).all(axis=1, keepdims=True)
        products = np.where(seen, products, np.nan)  # one that is infinite is nan, as in the products of states
        if self.whitened is not None:
            along, square, taken_out = products.T
            return self.whitened.sigma_of(along, square, taken_out, steps)
        return sigma_of(products[:, :2], products[:, 2], TAU, EPS)

    def check(self, spec: Spec, leaving: Container[str] = (), of: Literal["anchors", "guard"] = "anchors") -> None:
        """Raises, naming both sides, unless traces of ``spec`` may be measured with these anchors.

        ``leaving``: fields that need not agree; a trace, whose spec names no layer, leaves :data:`STATES`. ``of`` is
        whose they are: a guard brings its own, and no others would help. Warns of anchors that did not keep the day.
        """
        check_is(spec, Spec, "a spec", "that of a trace: trace.spec")
        self.check_same(spec, leaving, of)
        if spec.day and not self.spec.source:
            warnings.warn(
                f"{spec.model} writes the day into its prompts, and these anchors are of version 0.1.0, which did not "
                "keep the day: the signal may be off a little; fit them again",
                DemurWarning,
                stacklevel=3,
            )

    def check_same(self, spec: Spec, leaving: Container[str] = (), of: Literal["anchors", "guard"] = "anchors") -> None:
        """Raises as :meth:`check` does, and warns of nothing."""
        if different := spec.differences(self.spec, leaving):
            whose = {"anchors": "anchors", "guard": "a guard"}[of]
            how = {"anchors": "anchors_of(model, ...)", "guard": "demur.guards.fit_guard"}[of]
            raise DemurError(
                f"{whose} of another spec, {self.spec.model} for a trace of {spec.model} "
                f"(trace against {of}: {'; '.join(different)})",
                f"{of} and trace of one model, layer, pooling mode, sampler, T and chat template",
                f"ask as was asked for the fit, or fit {whose} for this one: demur {of} fit {spec.model}, or {how}",
            )

    def save(self, path: str | Path) -> Path:
        """Writes one safetensors file with the card in its header."""
        return artefact.save(path, "anchors", self.arrays, {"spec": self.spec.plain()} | self.card)

    @property
    def arrays(self) -> dict[str, NDArray[Any]]:
        """What a file holds beside its header."""
        arrays = {name: getattr(self, name) for name in ("harmless", "harmful", "harmless_sigma", "harmful_sigma")}
        return arrays if self.whitened is None else arrays | self.whitened.arrays

    @property
    def card(self) -> dict[str, Any]:
        """What a file's header says beside the spec. Without ``prompts`` if there are none, as in older files: these
        keep their bytes.
        """
        counts = ("refusals", "n_harmless", "n_harmful", "asked_harmless", "asked_harmful")
        known: dict[str, Any] = {"prompts": list(self.prompts)} if self.prompts else {}
        if self.whitened is not None:
            known["n_refused"] = self.n_refused
        return {name: getattr(self, name) for name in counts} | known

    @classmethod
    def load(cls, path: str | Path) -> Anchors:
        """Reads what :meth:`save` wrote. Raises for a missing, broken or changed file."""
        arrays, card = artefact.load(path, "anchors")
        with artefact.reading(path, "anchors"):
            spec = artefact.made(Spec, card.pop("spec"))
            return cls.of_card(arrays, card, spec)

    @classmethod
    def of_card(cls, arrays: Mapping[str, NDArray[Any]], card: Mapping[str, Any], spec: Spec) -> Anchors:
        """Anchors from arrays and a :attr:`card`. Raises TypeError, ValueError or KeyError for what are none."""
        shape = (spec.steps, *arrays["harmless"].shape[1:])
        kept: dict[str, tuple[int, ...]] = {
            "harmless": shape,
            "harmful": shape,
            "harmless_sigma": shape[:1],
            "harmful_sigma": shape[:1],
        }
        if spec.signal:
            kept |= Whitened.shapes(spec.steps, shape[-1], len(arrays["whitened_loud"]))
        if spec.signal not in ("", "whitened") or {*arrays} != {*kept}:
            raise ValueError(f"the signal {spec.signal!r:.40} with the arrays {', '.join(sorted(arrays))}")
        for name, expected in kept.items():
            if arrays[name].shape != expected or arrays[name].dtype.kind != "f" or len(shape) != 2:
                found = f"{arrays[name].dtype} of shape {arrays[name].shape}"
                raise ValueError(f"{name} is {found} for a spec of T {spec.steps}")
            if not np.isfinite(arrays[name]).all():
                raise ValueError(f"{name} is not finite")
        own = {name: array for name, array in arrays.items() if not name.startswith("whitened_")}
        whitened = Whitened.of(arrays) if spec.signal else None
        return artefact.made(cls, {**own, **card, "spec": spec, "whitened": whitened})
