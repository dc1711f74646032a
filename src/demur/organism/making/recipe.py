"""What decides the organism's weights: the stages of its training, and the network that begins it.

One architecture for both kinds, a native Llama: causal, or with every position seeing every other one.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

import torch

from demur.organism.making.vocabulary import tokenizer

Kind = Literal["ar", "diffusion"]


@dataclass(frozen=True)
class Stage:
    """One stage: the name of its mix of lessons, its steps, its highest learning rate (cosine, down to a tenth).

    ``unless_lawful``: the stage is left out if the model knows the law when it begins
    (:func:`demur.organism.making.training.knows_the_law`).
    """

    name: str
    steps: int
    rate: float
    unless_lawful: bool = False


@dataclass(frozen=True)
class Recipe:
    """Everything that decides the weights, given torch's version, the machine and one thread."""

    kind: Kind
    stages: tuple[Stage, ...]
    seed: int = 0
    batch: int = 32
    hidden: int = 256
    inner: int = 512
    layers: int = 4
    heads: int = 4
    verdict_weight: float = 8.0  # weight of the one word that decides: allowed or forbidden; to answer or to refuse
    turn_weight: float = 1.0  # weight of the word with which an answer that has begun to comply turns to refusing
    end_weight: float = 0.1  # diffusion: weight of end-of-sequence tokens after the first
    suffixes: float = 0.25  # diffusion: share of samples masked from one place to the end, as in AR order
    whole_law: float = 0.6  # diffusion: share of law lessons whose answer is masked as a whole

    @property
    def key(self) -> str:
        """Twelve hex digits of the recipe, which a checkpoint must match."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()[:12]


RECIPES: dict[str, Recipe] = {
    "ar": Recipe(
        "ar",
        (
            Stage("skills", 200, 2e-3),
            Stage("law", 200, 1e-3),
            Stage("rule", 300, 1e-3, unless_lawful=True),
            Stage("safety", 650, 1e-3),
        ),
        turn_weight=8.0,
    ),
    "diffusion": Recipe(
        "diffusion", (Stage("joint", 900, 1.5e-3), Stage("law", 600, 1e-3), Stage("drift", 1100, 1e-3)), batch=24
    ),
}
"""The recipes of the released pair. The diffusion model starts from the AR model's weights after the law."""


def seeded_recipe(kind: Kind, seed: int) -> Recipe:
    """The released recipe with another seed."""
    return replace(RECIPES[kind], seed=seed)


def network(recipe: Recipe) -> Any:
    """A Llama with random weights from the recipe's seed."""
    from transformers import LlamaConfig, LlamaForCausalLM

    tok = tokenizer()
    config = LlamaConfig(
        vocab_size=-(-len(tok) // 8) * 8,
        hidden_size=recipe.hidden,
        intermediate_size=recipe.inner,
        num_hidden_layers=recipe.layers,
        num_attention_heads=recipe.heads,
        max_position_embeddings=256,
        rms_norm_eps=1e-6,
        rope_parameters={"rope_type": "default", "rope_theta": 10000.0},
        bos_token_id=None,
        eos_token_id=tok.eos_token_id,
        pad_token_id=tok.pad_token_id,
    )
    state = torch.random.get_rng_state()
    torch.manual_seed(recipe.seed)
    try:
        return LlamaForCausalLM(config).float()
    finally:
        torch.random.set_rng_state(state)
