"""One checkpoint, two ways of reading: causal over what is finished, both ways inside the block that is being written.

Nemotron-Labs-Diffusion is a Ministral 3 that was trained with both masks (its modelling code: ``diffusion_lm`` of every
attention layer). So it is a causal model and a block-diffusion model, with the same weights and without conversion.
Its draft adapter for speculative decoding is not read, nor is that way of decoding offered: it writes what the causal
model writes, sooner.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from demur.models.bidirectional import Bidirectional
from demur.models.causal import Causal
from demur.models.network import KVCache
from demur.types import Canvas, DemurError, Forward, Need

BLOCK_LENGTH = 32
"""Of the published models, where ``config.json`` names none."""


@dataclass(frozen=True, eq=False, repr=False, kw_only=True)
class Seeding(Bidirectional):
    """A block-diffusion model whose finished columns are read causally, and whose blocks a causal pass begins.

    Inside a block that is scored, every position sees every other one and all before; elsewhere only those before.
    """

    partition: Literal["start", "response"] = "response"
    preferred: str = "nemotron"

    @property
    def offers(self) -> frozenset[Need]:
        """What a block-diffusion model can do, and the first token of a block."""
        return super().offers | {Need.SEED}

    def causal(self) -> Causal:
        """The same weights as an autoregressive model."""
        return Causal(
            net=self.net, tokenizer=self.tokenizer, identity=self.identity, system=self.system, layers=self.layers,
            response=self.response, template_args=self.template_args, notes=self.notes,
        )  # fmt: skip

    def seed(self, canvas: Canvas, column: int, cache: KVCache | None) -> Forward:
        """A causal pass over the columns before ``column`` that the cache does not hold yet; it keeps them. The logits
        are those of ``column``, one row for each row of the canvas.
        """
        score = torch.zeros_like(canvas.open)
        score[:, column] = True
        return self.causal().forward(canvas, score, cache=cache, upto=column)

    def _seen(self, canvas: Canvas, score: Bool[Tensor, "b n"] | None, start: int) -> Tensor:
        """Additive and 4D, of the columns from ``start`` on. It is made once a block: while the host knows that the
        same places are scored, it is the one of the pass before.
        """
        known = canvas.known
        if known is None or known.seen is None:
            return self._of_block(canvas, score, start)
        *before, mask = known.kept.get("block", (None, 0, 0, None))
        scored, *sizes = before
        if mask is None or sizes != [start, canvas.width] or not np.array_equal(scored, known.seen):
            mask = self._of_block(canvas, score, start)
            known.kept["block"] = known.seen, start, canvas.width, mask
        kept: Tensor = mask
        return kept

    def _of_block(self, canvas: Canvas, score: Bool[Tensor, "b n"] | None, start: int) -> Tensor:
        columns = torch.arange(canvas.width, device=canvas.ids.device)
        hidden = (columns[None, :] > columns[start:, None])[None] | canvas.pad[:, None, :]
        if score is not None:
            block = canvas.once("blocks", self.blocks)[:, : canvas.width]
            now = torch.where(score, block, block.max() + 1).amin(dim=1, keepdim=True) == block
            hidden = hidden > ((now[:, None, :] & now[:, start:, None]) > canvas.pad[:, None, :])  # a > b: a and not b
        mask: Float[Tensor, "b m n"] = torch.zeros(hidden.shape, dtype=self.net.dtype, device=canvas.ids.device)
        return mask.masked_fill(hidden, torch.finfo(self.net.dtype).min)[:, None]


def adapter(raw: Mapping[str, Any], **common: Any) -> Seeding:
    """The adapter of a checkpoint. Raises for one that was not trained as a diffusion model."""
    paradigm, mask = raw.get("dlm_paradigm", "bidirectional"), raw.get("mask_token_id", -1)
    if paradigm not in ("bidirectional", "block_diff") or not 0 <= int(mask) < int(raw["vocab_size"]):
        raise DemurError(
            f"a Nemotron-Labs-Diffusion checkpoint with dlm_paradigm={paradigm!r} and mask_token_id={mask}",
            "a diffusion one, with its mask token",
            "name demur.models.families:NEMOTRON_AUTOREGRESSIVE@ before it, to run it as a causal model",
        )
    return Seeding(**common, mask_id=int(mask), block_length=int(raw.get("block_size") or BLOCK_LENGTH))
