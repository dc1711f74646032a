"""Models that denoise random canvases, whose accepted tokens may be renoised: DiffusionGemma, on its native class."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from demur.models.adapter import Adapter
from demur.models.network import KVCache, cached, check_states, token_ids, watched
from demur.types import Canvas, Forward, Kind


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class Renoising(Adapter):
    """An encoder that reads what is written, and a decoder that sees it and denoises one canvas at a time."""

    preferred: str = "renoising"

    @property
    def kind(self) -> Kind:
        """Canvases of random tokens."""
        return Kind.RENOISING

    @property
    def mask_id(self) -> None:
        """There is none."""
        return None

    @property
    def shift(self) -> int:
        """A column produces its own position."""
        return 0

    @property
    def config(self) -> Any:
        """The configuration of the text model."""
        return self.net.config.text_config

    @property
    def vocabulary(self) -> int:
        """How many tokens there are; canvases start as random ones."""
        return int(self.config.vocab_size)

    @property
    def canvas_length(self) -> int:
        """How many places are denoised together."""
        return int(self.net.config.canvas_length)

    @property
    def pad_id(self) -> int:
        """The token in padding, and after the end of a response."""
        owners = (self.net.generation_config, self.config)
        ids = [i for owner in owners for i in token_ids(owner.pad_token_id, self.vocabulary)]
        return ids[0] if ids else 0

    @property
    def fill_id(self) -> int:
        """The token of padding."""
        return self.pad_id

    def default_length(self, steps: int = 32) -> int:
        """One canvas, or what the configuration says."""
        return self.response or self.canvas_length

    @torch.no_grad()
    def read(self, canvas: Canvas, cache: KVCache, upto: int) -> None:
        """Lets the encoder read the columns before ``upto`` that the cache does not hold yet."""
        encoder = self.net.model.encoder
        encoder(
            input_ids=canvas.ids[:, cache.columns : upto],
            attention_mask=~canvas.pad[:, :upto],
            position_ids=canvas.positions()[:, cache.columns : upto],
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
                decoder_position_ids=canvas.positions()[:, start:width],
                **cached(decoder, cache.kv),
            ).last_hidden_state
        check_states(self.net, last, canvas.pad[:, start:width])
        cap = self.net.final_logit_softcapping
        logits = torch.tanh(self.net.lm_head(last).float() / cap) * cap
        return Forward(logits=logits.flatten(0, 1), hidden=states(last), start=start)
