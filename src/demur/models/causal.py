"""Any Hugging Face causal LM behind the adapter protocol: KV-cached, batched with left padding."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from demur.models.chat import Chat, canvas_of
from demur.models.network import (
    Identity,
    KVCache,
    cached,
    check_states,
    decoder_of,
    head_of,
    said,
    stop_ids,
    token_ids,
    watched,
)
from demur.models.vocabulary import token_bytes
from demur.types import Canvas, Forward, Layer, Prompt


@dataclass(frozen=True, eq=False)
class Causal:
    """A causal LM whose row i *scores* position i, although the network computes that at position i - 1."""

    net: Any
    tokenizer: Any
    identity: Identity
    system: str | None = None
    layers: tuple[Layer, ...] = ("last",)
    mask_id: None = None
    shift: int = 1
    kind: str = "causal"
    preferred: str = "ar"
    own: bool = True
    template_args: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def __repr__(self) -> str:
        """In short, for a notebook: neither the network nor the vocabulary."""
        return said(self)

    @property
    def name(self) -> str:
        """How the user named the model."""
        return self.identity.model

    @property
    def device(self) -> torch.device:
        """Where ids go."""
        device: torch.device = self.net.device
        return device

    @property
    def stop_ids(self) -> tuple[int, ...]:
        """The tokens that end a response."""
        return stop_ids(self.net, self.tokenizer)

    @property
    def pad_id(self) -> int:
        """The token in padding and in open places; attention never reaches it."""
        config = self.net.config.get_text_config(decoder=True)
        named = [getattr(owner, "pad_token_id", None) for owner in (self.tokenizer, config)]
        known = token_ids(named, self.net.get_input_embeddings().num_embeddings)
        return [*known, *self.stop_ids, 0][0]

    @property
    def chat(self) -> Chat:
        """How the model is spoken to."""
        return Chat(self.tokenizer, self.system, self.template_args)

    def watching(self, *layers: Layer, own: bool = True) -> Causal:
        """The same model, whose passes return the states of ``layers`` (none named: nothing is captured).

        ``own`` says whether every token's own state is wanted, which costs one pass more for the last one.
        """
        return replace(self, layers=layers, own=own and bool(layers))

    def canvas(self, prompts: Sequence[Prompt], length: int) -> Canvas:
        """Prompts in the chat template, each followed by ``length`` open places. Errors: :meth:`Chat.encode`."""
        context = getattr(self.net.config.get_text_config(decoder=True), "max_position_embeddings", None)
        rows = self.chat.encode(prompts, length=length, context=context, stops=self.stop_ids)
        return self.canvas_of(rows, length)

    def canvas_of(self, rows: Sequence[Sequence[int]], length: int) -> Canvas:
        """Token rows, each followed by ``length`` open places."""
        return canvas_of(rows, length, fill=self.pad_id, device=self.device)

    def pieces(self, ids: Sequence[int]) -> tuple[dict[int, bytes], frozenset[int]]:
        """The bytes of tokens, and which of them are special."""
        return token_bytes(self.tokenizer, ids)

    def new_cache(self) -> KVCache:
        """An empty cache for one generation."""
        return KVCache(self.net)

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
        upto = canvas.width if upto is None else upto
        start = cache.columns if cache is not None else 0
        pad = canvas.pad[:, :upto]
        padded = bool(pad.any())
        positions: Int[Tensor, "b m"] = ((~pad).long().cumsum(dim=1) - 1).clamp(min=0)[:, start:]
        trunk = decoder_of(self.net)
        with watched(self.net, self.layers) as states:
            last: Float[Tensor, "b m d"] = trunk(
                input_ids=canvas.ids[:, start:upto],
                attention_mask=(~pad).long() if padded else None,
                position_ids=positions,
                use_cache=cache is not None,
                **({} if cache is None else cached(trunk, cache.kv)),
            ).last_hidden_state
        check_states(self.net, last, pad[:, start:])
        if cache is not None:
            cache.columns = upto
        if score is None:
            return Forward(logits=last.new_empty((0, 0)), hidden=states(last), start=start)
        rows, where = torch.where(score)
        producing = torch.maximum(where - 1, canvas.pad.sum(dim=1)[rows])
        return Forward(logits=head_of(self.net)(last[rows, producing - start]), hidden=states(last), start=start)
