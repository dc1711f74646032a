"""The SRI signal: where a step's representation stands between refusing and complying.

Rahimi et al., *Step-Wise Refusal Dynamics in Autoregressive and Diffusion Language Models*,
arXiv:2602.02600, section 3.1.
"""

from __future__ import annotations

import hashlib
import json
import warnings
from collections.abc import Callable, Container, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray
from scipy.special import expit

from demur import artefact
from demur.page import fragment, page
from demur.refusals import SCRIPTED
from demur.scene import ZONES, Scene
from demur.trace import DEFAULT, STEPS, Key, Trace, generate, teacher_forced
from demur.types import DemurError, DemurWarning, Layer, Pool, Prompt, Spec

TAU, EPS = 0.1, 1e-8
STATES = ("layer", "pool")
"""What a spec says of pooled states: the anchors' own, since traces may hold several."""
_GROUP = 16  # so many traces' states are held in float64 at once


def refusal_signal(
    phi: Float[NDArray[Any], "... t d"],
    harmless: Float[NDArray[Any], "T d"],
    harmful: Float[NDArray[Any], "T d"],
    *,
    tau: float = TAU,
    eps: float = EPS,
) -> Float[NDArray[np.float64], "... t"]:
    """sigma in [0, 1] for every step: 1 = compliance-aligned, 0 = refusal-aligned (section 3.1).

    sigma_t = sigmoid((log(d_harmful + eps) - log(d_harmless + eps)) / tau) with cosine distances d to the anchors of
    step t. ``phi`` may be a prefix (t <= T). Computed in float64 whatever comes, d >= 0: in bf16 1 - cos quantises,
    and 1 - cos slightly below 0 would give nan. Finite for every finite input, nan for a state that
    is not finite; a zero vector is at distance 1 of all.

    Lists and tensors of any library, dtype and device are taken as well. Raises for anchors with fewer steps than
    ``phi``, for another hidden size, and for what is no array of real numbers.
    """
    phi, harmless, harmful = (_numbers(name, a) for name, a in zip(_GIVEN, (phi, harmless, harmful), strict=True))
    if not (tau > 0 and eps > 0):
        raise DemurError(f"tau {tau} and eps {eps}", "both above 0", f"the paper's are {TAU} and {EPS}")
    shape = np.shape(phi)
    t = shape[-2] if len(shape) > 1 else 0
    alike = min(len(shape), harmless.ndim) > 1 and harmless.shape == harmful.shape == (len(harmless), shape[-1])
    if not alike or len(harmless) < t:
        raise DemurError(
            f"phi {shape} with anchors {harmless.shape} and {harmful.shape}",
            "anchors of the same hidden size and at least as many steps",
            "fit anchors with the same model and T",
        )
    harmless, harmful = (np.asarray(a, dtype=np.float64) for a in (harmless, harmful))
    return _between(phi, _directions(harmless[:t], harmful[:t], eps), tau, eps)


_GIVEN = ("phi", "harmless", "harmful")


def _numbers(name: str, given: Any) -> NDArray[Any]:
    """What was given as an array that NumPy can count with. Torch's bf16 and fp8, which NumPy lacks, become fp32."""
    try:
        if hasattr(given, "detach"):  # a tensor of torch, which need not be imported to know one
            given = given.detach().cpu()
            given = given.float() if given.is_floating_point() and given.element_size() < 8 else given
        elif isinstance(given, list | tuple) and any(hasattr(part, "detach") for part in given):
            given = [_numbers(name, part) for part in given]
        array = np.asarray(given)
        return array if array.dtype.kind in "fiu" else array.astype(np.float64, casting="same_kind")
    except (TypeError, ValueError, RuntimeError) as error:
        said = " ".join(str(error).split())[:100]
        raise DemurError(
            f"{name} is no array of numbers ({type(given).__name__}: {said})",
            "real numbers, in rows of one length",
            "give it an array, a tensor or nested lists",
        ) from error


