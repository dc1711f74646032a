"""How tokens are drawn, where it is another way than the one under which a guard was calibrated: told in words.

A guard's promise is about answers that were drawn as its calibration answers were. An engine takes more settings than a
sampler of demur has; of these any value counts that is not neutral.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

NEUTRAL: Mapping[str, tuple[Any, ...]] = {
    "top_p": (1,), "top_k": (0, -1), "min_p": (0,), "typical_p": (1,), "frequency_penalty": (0,),
    "presence_penalty": (0,), "repeat_penalty": (1,), "repetition_penalty": (1,), "logit_bias": ({},),
    "min_tokens": (0,), "bad_words": ([],), "allowed_token_ids": ([],),
}  # fmt: skip
"""Settings of a draw, by the names that engines have for them, and the values beside null that change nothing."""
OF_CHANCE = frozenset({"top_p", "top_k", "min_p", "typical_p"})
"""Settings that change nothing where the likeliest token is taken: at temperature 0."""

OF_A_MODEL = ("top_p", "top_k", "min_p", "repetition_penalty", "presence_penalty", "frequency_penalty")
"""Settings that an engine takes from the model's ``generation_config.json`` where a request does not say them."""


def draw_of(own: Mapping[str, Any]) -> dict[str, float]:
    """What a request says to have its answer drawn as a guard's calibration answers were. ``own``: the settings of the
    guard's sampler. What that one does not have is said to be neutral, since an engine may have another default.
    """
    said = {name: NEUTRAL[name][0] if own.get(name) is None else own[name] for name in OF_A_MODEL}
    return {"temperature": float(own.get("temperature") or 0.0), **said}


def drawn_otherwise(own: Mapping[str, Any], said: Mapping[str, Any]) -> str:
    """What of a draw is another than a guard's, as ``name value`` in a row; empty where nothing is. ``own``: the
    settings of the guard's sampler, ``said``: those of a request. The temperature is told by itself, and not here.
    """
    greedy = (said.get("temperature", own.get("temperature")) or 0) == 0
    told = []
    for name, neutral in NEUTRAL.items():
        mine, its = (None if x.get(name) in neutral else x.get(name) for x in (own, said))
        if mine == its or (greedy and name in OF_CHANCE):
            continue
        told.append(name if isinstance(its, dict | list | tuple) else f"{name} {'none' if its is None else its!s:.20}")
    return ", ".join(told)
