"""What a model says behind rows of tokens: how defenses ask one about what another has written, or it itself."""

from __future__ import annotations

from collections.abc import Sequence

from demur.samplers import Autoregressive, seeded, steps_of
from demur.traces import text_of
from demur.types import Model


def said_behind(model: Model, rows: Sequence[Sequence[int]], tokens: int) -> list[str]:
    """The texts that a causal model writes behind token rows, greedily, each up to its end and at most ``tokens`` long.
    Special tokens are left out.
    """
    canvas = model.canvas_of(rows, tokens)
    *_, last = steps_of(Autoregressive(), model.watching(), canvas, seeded(0, len(rows)))
    texts = []
    for ids, open_ in zip(last.ids, canvas.open, strict=True):
        written = ids[open_].tolist()
        end = next((i for i, token in enumerate(written) if token in model.stop_ids), len(written))
        texts.append(text_of(written[:end], *model.pieces(written[:end])))
    return texts
