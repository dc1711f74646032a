"""Samplers: lazy generators of steps. Settings are frozen fields; calling a sampler on a canvas starts a generation.

Randomness comes from explicit generators only. ``rngs`` is one ``torch.Generator`` per row (law 1: a row does not
depend on its neighbours), or a single one for the whole batch, which is how the official implementations draw.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from demur.samplers.autoregressive import Autoregressive
from demur.samplers.block import BlockDiffusion
from demur.samplers.dice import Dice, Rngs, seeded
from demur.samplers.masked import MaskedDiffusion
from demur.samplers.renoising import Renoise
from demur.samplers.rules import filtered

__all__ = [
    "FOR_KIND",
    "SAMPLERS",
    "Autoregressive",
    "BlockDiffusion",
    "Dice",
    "MaskedDiffusion",
    "Renoise",
    "Rngs",
    "autoregressive_order",
    "bd3lm",
    "dream",
    "filtered",
    "llada2",
    "mdlm",
    "sdar",
    "seeded",
]


def autoregressive_order(**settings: Any) -> MaskedDiffusion:
    """The control of the paper's central experiment (Table 2): diffusion weights, one token a step, left to right."""
    return MaskedDiffusion(**{"steps": None, "block_length": 1} | settings)


def dream(algorithm: str = "entropy", **settings: Any) -> MaskedDiffusion:
    """Dream's sampler (arXiv:2508.15487; its generation code): origin, maskgit_plus, topk_margin or entropy."""
    remasking = {"maskgit_plus": "low_confidence", "topk_margin": "margin"}.get(algorithm, algorithm)
    return MaskedDiffusion(**{"remasking": remasking, "schedule": "dream", "sampling": "categorical"} | settings)


def mdlm(**settings: Any) -> MaskedDiffusion:
    """The sampler of dllm's MDLM models: LLaDA's with rounded expectations of the schedule and no empty steps."""
    return MaskedDiffusion(**{"schedule": "linear"} | settings)


def bd3lm(**settings: Any) -> BlockDiffusion:
    """The sampler of dllm's BD3LM models (arXiv:2503.09573): Gumbel noise, rounded expectations of what is open."""
    defaults: dict[str, Any] = {"sampling": "gumbel", "schedule": "linear", "quota": "open", "temperature": 0.0}
    return BlockDiffusion(**defaults | settings)


def sdar(**settings: Any) -> BlockDiffusion:
    """SDAR's sampler (arXiv:2510.06303; its generate.py): static, dynamic by ``threshold``, or sequential."""
    return BlockDiffusion(**settings)


def llada2(**settings: Any) -> BlockDiffusion:
    """LLaDA2's sampler (its generate): greedy in up to 32 steps a block, everything surer than 0.95 at once.

    The official code keeps no keys and values, which in bf16 shows in the tokens; ``cache=True`` is the faster way.
    """
    defaults: dict[str, Any] = {"steps": 32, "temperature": 0.0, "threshold": 0.95, "cache": False}
    return BlockDiffusion(**defaults | settings)


SAMPLERS: dict[str, Callable[..., Any]] = {
    "ar": Autoregressive,
    "low-confidence": MaskedDiffusion,
    "random": lambda **settings: MaskedDiffusion(**{"remasking": "random"} | settings),
    "ar-order": autoregressive_order,
    "margin": lambda **settings: MaskedDiffusion(**{"remasking": "margin"} | settings),
    "entropy": lambda **settings: MaskedDiffusion(**{"remasking": "entropy"} | settings),
    "dream": dream,
    "mdlm": mdlm,
    "bd3lm": bd3lm,
    "sdar": sdar,
    "llada2": llada2,
    "renoising": Renoise,
    "revising": lambda **settings: MaskedDiffusion(**{"revise": 0.1} | settings),
}
"""Samplers by the name the command line takes."""

CLASSES: dict[str, Callable[..., Any]] = {
    made.__name__: made for made in (Autoregressive, MaskedDiffusion, BlockDiffusion, Renoise)
}
"""By the name that a spec holds: a sampler can be made again from ``spec.sampler`` and ``spec.settings``."""

FOR_KIND: dict[str, tuple[str, ...]] = {
    "causal": ("ar",),
    "masked": ("low-confidence", "random", "ar-order", "margin", "entropy", "dream", "mdlm", "revising"),
    "block": ("sdar", "llada2", "bd3lm"),
    "renoising": ("renoising",),
}
"""Which of them an adapter's kind can be run with."""
