"""What makes a row depend on its neighbours, or on what was read before it, in ways that no mask can undo.

Facts of transformers' native classes. Each is refused in one line, where it would change results, and nowhere else.

- RoPE of the type ``dynamic`` stretches all positions by the longest text that was read, also by an earlier one.
- RoPE of the type ``longrope`` has two sets of frequencies, and the longest row of a batch decides which one all get.
- Llama 4 without RoPE scales queries by their column, padding counted, from ``floor_scale`` columns on.
- LFM2 with ``conv_bias`` writes the bias into padding, which its convolutions then read.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from demur.types import Canvas, DemurError

_FEWER = "shorten the prompts, ask for fewer tokens, or take one row at a time (batch=1)"


def check_padding(net: Any) -> None:
    """Raise for an architecture that computes something else with padding, and too little else to be seen."""
    config = net.config.get_text_config(decoder=True)
    if config.model_type.startswith("lfm2") and getattr(config, "conv_bias", False):
        raise DemurError(
            f"{type(net).__name__} with conv_bias, whose convolutions read padding",
            "conv_bias=False, as in the published LFM2 models",
            "this checkpoint can't be run",
        )


def check_rows(net: Any, canvas: Canvas) -> None:
    """Raise if a row of this canvas, from its first step to its last, would not be what it is alone."""
    config = net.config.get_text_config(decoder=True)
    for kind, limit in _limits(config):
        if canvas.width < limit or (canvas.width == limit and kind != "columns"):
            continue  # the usual case costs no look at the device
        pads = canvas.starts()
        if kind == "dynamic":
            raise DemurError(
                f"{type(net).__name__} with dynamic RoPE and {canvas.width - min(pads)} places",
                f"at most {limit}: beyond, positions depend on what was read before",
                "shorten the prompts, or ask for fewer tokens",
            )
        if kind == "columns" and any(pads):
            raise DemurError(
                f"{type(net).__name__} with padded rows of {canvas.width} columns",
                f"fewer than {limit} columns, from which on it counts padding as text",
                _FEWER,
            )
        if kind == "longrope":
            first = int(canvas.open.any(dim=0).long().argmax()) if bool(canvas.open.any()) else canvas.width
            if canvas.width - min(pads) > limit >= first - max(pads):
                raise DemurError(
                    f"{type(net).__name__} with longrope and rows of {first - max(pads)} to "
                    f"{canvas.width - min(pads)} places",
                    f"a batch that stays on one side of {limit}, where its positions change",
                    _FEWER,
                )


def _limits(config: Any) -> Iterator[tuple[str, int]]:
    """What can go wrong, and from how many places on."""
    for rope in _ropes(getattr(config, "rope_parameters", None)):
        kind = rope.get("rope_type")
        if kind == "dynamic":
            yield kind, int(config.max_position_embeddings)
        if kind == "longrope":
            yield kind, int(rope["original_max_position_embeddings"])
    if getattr(config, "attn_temperature_tuning", False) and getattr(config, "floor_scale", None):
        yield "columns", int(config.floor_scale)


def _ropes(settings: Any) -> Iterator[Mapping[str, Any]]:
    """The settings of RoPE: one, or one for each type of layer."""
    if not isinstance(settings, Mapping):
        return
    if "rope_type" in settings:
        yield settings
        return
    for inner in settings.values():
        yield from _ropes(inner)