def _directions(
    harmless: Float[NDArray[Any], "T d"], harmful: Float[NDArray[Any], "T d"], eps: float
) -> Float[NDArray[np.float64], "T 2 d"]:
    """Unit vectors of both anchors of every step, the harmful one first; norms stabilised as in the reference code."""
    return np.stack([_unit(np.asarray(a, dtype=np.float64), eps) for a in (harmful, harmless)], axis=1)


def _between(
    phi: Float[NDArray[Any], "... t d"], directions: Float[NDArray[np.float64], "t 2 d"], tau: float, eps: float
) -> Float[NDArray[np.float64], "... t"]:
    """sigma of states that fit the directions; see :func:`refusal_signal`, which checks that they do.

    Each row is summed up by itself: its bits do not depend on the batch, which a matrix product would not promise.
    """
    x = np.asarray(phi, dtype=np.float64)
    if phi.dtype == np.float32:  # no square of an fp32 number overflows here
        length = np.sqrt(np.vecdot(x, x))
    else:
        with np.errstate(over="ignore", invalid="ignore"):
            length = np.sqrt(np.vecdot(x, x))
            if (huge := np.isinf(length)).any():  # beyond 1e154; eps is nothing against such norms
                x, length = np.where(huge[..., None], _unit(x, 0.0), x), np.where(huge, 1.0, length)
    with np.errstate(invalid="ignore"):  # infinite states give nan, which guards look for
        cosines = np.vecdot(x[..., None, :], directions) / (length + eps)[..., None]
    logs = np.log(np.maximum(1.0 - cosines, 0.0) + eps)
    sigma: Float[NDArray[np.float64], "... t"] = expit((logs[..., 0] - logs[..., 1]) / tau)
    return sigma


def _unit(x: NDArray[np.float64], eps: float) -> NDArray[np.float64]:
    """x / (|x| + eps); scaled by the biggest element first, so that no square overflows or vanishes."""
    biggest = np.abs(x).max(axis=-1, keepdims=True)
    scale = np.where(biggest > 0, biggest, 1.0)
    scaled = x / scale
    norm = np.sqrt(np.vecdot(scaled, scaled))[..., None]
    with np.errstate(over="ignore"):  # eps over a denormal is infinite, and the unit vector 0, as it should be
        unit: NDArray[np.float64] = scaled / np.where(norm > 0, norm + eps / scale, 1.0)
    return unit


def digest(prompt: Prompt) -> str:
    """Sixteen hex digits of what a model is asked: system prompt, earlier turns, text and prefill."""
    earlier = [[[turn.role, turn.content] for turn in prompt.messages]] if prompt.messages else []
    asked = json.dumps([prompt.system, prompt.text, prompt.prefill, *earlier])
    return hashlib.sha256(asked.encode()).hexdigest()[:16]


