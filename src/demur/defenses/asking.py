"""What a model says behind rows of tokens: how defenses ask one about what another has written, or it itself."""

from __future__ import annotations

import warnings
from collections.abc import Sequence

from demur.samplers import Autoregressive, seeded, steps_of
from demur.traces import opened_thought, text_of
from demur.types import DemurWarning, Model


def said_behind(model: Model, rows: Sequence[Sequence[int]], tokens: int, *, marked: bool = False) -> list[str]:
    """The texts that a causal model writes behind token rows, greedily, each up to its end and at most ``tokens`` long.
    Special tokens are left out. ``marked``: where a row leaves a thought open, its mark stands before what is written
    in it, so that a reader knows it for one. Nothing is said behind a row that would be more than the model's context
    with it, which a warning tells.
    """
    context = getattr(getattr(model, "config", None), "max_position_embeddings", None)
    fits = [context is None or len(row) + tokens <= context for row in rows]
    if not all(fits):
        came = (
            f"{max(map(len, rows))} tokens and {tokens} for {model.name} to say behind them, in a context of {context}"
        )
        warnings.warn(f"{came}: it is not asked there", DemurWarning, stacklevel=2)
    said = iter(_said(model, [row for row, can in zip(rows, fits, strict=True) if can], tokens, marked))
    return [next(said) if can else "" for can in fits]


def _said(model: Model, rows: Sequence[Sequence[int]], tokens: int, marked: bool) -> list[str]:
    if not rows:
        return []
    canvas = model.canvas_of(rows, tokens)
    *_, last = steps_of(Autoregressive(), model.watching(), canvas, seeded(0, len(rows)))
    texts = []
    for ids, open_, pad in zip(last.ids, canvas.open, canvas.pad, strict=True):
        written, own = ids[open_].tolist(), ~pad
        end = next((i for i, token in enumerate(written) if token in model.stop_ids), len(written))
        row = ids[own].cpu().numpy()
        opened = opened_thought(row, open_[own].cpu().numpy(), model.pieces(row.tolist())[0]) if marked else ""
        texts.append(opened + text_of(written[:end], *model.pieces(written[:end])))
    return texts
