"""The sizes of a network, read off its configuration, and the memory that a batch of it takes: computed, not measured.

Parameters are counted as a Llama has them (attention with or without shared keys, gated feed-forward layers, experts),
which is within some percent for the families that demur runs. ``docs/hardware.md`` has the formulas in words, and how
far they are from what was measured.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from demur.types import DemurError

PARTS = ("weights", "keys and values", "logits", "states of one layer", "traces", "context and spare")
"""What memory is for, in the order of :func:`memory_of`."""
BYTES = {"float32": 4.0, "bfloat16": 2.0, "float16": 2.0, "4bit": 2.0}
"""Bytes of a number outside of packed weights."""
_4BIT = 0.56
"""Bytes of a weight in NF4 with its scales; embeddings and head stay in 16 bit."""
_WAITING = 14 * 2**18
"""Bytes of the steps that wait in a recorder (:data:`demur.traces.record.CELLS`)."""


@dataclass(frozen=True)
class Shape:
    """The sizes of a network. ``heads`` times ``head`` need not be ``hidden``; ``active`` counts a token's weights."""

    layers: int
    hidden: int
    heads: int
    kv_heads: int
    head: int
    vocabulary: int
    tables: int
    inner: int
    parameters: int
    active: int

    @classmethod
    def of(cls, raw: Mapping[str, Any], name: str) -> Shape:
        """From a raw ``config.json``. Raises for one that lacks the sizes."""
        config = {**raw, **raw["text_config"]} if isinstance(raw.get("text_config"), Mapping) else dict(raw)

        def get(*keys: str, default: int | None = None) -> int:
            value = next((config[key] for key in keys if config.get(key) is not None), default)
            if not isinstance(value, int | float) or isinstance(value, bool):
                raise DemurError(
                    f"the configuration of {name} has no {keys[0]}", "the sizes of a transformer", "name another model"
                )
            return int(value)

        layers, hidden = get("num_hidden_layers", "n_layers", "n_layer"), get("hidden_size", "d_model", "n_embd")
        heads = get("num_attention_heads", "n_heads", "n_head")
        kv_heads, head = (
            get("num_key_value_heads", "n_kv_heads", default=heads),
            get("head_dim", default=hidden // heads),
        )
        vocabulary = get("embedding_size", "vocab_size")
        ratio = get("mlp_ratio", default=4)
        inner = get("intermediate_size", "mlp_hidden_size", "n_inner", default=ratio * hidden)
        tied = config.get("tie_word_embeddings", config.get("weight_tying", config.get("model_type") == "gpt2"))
        plain = config.get("model_type") in ("gpt2", "gpt_neox", "opt", "phi")  # no gate
        attention = hidden * head * (2 * heads + 2 * kv_heads)
        experts = get("num_experts", "num_local_experts", "n_routed_experts", default=0)
        dense = hidden * inner * (2 if plain else 3)
        every = used = dense
        first = 0
        if experts:
            first = get("first_k_dense_replace", default=0)
            each = 3 * hidden * get("moe_intermediate_size", default=inner)
            shared = get("n_shared_experts", "num_shared_experts", default=0)
            every = each * (experts + shared) + hidden * experts
            used = each * (get("num_experts_per_tok", "top_k_experts", default=1) + shared) + hidden * experts
        tables = vocabulary * hidden * (1 if tied else 2)
        body = layers * attention + first * dense
        rest = layers - first
        return cls(
            layers, hidden, heads, kv_heads, head, vocabulary, tables, inner,
            parameters=tables + body + rest * every, active=vocabulary * hidden + body + rest * used,
        )  # fmt: skip


def context_of(raw: Mapping[str, Any]) -> int | None:
    """How many places a row may have, by a raw ``config.json``; None where it does not say."""
    config = {**raw, **raw["text_config"]} if isinstance(raw.get("text_config"), Mapping) else raw
    named = [config.get(key) for key in ("max_position_embeddings", "max_sequence_length", "n_positions")]
    return next((n for n in named if isinstance(n, int) and n > 0), None)


def memory_of(
    shape: Shape, kind: str, dtype: str, *, batch: int, prompt: int, length: int, steps: int, block: int = 1
) -> dict[str, float]:
    """Bytes by what they are for, of one batch: ``batch`` rows of ``prompt`` tokens and ``length`` places. ``block``:
    places of a block, of a block model. ``steps``: those of a diffusion sampler, which a trace keeps.
    """
    each = BYTES[dtype]
    weights = shape.parameters * each
    if dtype == "4bit":
        weights = shape.tables * each + (shape.parameters - shape.tables) * _4BIT
    canvas = batch * (prompt + length)
    cached = kind in ("causal", "block")
    cache = 2 * shape.layers * shape.kv_heads * shape.head * canvas * each if cached else 0.0
    scored = batch * {"causal": 1, "block": block}.get(kind, length)
    # As the model gives them, in fp32, and as probabilities; a draw by Gumbel noise takes them in float64 once more.
    logits = scored * shape.vocabulary * (each + 4 + 4 + 8)
    # One layer at work on the whole canvas: the feed-forward layer's two inner states, and six of the trunk's width.
    states = canvas * (2 * shape.inner + 6 * shape.hidden) * each + canvas * shape.hidden * 4
    # Pooled states of one layer after each step, and what was guessed: a token a step, or half of all places.
    taken = length if kind == "causal" else steps
    guesses = 65 * length if kind == "causal" else 12 * length * taken / 2
    traces = batch * (4 * shape.hidden * taken + guesses) + _WAITING
    overhead = 0.6e9 + 0.05 * weights
    return dict(zip(PARTS, (weights, cache, logits, states, traces, overhead), strict=True))
