"""Asks a model and records what detectors read of its answers: :class:`~demur.ablation.material.Material`.

A row's dice depend on what is asked and on the seed, not on its place in a set: the same prompt has the same answer in
every split, and what was kept is not generated again.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from numpy.typing import NDArray

from demur.ablation.material import Material, request_of
from demur.dynamics.text import held
from demur.refusals import says_nothing
from demur.samplers import seeded, steps_of
from demur.traces import STEPS, Kept, Key, Recorder, Trace, default_sampler, spec_of, watching
from demur.traces.kept import check_bare, read_by_the_model
from demur.types import Canvas, DemurError, Model, Need, Prompt, Sampler, Spec, Step

ASKED: Any = ("last", "asked")
"""Where a kept trace holds the state of the last given token, beside its pooled states: one row."""


@dataclass(frozen=True, eq=False)
class Recorded:
    """One generation: its trace, and the last layer's state of the last given token before it began."""

    trace: Trace
    asked: Float[NDArray[np.float32], "d"]

    @property
    def whole(self) -> Trace:
        """Both in one trace, to be kept."""
        return replace(self.trace, phi={**self.trace.phi, ASKED: self.asked[None]})

    @classmethod
    def of(cls, whole: Trace) -> Recorded:
        """The same of a trace that was kept so."""
        (asked,) = whole.phi[ASKED]
        return cls(replace(whole, phi={key: phi for key, phi in whole.phi.items() if key != ASKED}), asked)


def gather(
    model: Model,
    name: str,
    prompts: Sequence[Prompt],
    sampler: Sampler | None = None,
    *,
    pools: Sequence[Key],
    recorded: Sequence[Key] | None = None,
    length: int | None = None,
    steps: int = STEPS,
    seed: int = 0,
    batch: int = 32,
    harm: Callable[[Trace], Sequence[bool]] | None = None,
    reads: Callable[[Trace], str] | None = None,
    group: Callable[[Prompt], str] = request_of,
    progress: Callable[[int], object] = lambda done: None,
    kept: Kept | None = None,
) -> Material:
    """Generates answers to prompts and keeps what detectors read, in all ``pools`` at once.

    ``recorded``: more than that is captured and ``kept`` (default: ``pools``), so that the same answers can be read
    again in other pools without generating; in memory there are ``pools`` only.

    ``length`` open places a prompt (None: the model's own); signals are cut at ``steps``. ``harm`` judges the text
    after every step, ``reads`` says how the final text reads; ``group`` names what a prompt asks for, whatever
    wraps it. What is ``kept`` is read and not generated again: then other rows share a batch, and a state may
    differ from a fresh one's in its last bits. ``progress`` is called with the number of prompts done. Raises for
    no prompts.
    """
    if not prompts:
        raise DemurError(f"no prompts for the set {name}", "at least one", "give more prompts")
    chosen = sampler if sampler is not None else default_sampler(model)
    length = model.default_length(steps) if length is None else length
    spec = spec_of(model, chosen, length, steps=steps)
    whole = pools if recorded is None else recorded
    # Prompts of like length share a batch; no row depends on its neighbours.
    ordered = sorted(prompts, key=lambda prompt: (len(prompt.text) + len(prompt.prefill), prompt.id))
    seeds = row_seeds(ordered, seed)
    found: dict[int, Recorded] = {}
    places = []
    if kept is not None:
        check_bare(chosen)
        states = [*whole, ASKED]
        places = [kept.place(model, spec, states, length, s, prompt) for s, prompt in zip(seeds, ordered, strict=True)]
        read = (kept.read(place, prompt) for place, prompt in zip(places, ordered, strict=True))
        found = {i: _only(Recorded.of(trace), pools) for i, trace in enumerate(read) if trace is not None}
    progress(len(found))
    missing = [i for i in range(len(ordered)) if i not in found]
    for begin in range(0, len(missing), batch):
        some = missing[begin : begin + batch]
        answers = _answered(model, [ordered[i] for i in some], chosen, spec, whole, length, [seeds[i] for i in some])
        for i, answer in zip(some, answers, strict=True):
            found[i] = _only(answer, pools)
            if kept is not None:
                kept.write(places[i], answer.whole)
        progress(len(found))
    every = [found[i] for i in range(len(ordered))]
    return material(
        name,
        [answer.trace for answer in every],
        np.stack([answer.asked for answer in every]),
        pools=pools,
        steps=steps,
        harm=harm,
        reads=reads,
        group=group,
    )


def _only(answer: Recorded, pools: Sequence[Key]) -> Recorded:
    """An answer with the states of ``pools`` alone."""
    return replace(answer, trace=replace(answer.trace, phi={key: answer.trace.phi[key] for key in pools}))


