"""What detectors read of a set of generations, gathered once and used by all of them under one protocol."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from numpy.typing import NDArray

from demur.dynamics.text import held
from demur.signals import refusal_signal
from demur.trace import STEPS, Key, Trace, default_sampler, generate, spec_of
from demur.types import Canvas, DemurError, Need, Prompt, Spec, Step

States = Float[NDArray[np.float32], "n T d"]


@dataclass(frozen=True, eq=False)
class Material:
    """n generations of one model under one sampler.

    ``phi`` are pooled states by (layer, pooling mode); ``asked`` the last layer's state of the last given token before
    anything is generated; ``refused`` and ``harmful`` what the intermediate texts are (``harmful`` only where a judge
    of intermediate texts exists), held or cut at T.

    ``refused_at_last`` and ``harmful_at_last`` are of the *final* texts, which come after step T where a generation has
    more steps than T; without them the marks at T stand. ``taken`` are the steps that each generation took (default:
    T). ``groups`` name the request behind each generation, whatever wraps it (default: each its own). Raises for
    lengths that differ.
    """

    name: str
    phi: Mapping[Key, States]
    asked: Float[NDArray[np.float32], "n d"]
    refused: Bool[NDArray[np.bool_], "n T"]
    harmful: Bool[NDArray[np.bool_], "n T"] | None = None
    refused_at_last: Bool[NDArray[np.bool_], "n"] | None = None
    harmful_at_last: Bool[NDArray[np.bool_], "n"] | None = None
    taken: Int[NDArray[np.int64], "n"] | None = None
    groups: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        n = len(self.asked)
        parts = (*self.phi.values(), self.refused, self.harmful, self.refused_at_last, self.harmful_at_last, self.taken)
        lengths = [len(part) for part in (*parts, self.groups or None) if part is not None]
        if any(length != n for length in lengths):
            raise DemurError(f"{self.name}: {lengths} rows for {n} generations", "one row for each", "cut all alike")

    def __len__(self) -> int:
        return len(self.asked)

    def only(self, rows: Bool[NDArray[np.bool_], "n"]) -> Material:
        """The generations marked in ``rows``."""

        def cut(marks: Any) -> Any:
            return None if marks is None else marks[rows]

        return Material(
            self.name,
            {key: phi[rows] for key, phi in self.phi.items()},
            self.asked[rows],
            self.refused[rows],
            cut(self.harmful),
            cut(self.refused_at_last),
            cut(self.harmful_at_last),
            cut(self.taken),
            tuple(group for group, row in zip(self.groups, rows, strict=True) if row) if self.groups else (),
        )

    @property
    def steps(self) -> int:
        """T."""
        return int(self.refused.shape[1])

    @property
    def refused_finally(self) -> Bool[NDArray[np.bool_], "n"]:
        """Whether the final text is a refusal."""
        return self.refused[:, -1] if self.refused_at_last is None else self.refused_at_last

    @property
    def harmful_finally(self) -> Bool[NDArray[np.bool_], "n"] | None:
        """Whether the final text is harmful; None without a judge."""
        if self.harmful is None:
            return None
        return self.harmful[:, -1] if self.harmful_at_last is None else self.harmful_at_last

    @property
    def lengths(self) -> Int[NDArray[np.int64], "n"]:
        """How many steps each generation took; T where it is not known."""
        return np.full(len(self), self.steps) if self.taken is None else self.taken

    @property
    def to_the_end(self) -> tuple[Bool[NDArray[np.bool_], "n T+1"] | None, Bool[NDArray[np.bool_], "n T+1"]]:
        """Marks of harm (None without a judge) and refusal, with the final text's behind the T steps: what RR, ASR, HRR
        and FRR are counted on. A generation that ended by T only holds its last mark once more.
        """
        refused = np.concatenate([self.refused, self.refused_finally[:, None]], axis=1)
        last = self.harmful_finally
        if self.harmful is None or last is None:
            return None, refused
        return np.concatenate([self.harmful, last[:, None]], axis=1), refused

    @property
    def requests(self) -> tuple[str, ...]:
        """The request behind each generation; each its own where nothing is known."""
        return self.groups or tuple(f"{self.name} {i}" for i in range(len(self)))

    @property
    def answered(self) -> Material:
        """The generations whose final text is no refusal."""
        return self.only(~self.refused_finally)

    @property
    def refusing(self) -> Material:
        """The generations whose final text is a refusal."""
        return self.only(self.refused_finally)

    @property
    def succeeded(self) -> Material:
        """The generations that did harm: by the judge, or, where there is none, all that did not refuse."""
        harmful = self.harmful_finally
        return self.answered if harmful is None else self.only(harmful)


def together(name: str, parts: Sequence[Material]) -> Material:
    """Several sets as one. Raises for none."""
    if not parts:
        raise DemurError("no generations", "at least one set", "gather some first")
    judged = [part.harmful for part in parts if part.harmful is not None]
    last = [part.harmful_finally for part in parts if part.harmful is not None]
    every = len(judged) == len(parts)
    return Material(
        name,
        {key: np.concatenate([part.phi[key] for part in parts]) for key in parts[0].phi},
        np.concatenate([part.asked for part in parts]),
        np.concatenate([part.refused for part in parts]),
        np.concatenate(judged) if every else None,
        np.concatenate([part.refused_finally for part in parts]),
        np.concatenate([marks for marks in last if marks is not None]) if every else None,
        np.concatenate([part.lengths for part in parts]),
        tuple(request for part in parts for request in part.requests),
    )


def request_of(prompt: Prompt) -> str:
    """The request behind a prompt: the one that it was made from, or itself."""
    return prompt.parent or prompt.id


def gather(
    model: Any,
    name: str,
    prompts: Sequence[Prompt],
    sampler: Any = None,
    *,
    pools: Sequence[Key],
    length: int = STEPS,
    steps: int = STEPS,
    seed: int = 0,
    batch: int = 32,
    harm: Callable[[Trace], Sequence[bool]] | None = None,
    group: Callable[[Prompt], str] = request_of,
    progress: Callable[[int], object] = lambda done: None,
    kept: Shelf | None = None,
) -> Material:
    """Generates answers to prompts and keeps what detectors read. ``harm`` judges the text after every step; ``group``
    names what a prompt asks for, whatever wraps it. A batch that is ``kept`` is read and not generated again.
    """
    traces: list[Trace] = []
    noting = Noting(sampler if sampler is not None else default_sampler(model))
    made = spec_of(model, noting, length, steps=steps)
    # Prompts of like length share a batch; no row depends on its neighbours.
    ordered = sorted(prompts, key=lambda prompt: (len(prompt.text) + len(prompt.prefill), prompt.id))
    for begin in range(0, len(ordered), batch):
        some = ordered[begin : begin + batch]
        settings: dict[str, Any] = {"length": length, "steps": steps, "seed": seed + begin, "batch": batch}
        places = kept.places(made, pools, length, seed + begin, some) if kept else []
        if kept and (found := kept.read(places, some)) is not None:
            traces += found[0]
            noting.states.append(found[1])
        else:
            traces += generate(model, some, noting, pools=pools, **settings)
            if kept:
                kept.write(places, traces[begin:], noting.states[-1])
        progress(len(traces))
    return material(name, traces, np.concatenate(noting.states), pools=pools, steps=steps, harm=harm, group=group)


ASKED: Any = ("last", "asked")
"""Where a kept trace holds the state of :func:`last_given`, beside its pooled states: one row."""


@dataclass
class Shelf:
    """A folder of traces that were generated before, one file each, so that another anchor costs no generation again.

    A file's name stands for all that its content depends on: demur's version, model, sampler, length, pooling modes,
    the prompt, and the seed of its row. ``reused`` and ``made`` count traces; ``full`` is why none could be kept.
    """

    folder: Path
    reused: int = 0
    made: int = 0
    full: str = ""

    def places(self, spec: Spec, pools: Sequence[Key], length: int, seed: int, prompts: Sequence[Prompt]) -> list[Path]:
        """The file of each prompt of a batch whose first row draws from ``seed``."""
        common = [spec.key, spec.versions.get("demur", ""), [list(key) for key in pools], length]
        names = []
        for row, prompt in enumerate(prompts, seed):
            whole = json.dumps([*common, row, prompt.plain()], sort_keys=True)
            names.append(hashlib.sha256(whole.encode("utf-8", "surrogatepass")).hexdigest()[:24])
        return [self.folder / name[:2] / f"{name}.safetensors" for name in names]

    def read(
        self, places: Sequence[Path], prompts: Sequence[Prompt]
    ) -> tuple[list[Trace], Float[NDArray[np.float32], "n d"]] | None:
        """The traces of a batch and their first states; None unless all are there and whole."""
        if not all(place.is_file() for place in places):
            return None
        try:
            traces = [Trace.load(place) for place in places]
            asked = np.concatenate([trace.phi[ASKED] for trace in traces])
        except (DemurError, KeyError):
            return None  # broken, or of an older format: made again
        self.reused += len(traces)
        bare = [{key: phi for key, phi in trace.phi.items() if key != ASKED} for trace in traces]
        pairs = zip(traces, bare, prompts, strict=True)
        return [replace(trace, phi=phi, prompt=prompt) for trace, phi, prompt in pairs], asked

    def write(self, places: Sequence[Path], traces: Sequence[Trace], asked: Float[NDArray[np.float32], "n d"]) -> None:
        """Keeps a batch. Where there is no room, nothing is kept any more, and ``full`` says why."""
        self.made += len(traces)
        for place, trace, state in zip(places, traces, asked, strict=True):
            if self.full:
                return
            try:
                replace(trace, phi={**trace.phi, ASKED: state[None]}).save(place)
            except DemurError as error:
                self.full = str(error)

    def size(self) -> int:
        """Bytes in the folder."""
        return sum(path.stat().st_size for path in self.folder.rglob("*.safetensors"))


def material(
    name: str,
    traces: Sequence[Trace],
    asked: Float[NDArray[np.float32], "n d"],
    *,
    pools: Sequence[Key],
    steps: int = STEPS,
    harm: Callable[[Trace], Sequence[bool]] | None = None,
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
    )


@torch.no_grad()
def last_given(model: Any, canvas: Canvas) -> Float[NDArray[np.float32], "n d"]:
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

    def __init__(self, sampler: Any) -> None:
        self.undefended = sampler
        self.states: list[Float[NDArray[np.float32], "n d"]] = []

    def __call__(self, model: Any, canvas: Canvas, rngs: Any) -> Iterator[Step]:
        """The sampler's steps."""
        for step in self.undefended(model, canvas, rngs):
            if step.index == 0:
                self.states.append(_last_given(model, canvas, step))
            yield step


def _last_given(model: Any, canvas: Canvas, step: Step) -> Float[NDArray[np.float32], "n d"]:
    states = step.hidden.get("last")
    column = canvas.open.long().argmax(dim=1) - 1 - step.start
    if step.span == "new":  # what produced the first token is the state of the one before
        column = torch.zeros_like(column)
    if states is None or bool(((column < 0) | (column >= states.shape[1])).any()):
        return last_given(model, canvas)
    return np.asarray(states[torch.arange(canvas.rows), column].float().cpu().numpy())


def anchored(good: Material, bad: Material, key: Key) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Anchors of one layer and pooling mode from answered harmless and refused harmful generations."""
    first, second = (m.phi[key].mean(axis=0, dtype=np.float64).astype(np.float32) for m in (good, bad))
    return first, second


def sigma_of(m: Material, good: Material, bad: Material, key: Key) -> Float[NDArray[np.float64], "n T"]:
    """The signal of every generation."""
    if not len(m):
        return np.empty((0, m.refused.shape[1]))
    return refusal_signal(m.phi[key], *anchored(good, bad, key))