@dataclass(frozen=True, eq=False)
class Anchors:
    """Mean step representations of complying and of refusing, one each per step, for one spec.

    ``refusals``: ``observed`` (harmful prompts that the model refused) or ``scripted`` (a written refusal replayed
    after each harmful prompt, for models that refuse nothing). ``harmless_sigma`` and ``harmful_sigma`` are the mean
    signals of the very traces they were fitted on, as references for pictures, not as measurements.

    ``prompts`` are hashes (:func:`digest`) of all prompts that were asked, on both sides, sorted: their signals lean
    towards the anchors, so nobody may calibrate or measure on them. Empty where it is not known (older files).
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

    def __repr__(self) -> str:
        """In short: what they are of, and of how many answers."""
        where = f"{self.spec.model}, {self.spec.sampler}, {self.spec.layer}/{self.spec.pool}, T {self.spec.steps}"
        kept = f"{self.n_harmless} answered, {self.n_harmful} refused ({self.refusals})"
        return f"Anchors({where}; {kept})"

    @property
    def warning(self) -> str:
        """What must be said wherever these anchors are used; empty for observed refusals."""
        if self.refusals == "observed":
            return ""
        return (
            "Scripted anchors: this model's refusal anchor comes from written refusals replayed after harmful prompts, "
            "not from refusals of its own. Low sigma means 'like reading a refusal', not 'about to refuse'."
        )

    @property
    def references(self) -> tuple[tuple[str, tuple[float, ...]], ...]:
        """Named curves for pictures: the mean signals of the two sides that the anchors were fitted on."""
        refused = "written refusals" if self.refusals == "scripted" else "prompts that were refused"
        curves = (("prompts that were answered", self.harmless_sigma), (refused, self.harmful_sigma))
        return tuple((name, tuple(float(value) for value in curve)) for name, curve in curves)

    def show(self, traces: Trace | Sequence[Trace], *, show_harmful: bool = False) -> Shown:
        """Traces with their signals, step by step: in a notebook, the page; ``.save("x.html")`` writes it.

        Redacted as every view (:func:`demur.redaction.hidden`) unless ``show_harmful``. Raises for no trace, and for
        one that was not made under the anchors' spec.
        """
        shown = [traces] if isinstance(traces, Trace) else list(traces)
        notes = [self.warning] if self.warning else []
        scenes = []
        for trace, sigma in zip(shown, self.signals(shown), strict=True):
            own = sigma[: trace.steps].tolist()
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

    def signal(self, trace: Trace, *, tau: float = TAU, eps: float = EPS) -> Float[NDArray[np.float64], "T"]:
        """sigma of a trace. Raises, naming both sides, if the trace was not made under the anchors' spec."""
        if (tau, eps) == (TAU, EPS):
            sigma: Float[NDArray[np.float64], "T"] = self.signals([trace])[0]
            return sigma
        self.check(trace.spec, leaving=STATES)
        phi = trace.aligned(self.spec.layer, self.spec.pool)  # type: ignore[arg-type]
        return refusal_signal(phi, self.harmless, self.harmful, tau=tau, eps=eps)

    def signals(self, traces: Sequence[Trace]) -> Float[NDArray[np.float64], "n T"]:
        """sigma of several traces, row by row what :meth:`signal` gives. Raises as that does."""
        for spec in {id(trace.spec): trace.spec for trace in traces}.values():  # traces of one batch share theirs
            self.check(spec, leaving=STATES)
        found = np.empty((len(traces), self.spec.steps))
        for begin in range(0, len(traces), _GROUP):
            group = traces[begin : begin + _GROUP]
            states = [trace.aligned(self.spec.layer, self.spec.pool) for trace in group]  # type: ignore[arg-type]
            phi = np.stack(states) if len(states) > 1 else states[0][None]
            found[begin : begin + _GROUP] = _between(phi, self.directions, TAU, EPS)
        return found

    @cached_property
    def directions(self) -> Float[NDArray[np.float64], "T 2 d"]:
        """Unit vectors of both anchors of every step, the harmful one first; taken once."""
        return _directions(self.harmless, self.harmful, EPS)

    def at(self, phi: Float[NDArray[Any], "b k d"], t: int) -> Float[NDArray[np.float64], "b k"]:
        """sigma of k steps from t on (counted from 0) of b rows: bit for bit what :meth:`signal` gives of them."""
        return _between(phi, self.directions[t : t + phi.shape[1]], TAU, EPS)

    def check(self, spec: Spec, leaving: Container[str] = ()) -> None:
        """Raises, naming both sides, unless traces of ``spec`` may be measured with these anchors.

        ``leaving``: fields that need not agree; a trace, whose spec names no layer, leaves :data:`STATES`.
        """
        if different := spec.differences(self.spec, leaving):
            raise DemurError(
                f"anchors of another spec, {self.spec.model} for a trace of {spec.model} "
                f"(trace against anchors: {'; '.join(different)})",
                "anchors and trace of one model, layer, pooling mode, sampler, T and chat template",
                f"fit anchors for this one: demur anchors fit {spec.model}, or anchors_of(model, ...)",
            )
        if spec.day and not self.spec.source:
            warnings.warn(
                f"{spec.model} writes the day into its prompts, and these anchors are of version 0.1.0, which did not "
                "keep the day: the signal may be off a little; fit them again",
                DemurWarning,
                stacklevel=3,
            )

    def save(self, path: str | Path) -> Path:
        """Writes one safetensors file with the card in its header."""
        arrays = {name: getattr(self, name) for name in ("harmless", "harmful", "harmless_sigma", "harmful_sigma")}
        return artefact.save(path, "anchors", arrays, {"spec": self.spec.plain()} | self.card)

    @property
    def card(self) -> dict[str, Any]:
        """What a file's header says beside the spec. Without ``prompts`` if there are none, as in older files: these
        keep their bytes.
        """
        counts = ("refusals", "n_harmless", "n_harmful", "asked_harmless", "asked_harmful")
        known: dict[str, Any] = {"prompts": list(self.prompts)} if self.prompts else {}
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
        shape, means = (spec.steps, *arrays["harmless"].shape[1:]), ("harmless", "harmful")
        for name in (*means, "harmless_sigma", "harmful_sigma"):
            expected = shape if name in means else shape[:1]
            if arrays[name].shape != expected or arrays[name].dtype.kind != "f" or len(shape) != 2:
                found = f"{arrays[name].dtype} of shape {arrays[name].shape}"
                raise ValueError(f"{name} is {found} for a spec of T {spec.steps}")
        return artefact.made(cls, {**arrays, **card, "spec": spec})


