"""What detectors read of a set of generations, gathered once and used by all of them under one protocol."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from numpy.typing import NDArray

from demur.dynamics.text import held
from demur.signals import refusal_signal
from demur.trace import STEPS, Key, Trace, generate
from demur.types import Canvas, DemurError, Prompt

States = Float[NDArray[np.float32], "n T d"]


@dataclass(frozen=True, eq=False)
class Material:
    """n generations of one model under one sampler.

    ``phi`` are pooled states by (layer, pooling mode); ``asked`` the last layer's state of the last given token before
    anything is generated; ``refused`` and ``harmful`` what the intermediate texts are (``harmful`` only where a judge
    of intermediate texts exists).
    """

    name: str
    phi: Mapping[Key, States]
    asked: Float[NDArray[np.float32], "n d"]
    refused: Bool[NDArray[np.bool_], "n T"]
    harmful: Bool[NDArray[np.bool_], "n T"] | None = None

    def __len__(self) -> int:
        return len(self.asked)

    def only(self, rows: Bool[NDArray[np.bool_], "n"]) -> Material:
        """The generations marked in ``rows``."""
        return Material(
            self.name,
            {key: phi[rows] for key, phi in self.phi.items()},
            self.asked[rows],
            self.refused[rows],
            None if self.harmful is None else self.harmful[rows],
        )

    @property
    def answered(self) -> Material:
        """The generations whose final text is no refusal."""
        return self.only(~self.refused[:, -1])

    @property
    def refusing(self) -> Material:
        """The generations whose final text is a refusal."""
        return self.only(self.refused[:, -1])

    @property
    def succeeded(self) -> Material:
        """The generations that did harm: by the judge, or, where there is none, all that did not refuse."""
        return self.answered if self.harmful is None else self.only(self.harmful[:, -1])


def together(name: str, parts: Sequence[Material]) -> Material:
    """Several sets as one. Raises for none."""
    if not parts:
        raise DemurError("no generations", "at least one set", "gather some first")
    judged = [part.harmful for part in parts if part.harmful is not None]
    return Material(
        name,
        {key: np.concatenate([part.phi[key] for part in parts]) for key in parts[0].phi},
        np.concatenate([part.asked for part in parts]),
        np.concatenate([part.refused for part in parts]),
        np.concatenate(judged) if len(judged) == len(parts) else None,
    )


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
    progress: Callable[[int], object] = lambda done: None,
) -> Material:
    """Generates answers to prompts and keeps what detectors read. ``harm`` judges the text after every step."""
    traces: list[Trace] = []
    asked = []
    # Prompts of like length share a batch; no row depends on its neighbours.
    ordered = sorted(prompts, key=lambda prompt: (len(prompt.text) + len(prompt.prefill), prompt.id))
    for begin in range(0, len(ordered), batch):
        group = ordered[begin : begin + batch]
        settings: dict[str, Any] = {"length": length, "steps": steps, "seed": seed + begin, "batch": batch}
        traces += generate(model, group, sampler, pools=pools, **settings)
        asked.append(last_given(model, model.canvas(group, length)))
        progress(len(traces))
    return material(name, traces, np.concatenate(asked), pools=pools, steps=steps, harm=harm)


def material(
    name: str,
    traces: Sequence[Trace],
    asked: Float[NDArray[np.float32], "n d"],
    *,
    pools: Sequence[Key],
    steps: int = STEPS,
    harm: Callable[[Trace], Sequence[bool]] | None = None,
) -> Material:
    """The same from traces that are at hand."""

    def refusals(trace: Trace) -> list[bool]:
        return [trace.refused(t) for t in range(1, trace.steps + 1)]

    def marks(of: Callable[[Trace], Sequence[bool]]) -> Bool[NDArray[np.bool_], "n T"]:
        return np.array([held(of(trace), steps) for trace in traces], dtype=bool).reshape(len(traces), steps)

    return Material(
        name,
        {key: np.stack([trace.aligned(*key, steps) for trace in traces]) for key in pools},
        asked,
        marks(refusals),
        None if harm is None else marks(harm),
    )


@torch.no_grad()
def last_given(model: Any, canvas: Canvas) -> Float[NDArray[np.float32], "n d"]:
    """The last layer's state of the last given token before the first open place, from one pass over the start canvas.

    Causal models pass what is given only.
    """
    watched = model.watching("last")
    first = canvas.open.long().argmax(dim=1)
    if model.kind == "causal":
        out = watched.forward(canvas, None, upto=int(first.max()))
    else:
        out = watched.forward(canvas, torch.zeros_like(canvas.open))
    states = out.hidden["last"]
    return np.asarray(states[torch.arange(canvas.rows), first - 1].float().cpu().numpy())


def anchored(good: Material, bad: Material, key: Key) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Anchors of one layer and pooling mode from answered harmless and refused harmful generations."""
    first, second = (m.phi[key].mean(axis=0, dtype=np.float64).astype(np.float32) for m in (good, bad))
    return first, second


def sigma_of(m: Material, good: Material, bad: Material, key: Key) -> Float[NDArray[np.float64], "n T"]:
    """The signal of every generation."""
    if not len(m):
        return np.empty((0, m.refused.shape[1]))
    return refusal_signal(m.phi[key], *anchored(good, bad, key))