def row_seeds(prompts: Sequence[Prompt], seed: int) -> list[int]:
    """Where each prompt's dice begin, below 2**48: by what the model reads, ``seed``, and how often it was asked before
    in this set, so that a prompt that stands there twice gets two answers.
    """
    before: Counter[str] = Counter()
    seeds = []
    for prompt in prompts:
        asked = json.dumps(read_by_the_model(prompt))
        whole = json.dumps([seed, before[asked], asked])
        before[asked] += 1
        seeds.append(int.from_bytes(hashlib.sha256(whole.encode("utf-8", "surrogatepass")).digest()[:6]))
    return seeds


def _answered(
    model: Model,
    prompts: Sequence[Prompt],
    sampler: Sampler,
    spec: Spec,
    pools: Sequence[Key],
    length: int,
    seeds: list[int],
) -> list[Recorded]:
    """One batch. Each trace's spec has the seed of its own row: ``generate`` with it gives the trace again."""
    watched, noting = watching(model, pools), Noting(sampler)
    canvas = watched.canvas(prompts, length)
    recorder = Recorder(watched, canvas, prompts, spec, pools)
    for _ in recorder(noting(watched, canvas, [dice for s in seeds for dice in seeded(s, 1)])):
        pass
    traces = [replace(t, spec=replace(spec, seed=s)) for t, s in zip(recorder.traces(), seeds, strict=True)]
    (asked,) = noting.states
    return [Recorded(trace, state) for trace, state in zip(traces, asked, strict=True)]


def material(
    name: str,
    traces: Sequence[Trace],
    asked: Float[NDArray[np.float32], "n d"],
    *,
    pools: Sequence[Key],
    steps: int = STEPS,
    harm: Callable[[Trace], Sequence[bool]] | None = None,
    reads: Callable[[Trace], str] | None = None,
    group: Callable[[Prompt], str] = request_of,
) -> Material:
    """The same from traces that are at hand."""
    refusals = [[trace.refused(t) for t in range(1, trace.steps + 1)] for trace in traces]
    harms = None if harm is None else [list(harm(trace)) for trace in traces]

    def marks(paths: Sequence[Sequence[bool]]) -> Bool[NDArray[np.bool_], "n T"]:
        return np.array([held(path, steps) for path in paths], dtype=bool).reshape(len(traces), steps)

    def last(paths: Sequence[Sequence[bool]]) -> Bool[NDArray[np.bool_], "n"]:
        return np.array([path[-1] for path in paths], dtype=bool)

    return Material(
        name,
        {key: np.stack([trace.aligned(*key, steps) for trace in traces]) for key in pools},
        asked,
        marks(refusals),
        None if harms is None else marks(harms),
        last(refusals),
        None if harms is None else last(harms),
        np.array([trace.steps for trace in traces], dtype=np.int64),
        tuple(group(trace.prompt) for trace in traces),
        () if reads is None else tuple(reads(trace) for trace in traces),
        np.array([says_nothing(trace.said()) for trace in traces], dtype=bool),
    )


# ---------------------------------------------------------------------------------------------------------------------
# What is known before anything is generated


@torch.no_grad()
def last_given(model: Model, canvas: Canvas) -> Float[NDArray[np.float32], "n d"]:
    """The last layer's state of the last given token before the first open place, from one pass over the start canvas.

    Causal models pass what is given only.
    """
    watched = model.watching("last")
    first = canvas.open.long().argmax(dim=1)
    if Need.CAUSAL in model.offers:
        out = watched.forward(canvas, None, upto=int(first.max()))
    else:
        out = watched.forward(canvas, torch.zeros_like(canvas.open))
    states = out.hidden["last"]
    return np.asarray(states[torch.arange(canvas.rows), first - 1 - out.start].float().cpu().numpy())


class Noting:
    """A sampler that notes the state of :func:`last_given` for each canvas it fills, from its own first pass where that
    shows it.
    """

    def __init__(self, sampler: Sampler) -> None:
        self.undefended = sampler
        self.states: list[Float[NDArray[np.float32], "n d"]] = []

    def __call__(self, model: Model, canvas: Canvas, rngs: Any) -> Iterator[Step]:
        """The sampler's steps."""
        for step in steps_of(self.undefended, model, canvas, rngs):
            if step.index == 0:
                self.states.append(_last_given(model, canvas, step))
            yield step


def _last_given(model: Model, canvas: Canvas, step: Step) -> Float[NDArray[np.float32], "n d"]:
    states = step.hidden.get("last")
    column = canvas.open.long().argmax(dim=1) - 1 - step.start
    if step.span == "new":  # what produced the first token is the state of the one before
        column = torch.zeros_like(column)
    if states is None or bool(((column < 0) | (column >= states.shape[1])).any()):
        return last_given(model, canvas)
    return np.asarray(states[torch.arange(canvas.rows), column].float().cpu().numpy())
