"""Models that denoise random canvases, whose accepted tokens may be renoised: DiffusionGemma, on its native class."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from demur.models.chat import Chat, canvas_of
from demur.models.network import Identity, KVCache, cached, check_states, said, stop_ids, token_ids, watched
from demur.models.vocabulary import token_bytes
from demur.types import Canvas, Forward, Layer, Prompt


@dataclass(frozen=True, eq=False)
class Renoising:
    """An encoder that reads what is written, and a decoder that sees it and denoises one canvas at a time."""

    net: Any
    tokenizer: Any
    identity: Identity
    system: str | None = None
    layers: tuple[Layer, ...] = ("last",)
    mask_id: None = None
    shift: int = 0
    kind: str = "renoising"
    preferred: str = "renoising"
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
    def vocabulary(self) -> int:
        """How many tokens there are; canvases start as random ones."""
        return int(self.net.config.text_config.vocab_size)

    @property
    def canvas_length(self) -> int:
        """How many places are denoised together."""
        return int(self.net.config.canvas_length)

    @property
    def stop_ids(self) -> tuple[int, ...]:
        """The tokens that end a response."""
        return stop_ids(self.net, self.tokenizer)

    @property
    def pad_id(self) -> int:
        """The token in padding, and after the end of a response."""
        owners = (self.net.generation_config, self.net.config.text_config)
        ids = [i for owner in owners for i in token_ids(owner.pad_token_id, self.vocabulary)]
        return ids[0] if ids else 0

    @property
    def chat(self) -> Chat:
        """How the model is spoken to."""
        return Chat(self.tokenizer, self.system, self.template_args)

    def watching(self, *layers: Layer) -> Renoising:
        """The same model, whose passes return the states of ``layers`` (none named: nothing is captured)."""
        return replace(self, layers=layers)

    def canvas(self, prompts: Sequence[Prompt], length: int) -> Canvas:
        """Prompts in the chat template, each followed by ``length`` open places. Errors: :meth:`Chat.encode`."""
        context = getattr(self.net.config.text_config, "max_position_embeddings", None)
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
    def read(self, canvas: Canvas, cache: KVCache, upto: int) -> None:
        """Lets the encoder read the columns before ``upto`` that the cache does not hold yet."""
        encoder = self.net.model.encoder
        encoder(
            input_ids=canvas.ids[:, cache.columns : upto],
            attention_mask=~canvas.pad[:, :upto],
            position_ids=_positions(canvas.pad)[:, cache.columns : upto],
            **cached(encoder, cache.kv),
        )
        cache.columns = upto

    @torch.no_grad()
    def denoise(
        self, canvas: Canvas, cache: KVCache, draft: Int[Tensor, "b m"], before: Float[Tensor, "b m v"] | None
    ) -> Forward:
        """One decoder pass over a canvas of ``m`` places after what was read; ``before``: the last step's logits.

        The result's logits have ``b * m`` rows, soft-capped and in fp32; its states are those of the canvas's columns.
        """
        start, width = cache.columns, cache.columns + draft.shape[1]
        decoder = self.net.model.decoder
        with watched(self.net, self.layers) as states:
            last: Float[Tensor, "b m d"] = decoder(
                decoder_input_ids=draft,
                self_conditioning_logits=before,
                decoder_attention_mask=~canvas.pad[:, :width],
                decoder_position_ids=_positions(canvas.pad)[:, start:width],
                **cached(decoder, cache.kv),
            ).last_hidden_state
        check_states(self.net, last, canvas.pad[:, start:width])
        cap = self.net.final_logit_softcapping
        logits = torch.tanh(self.net.lm_head(last).float() / cap) * cap
        return Forward(logits=logits.flatten(0, 1), hidden=states(last), start=start)


def _positions(pad: Bool[Tensor, "b n"]) -> Int[Tensor, "b n"]:
    return ((~pad).long().cumsum(dim=1) - 1).clamp(min=0)
