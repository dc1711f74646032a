"""Published samplers as settings of ours: a name, its defaults, and where they come from."""

from __future__ import annotations

from typing import Any

from demur.samplers.block import BlockDiffusion
from demur.samplers.masked import MaskedDiffusion


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


def stable_diffcoder(**settings: Any) -> BlockDiffusion:
    """Stable-DiffCoder's sampler (its generate_block): a place a step of each block of 4, greedy or by Gumbel noise.

    Its ``threshold`` asks for one place a step at least, so it wants as many steps as a block has places.
    """
    defaults: dict[str, Any] = {"sampling": "gumbel", "quota": "open", "temperature": 0.0}
    return BlockDiffusion(**defaults | settings)


def at_random(**settings: Any) -> MaskedDiffusion:
    """Masked diffusion that commits places at random."""
    return MaskedDiffusion(**{"remasking": "random"} | settings)


def by_margin(**settings: Any) -> MaskedDiffusion:
    """Masked diffusion that commits where the two best tokens lie furthest apart."""
    return MaskedDiffusion(**{"remasking": "margin"} | settings)


def by_entropy(**settings: Any) -> MaskedDiffusion:
    """Masked diffusion that commits where the entropy is lowest."""
    return MaskedDiffusion(**{"remasking": "entropy"} | settings)


def revising(**settings: Any) -> MaskedDiffusion:
    """Masked diffusion that masks the least sure tenth of what it has committed again (in the spirit of ReMDM)."""
    return MaskedDiffusion(**{"revise": 0.1} | settings)
