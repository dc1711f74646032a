"""Any Hugging Face causal LM behind the adapter protocol: KV-cached, batched with left padding."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from demur.models.adapter import Adapter
from demur.models.alone import check_rows
from demur.models.bidirectional import LIKE_LLAMA
from demur.models.network import (
    KVCache,
    cached,
    check_states,
    decoder_of,
    forgetting,
    head_of,
    token_ids,
    watched,
)
from demur.types import Canvas, Forward, Kind, Layer


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class Causal(Adapter):
    """A causal LM whose row i *scores* position i, although the network computes that at position i - 1.

    ``own``: whether every token's own state is wanted, which costs one pass more for the last one.
    """

    preferred: str = "ar"
    own: bool = True

    @property
    def kind(self) -> Kind:
        """One token after the other."""
        return Kind.CAUSAL

    @property
    def mask_id(self) -> None:
        """There is none."""
        return None

    @property
    def shift(self) -> int:
        """Column i - 1 produces position i."""
        return 1

    @property
    def pad_id(self) -> int:
        """The token in padding and in open places; attention never reaches it."""
        named = [getattr(owner, "pad_token_id", None) for owner in (self.tokenizer, self.config)]
        known = token_ids(named, self.net.get_input_embeddings().num_embeddings)
        return [*known, *self.stop_ids, 0][0]

    @property
    def fill_id(self) -> int:
        """The token of padding."""
        return self.pad_id

    def default_length(self, steps: int = 32) -> int:
        """As many places as steps, since a step writes one; or what the configuration says."""
        return self.response or steps

    def watching(self, *layers: Layer, own: bool = True) -> Causal:
        """The same model, whose passes return the states of ``layers`` (none named: nothing is captured)."""
        return replace(self, layers=layers, own=own and bool(layers))

    @torch.no_grad()
    def forward(
        self,
        canvas: Canvas,
        score: Bool[Tensor, "b n"] | None,
        cache: KVCache | None = None,
        upto: int | None = None,
    ) -> Forward:
        """One pass over the columns before ``upto`` (default: all), or over those that the cache does not hold yet.

        ``score`` marks the positions whose logits are wanted (None: no head at all); position i is scored at column
        i - 1, which must be one of those passed.
        """
        check_rows(self.net, canvas)
        upto = canvas.width if upto is None else upto
        start = cache.columns if cache is not None else 0
        pad = canvas.pad[:, :upto]
        padded = canvas.is_padded
        trunk = decoder_of(self.net)
        kv = cache.kv if cache is not None else None
        if kv is None and not padded and _takes_one_mask(self.config):
            kv = forgetting(self.config)
        with watched(self.net, self.layers) as states:
            last: Float[Tensor, "b m d"] = trunk(
                input_ids=canvas.ids[:, start:upto],
                attention_mask=self._mask(pad, start) if padded else None,
                position_ids=canvas.positions()[:, start:upto],
                use_cache=cache is not None,
                **({} if kv is None else cached(trunk, kv)),
            ).last_hidden_state
        check_states(self.net, last, pad[:, start:])
        if cache is not None:
            cache.columns = upto
        if score is None:
            return Forward(logits=last.new_empty((0, 0)), hidden=states(last), start=start)
        rows, where = canvas.scored(score)
        producing = torch.maximum(where - 1, canvas.pad.sum(dim=1)[rows])
        return Forward(logits=head_of(self.net)(last[rows, producing - start]), hidden=states(last), start=start)

    def _mask(self, pad: Bool[Tensor, "b n"], start: int) -> Tensor:
        """What the columns from ``start`` on may see: by column; or, for a plain architecture, as attention wants it.
        Of a mask by column, transformers asks the device at every step whether it is needed.
        """
        if not _takes_one_mask(self.config):
            return (~pad).long()
        seen: Bool[Tensor, "b 1 m n"] = ~pad[:, None, None, :]
        if pad.shape[1] - start == 1:
            return seen
        columns = torch.arange(pad.shape[1], device=pad.device)
        return seen & (columns <= columns[start:, None])


PLAIN = (*LIKE_LLAMA, "glm4_moe", "granite", "ministral3", "mistral", "olmo2", "phi3", "qwen3_moe", "smollm3")
"""Model types whose layers take one mask of what may be seen as it is given, where none of them has a window."""


def _takes_one_mask(config: Any) -> bool:
    window = getattr(config, "sliding_window", None)
    layers = getattr(config, "layer_types", None) or ["full_attention" if window is None else "sliding_attention"]
    return config.model_type in PLAIN and config._attn_implementation == "sdpa" and {*layers} == {"full_attention"}
