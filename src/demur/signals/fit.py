"""Fitting anchors: from traces, from a model and prompts, and with written refusals for models that refuse nothing."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np

from demur.kinds import fits
from demur.refusals import SCRIPTED
from demur.signals.anchors import SIGNALS, Anchors, SignalName, as_traces, digest
from demur.signals.sigma import refusal_signal, says_nothing
from demur.signals.whitened import fit_whitened
from demur.traces import DEFAULT, STEPS, Kept, Key, Trace, generate, teacher_forced
from demur.traces.generation import as_prompts
from demur.types import DemurError, DemurWarning, Layer, Model, Pool, Prompt, Sampler


def fit_anchors(
    harmless: Sequence[Trace],
    harmful: Sequence[Trace],
    *,
    layer: Layer = "last",
    pool: Pool = "generated",
    signal: SignalName = "sri",
    refusals: Literal["observed", "scripted"] | None = None,
    at_least: int = 1,
) -> Anchors:
    """Anchors from traces: the mean of harmless ones that did not refuse and of harmful ones that did (section 3.1).
    Whitened anchors take every harmful one, refused or not.

    Refusal is decided on the final text by the dictionary. ``refusals`` is scripted where the harmful traces were
    replayed (:func:`scripted_refusals`), so that nobody can forget to say so; name it to replay refusals that the model
    did write. ``signal``: how the anchors read states, the paper's ``sri`` or ``whitened``
    (:mod:`demur.signals.whitened`). Raises, with the counts, if a side keeps fewer than ``at_least`` (or none), if
    specs differ, and for a harmless side with prompts that are marked as harmful. Warns where a side has
    several answers to one prompt.
    """
    harmless, harmful = as_traces(harmless, "harmless traces"), as_traces(harmful, "harmful traces")
    fitted = _fitted(harmless, harmful, layer, pool, signal, refusals, at_least)
    for side, traces in (("harmless", harmless), ("harmful", harmful)):
        if (asked := len({digest(trace.prompt) for trace in traces})) < len(traces):
            said = f"anchors: the {len(traces)} answers of the {side} side are to {asked} different prompts"
            warnings.warn(f"{said}: they count as {asked}", DemurWarning, stacklevel=2)
    return fitted


def _fitted(
    harmless: Sequence[Trace],
    harmful: Sequence[Trace],
    layer: Layer,
    pool: Pool,
    signal: SignalName,
    refusals: Literal["observed", "scripted"] | None,
    at_least: int,
) -> Anchors:
    """What :func:`fit_anchors` makes, without a word on prompts that come several times."""
    if signal not in SIGNALS:
        raise DemurError(f"the signal {signal!r:.40}", " or ".join(SIGNALS), "sri is the paper's")
    if refusals is not None:
        check_refusals(refusals)
    if not fits(at_least, int):
        raise DemurError(f"at_least={at_least!r:.40}", "a whole number", "for example: at_least=5")
    as_side([trace.prompt for trace in harmless], False)
    complied = [trace for trace in harmless if not trace.refused()]
    refused = [trace for trace in harmful if trace.refused()]
    bad_side = refused if signal == "sri" else list(harmful)
    if min(len(complied), len(bad_side)) < max(at_least, 1):
        wanted = "refused of the harmful ones" if signal == "sri" else "harmful ones"
        raise DemurError(
            f"{len(harmless) - len(complied)} of {len(harmless)} harmless and {len(refused)} of {len(harmful)} harmful "
            "prompts were refused",
            f"at least {max(at_least, 1)} answered of the harmless and {max(at_least, 1)} {wanted}",
            "use more prompts, or refusals='scripted' (--refusals scripted) for a model that refuses nothing",
        )
    spec = complied[0].spec
    for trace in [*complied, *bad_side]:
        if different := trace.spec.differences(spec):
            raise DemurError(f"traces of two specs ({'; '.join(different)})", "one", "generate them alike")
    if refusals is None:
        refusals = "scripted" if any(trace.origin == "replayed" for trace in bad_side) else "observed"
    phis = [np.stack([trace.aligned(layer, pool) for trace in group]) for group in (complied, bad_side)]
    good, bad = (phi.mean(axis=0, dtype=np.float64).astype(np.float32) for phi in phis)
    if "every step" in (said := says_nothing(good, bad)):
        raise DemurError(
            f"anchors of {spec.model} at {layer}/{pool} that tell nothing: {said.split('; ')[0]}",
            "states that differ between answers and refusals",
            "take another layer or pooling mode, and look whether both sides hold the same traces",
        )
    if said and signal == "whitened":  # the paper's are spoken of where sigma is reckoned
        warnings.warn(f"anchors of {spec.model}: {said}", DemurWarning, stacklevel=3)
    whitened = fit_whitened(*phis) if signal == "whitened" else None
    read = whitened or (lambda phi: refusal_signal(phi, good, bad))
    sigmas = [read(phi).mean(axis=0).astype(np.float32) for phi in phis]
    spec = spec.at(layer, pool, "" if whitened is None else signal)
    return Anchors(
        harmless=good,
        harmful=bad,
        harmless_sigma=sigmas[0],
        harmful_sigma=sigmas[1],
        spec=spec,
        refusals=refusals,
        n_harmless=len(complied),
        n_harmful=len(bad_side),
        asked_harmless=len(harmless),
        asked_harmful=len(harmful),
        prompts=tuple(sorted({digest(trace.prompt) for trace in (*harmless, *harmful)})),
        n_refused=0 if whitened is None else len(refused),
        whitened=whitened,
    )


def check_refusals(refusals: str) -> None:
    """Raises for what is no way to come by refusals."""
    if refusals not in ("observed", "scripted"):
        raise DemurError(
            f"refusals={refusals!r:.40}", "observed or scripted", "scripted: for models that refuse nothing"
        )


def as_side(prompts: Any, harmful: bool) -> list[Prompt]:
    """The prompts of one side of anchors. Raises for one text in place of them, and for prompts that are marked as of
    the other side: anchors of exchanged sides would read every answer the wrong way round.
    """
    side = "harmful" if harmful else "harmless"
    if isinstance(prompts, str):
        raise DemurError(f"one text in place of {side} prompts", "several", f"for example: demur.starter({side!r}, 40)")
    made = as_prompts(prompts)
    wrong = [prompt for prompt in made if prompt.harmful is (not harmful)]
    if wrong:
        raise DemurError(
            f"{len(wrong)} prompts of the {side} side are marked harmful={not harmful} ({wrong[0].label} ...)",
            f"prompts marked harmful={harmful}, or without a mark",
            "look whether both sides were exchanged: the harmless prompts come first",
        )
    return made


def as_sides(harmless: Any, harmful: Any) -> tuple[list[Prompt], list[Prompt]]:
    """The prompts of both sides (:func:`as_side`). Warns of prompts that are on both, and where one comes several times
    on a side.
    """
    good, bad = as_side(harmless, False), as_side(harmful, True)
    ours, theirs = ({digest(prompt) for prompt in side} for side in (good, bad))
    said = []
    if both := [prompt.label for prompt in bad if digest(prompt) in ours]:
        said = [f"{len(both)} prompts are on both sides ({both[0]} ...): what differs is how they were answered"]
    for side, prompts, different in (("harmless", good, ours), ("harmful", bad, theirs)):
        if len(different) < len(prompts):
            said.append(f"the {len(prompts)} prompts of the {side} side are {len(different)} different ones")
    for line in said:
        warnings.warn(f"anchors: {line}", DemurWarning, stacklevel=4)
    return good, bad


def scripted_refusals(
    model: Model,
    prompts: Sequence[Prompt],
    *,
    steps: int = STEPS,
    pools: Sequence[Key] = DEFAULT,
    sampler: Sampler | None = None,
) -> list[Trace]:
    """Written refusals replayed after prompts, in turn: the harmful side of anchors where a model refuses nothing."""
    prompts = as_prompts(prompts)
    texts = [SCRIPTED[i % len(SCRIPTED)] for i in range(len(prompts))]
    return teacher_forced(model, prompts, texts, steps=steps, pools=pools, sampler=sampler)


def anchors_of(
    model: Model,
    harmless: Sequence[Prompt],
    harmful: Sequence[Prompt],
    sampler: Sampler | None = None,
    *,
    layer: Layer = "last",
    pool: Pool = "generated",
    signal: SignalName = "sri",
    refusals: Literal["observed", "scripted"] = "observed",
    at_least: int = 1,
    **run: Any,
) -> Anchors:
    """Anchors of a model from prompts: runs it on both sets (:func:`anchor_traces`, which takes what is left of the
    settings) and makes what :func:`fit_anchors` makes. Raises if fewer than ``at_least`` answers are left on a
    side, with the counts.
    """
    good, bad = anchor_traces(model, harmless, harmful, sampler, pools=[(layer, pool)], refusals=refusals, **run)
    return _fitted(good, bad, layer, pool, signal, refusals, at_least)  # as_sides has said what comes several times


def anchor_traces(
    model: Model,
    harmless: Sequence[Prompt],
    harmful: Sequence[Prompt],
    sampler: Sampler | None = None,
    *,
    pools: Sequence[Key] = DEFAULT,
    length: int | None = None,
    steps: int = STEPS,
    refusals: Literal["observed", "scripted"] = "observed",
    seed: int = 0,
    batch: int = 8,
    progress: Callable[[str, int, int], object] = lambda what, done, of: None,
    kept: Kept | None = None,
) -> tuple[list[Trace], list[Trace]]:
    """The traces of both sides.

    ``refusals="scripted"`` replays written refusals after the harmful prompts instead of generating; anchors of them
    say so wherever they are used. Generations that are ``kept`` are not made again (:func:`demur.traces.generate`).
    ``progress`` is called with what is being done, how many are done, of how many.
    """
    check_refusals(refusals)
    harmless, harmful = as_sides(harmless, harmful)
    common: dict[str, Any] = {
        "length": length, "steps": steps, "seed": seed, "pools": pools, "batch": batch, "kept": kept
    }  # fmt: skip

    def run(what: str, prompts: Sequence[Prompt]) -> list[Trace]:
        return generate(model, prompts, sampler, progress=lambda done: progress(what, done, len(prompts)), **common)

    good = run("answering harmless prompts", harmless)
    if refusals == "scripted":
        bad = scripted_refusals(model, harmful, steps=steps, pools=pools, sampler=sampler)
        progress("replaying written refusals", len(harmful), len(harmful))
    else:
        bad = run("answering harmful prompts", harmful)
    return good, bad
