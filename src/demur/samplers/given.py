"""Given tokens between open places, where canvases or blocks are counted from a row's first open place.

In a renoising model they are pinned, and all else is renoised.
transformers' own ``generate`` knows no given tokens beside the prompt. Here the decoder sees them at their places in
every step, they are never drawn, accepted or replaced, and what they would count for (the entropies of a step, the mean
that ends a canvas) counts open places only. What is given behind the current canvas is not seen yet.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from demur.samplers.dice import Rngs
from demur.types import Canvas, Step


def firsts(canvas: Canvas) -> list[int]:
    """The first open column of every row; the canvas's width where a row has none."""
    columns = torch.where(canvas.open.any(dim=1), canvas.open.long().argmax(dim=1), canvas.width)
    found: list[int] = columns.tolist()
    return found


def mean_of_open(entropy: Float[Tensor, "b m"], free: Bool[Tensor, "b m"]) -> Float[Tensor, "b"]:
    """A row's mean over its open places."""
    some = entropy.masked_fill(~free, 0.0).sum(dim=-1) / free.sum(dim=-1).clamp(min=1)
    return torch.where(free.all(dim=-1), entropy.mean(dim=-1), some)


def one_after_another(sampler: Any, model: Any, canvas: Canvas, rngs: Rngs, begins: list[int]) -> Iterator[Step]:
    """Steps of rows whose first open places lie in different columns: those that begin alike together, the others wait.

    Canvases are counted from a row's first open place, so a row is the row alone.
    """
    ids, open_, index = canvas.ids.clone(), canvas.open.clone(), 0
    for first in sorted(set(begins) - {canvas.width}):
        rows = [i for i, begin in enumerate(begins) if begin == first]
        where = torch.tensor(rows, device=ids.device)
        part = Canvas(ids=canvas.ids[where], open=canvas.open[where], pad=canvas.pad[where])
        own = rngs if isinstance(rngs, torch.Generator) else [rngs[i] for i in rows]
        for step in sampler(model, part, own):
            whole = _among_all(step, where, Canvas(ids=ids, open=open_, pad=canvas.pad), index)
            ids, open_, index = whole.ids, whole.open, index + 1
            yield whole


def _among_all(step: Step, rows: Int[Tensor, "g"], canvas: Canvas, index: int) -> Step:
    """A step of some rows as one of all: the others are not live, and stay as they are on ``canvas``."""

    def spread(values: Tensor, rest: Tensor) -> Tensor:
        return rest.clone().index_copy(0, rows, values)

    none = torch.zeros_like(canvas.open)
    return replace(
        step,
        index=index,
        ids=spread(step.ids, canvas.ids),
        open=spread(step.open, canvas.open),
        committed=spread(step.committed, none),
        predictions=spread(step.predictions, canvas.ids),
        confidence=spread(step.confidence, torch.full_like(none, float("nan"), dtype=step.confidence.dtype)),
        live=spread(step.live, none[:, 0]),
        reached=None if step.reached is None else spread(step.reached, none),
        replaced=None if step.replaced is None else spread(step.replaced, none[:, 0]),
        hidden={
            layer: spread(states, states.new_zeros((canvas.rows, *states.shape[1:])))
            for layer, states in step.hidden.items()
        },
    )