@dataclass(frozen=True, repr=False)
class Shown:
    """Scenes that a notebook draws as the page; :meth:`save` writes it as a file."""

    scenes: tuple[Scene, ...]

    def _repr_html_(self) -> str:
        return fragment(self.scenes)

    def __repr__(self) -> str:
        """In short, without a word of prompt or answer."""
        ends = ", ".join(f"{s.sigma[0]:.2f} to {s.sigma[-1]:.2f}" for s in self.scenes[:4] if s.sigma)
        more = ", ..." if len(self.scenes) > 4 else ""
        redacted = sum(scene.redacted for scene in self.scenes)
        return (
            f"Shown({len(self.scenes)} generations, {redacted} redacted; sigma from first to last step: {ends}{more})"
        )

    def save(self, path: str | Path) -> Path:
        """Writes one self-contained HTML page."""
        return artefact.write(Path(path), page(self.scenes))


def reading(trace: Trace, sigma: Sequence[float] | None) -> str:
    """What text and hidden states say of a whole generation, in plain words."""
    said = "The text reads as a refusal" if trace.refused() else "The text does not read as a refusal"
    if sigma is None or not len(sigma):
        return f"{said}."
    low, high = ZONES
    last = sigma[-1]
    zone = "in the zone of refusal" if last < low else "in the zone of compliance" if last > high else "in between"
    inside = f"The hidden state ends {zone} (sigma {last:.2f})"
    below = [t for t, value in enumerate(sigma, 1) if value <= high]
    above = [t for t, value in enumerate(sigma, 1) if value > high]
    if last > high and below:
        inside += f", after {len(below)} of {len(sigma)} steps at or below {high:g}; the first was step {below[0]}"
    elif last < low and above:
        inside += f", after {len(above)} of {len(sigma)} steps above {high:g}; the first was step {above[0]}"
    elif max(sigma) - min(sigma) < 0.05:
        inside += " and stays there from the first step on"
    return f"{said}. {inside}."


