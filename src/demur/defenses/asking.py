"""What a model says behind rows of tokens: how defenses ask one about what another has written, or it itself."""

from __future__ import annotations

from collections.abc import Sequence

from demur.samplers import Autoregressive, seeded, steps_of
from demur.traces import opened_thought, text_of
from demur.types import Model, TooLong


def said_behind(model: Model, rows: Sequence[Sequence[int]], tokens: int, *, marked: bool = False) -> list[str]:
    """The texts that a causal model writes behind token rows, greedily, each up to its end and at most ``tokens`` long.
    Special tokens are left out. ``marked``: where a row leaves a thought open, its mark stands before what is written
    in it, so that a reader knows it for one. Raises where a row and what is said behind it are more than the model's
    context.
    """
    context = getattr(getattr(model, "config", None), "max_position_embeddings", None)
    if context is not None and (longest := max(map(len, rows), default=0)) + tokens > context:
        raise TooLong(
            f"{longest} tokens, and {tokens} that {model.name} is to say behind them",
            f"at most {context} together, the model's context",
            "ask for shorter answers, or name a model with a longer context",
        )
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