def fit_anchors(
    harmless: Sequence[Trace],
    harmful: Sequence[Trace],
    *,
    layer: Layer = "last",
    pool: Pool = "generated",
    refusals: Literal["observed", "scripted"] | None = None,
    at_least: int = 1,
) -> Anchors:
    """Anchors from traces: the mean of harmless ones that did not refuse and of harmful ones that did (section 3.1).

    Refusal is decided on the final text by the dictionary. ``refusals`` is scripted where the harmful traces were
    replayed (:func:`scripted_refusals`), so that nobody can forget to say so; name it to replay refusals that the model
    did write. Raises, with the counts, if a side keeps fewer than ``at_least`` (or none), and if specs differ.
    """
    complied = [trace for trace in harmless if not trace.refused()]
    refused = [trace for trace in harmful if trace.refused()]
    if min(len(complied), len(refused)) < max(at_least, 1):
        raise DemurError(
            f"{len(harmless) - len(complied)} of {len(harmless)} harmless and {len(refused)} of {len(harmful)} harmful "
            "prompts were refused",
            f"at least {max(at_least, 1)} answered of the harmless and {max(at_least, 1)} refused of the harmful ones",
            "use more prompts, or refusals='scripted' (--refusals scripted) for a model that refuses nothing",
        )
    spec = complied[0].spec
    for trace in [*complied, *refused]:
        if different := trace.spec.differences(spec):
            raise DemurError(f"traces of two specs ({'; '.join(different)})", "one", "generate them alike")
    if refusals is None:
        refusals = "scripted" if any(trace.origin == "replayed" for trace in refused) else "observed"
    phis = [np.stack([trace.aligned(layer, pool) for trace in group]) for group in (complied, refused)]
    good, bad = (phi.mean(axis=0, dtype=np.float64).astype(np.float32) for phi in phis)
    sigmas = [refusal_signal(phi, good, bad).mean(axis=0).astype(np.float32) for phi in phis]
    return Anchors(
        harmless=good,
        harmful=bad,
        harmless_sigma=sigmas[0],
        harmful_sigma=sigmas[1],
        spec=spec.at(layer, pool),
        refusals=refusals,
        n_harmless=len(complied),
        n_harmful=len(refused),
        asked_harmless=len(harmless),
        asked_harmful=len(harmful),
        prompts=tuple(sorted({digest(trace.prompt) for trace in (*harmless, *harmful)})),
    )


def scripted_refusals(
    model: Any,
    prompts: Sequence[Prompt],
    *,
    steps: int = STEPS,
    pools: Sequence[Key] = DEFAULT,
    sampler: Any = None,
) -> list[Trace]:
    """Written refusals replayed after prompts, in turn: the harmful side of anchors where a model refuses nothing."""
    texts = [SCRIPTED[i % len(SCRIPTED)] for i in range(len(prompts))]
    return teacher_forced(model, prompts, texts, steps=steps, pools=pools, sampler=sampler)


def anchors_of(
    model: Any,
    harmless: Sequence[Prompt],
    harmful: Sequence[Prompt],
    sampler: Any = None,
    *,
    length: int | None = None,
    steps: int = STEPS,
    layer: Layer = "last",
    pool: Pool = "generated",
    refusals: Literal["observed", "scripted"] = "observed",
    seed: int = 0,
    batch: int = 8,
    at_least: int = 1,
    progress: Callable[[str, int, int], object] = lambda what, done, of: None,
) -> Anchors:
    """Anchors of a model from prompts: runs it on both sets and calls :func:`fit_anchors`.

    ``refusals="scripted"`` replays written refusals after the harmful prompts instead of generating; the anchors say so
    wherever they are used. ``progress`` is called with what is being done, how many are done, of how many.
    Raises if fewer than ``at_least`` answers are left on a side, with the counts.
    """
    pools = [(layer, pool)]
    common: dict[str, Any] = {"length": length, "steps": steps, "seed": seed, "pools": pools, "batch": batch}

    def run(what: str, prompts: Sequence[Prompt]) -> list[Trace]:
        return generate(model, prompts, sampler, progress=lambda done: progress(what, done, len(prompts)), **common)

    good = run("answering harmless prompts", harmless)
    if refusals == "scripted":
        bad = scripted_refusals(model, harmful, steps=steps, pools=pools, sampler=sampler)
        progress("replaying written refusals", len(harmful), len(harmful))
    else:
        bad = run("answering harmful prompts", harmful)
    return fit_anchors(good, bad, layer=layer, pool=pool, refusals=refusals, at_least=at_least)
