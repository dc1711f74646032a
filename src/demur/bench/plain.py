"""The bare way: what a model's makers run, without demur around it.

For a causal model that is ``generate`` of transformers. For masked diffusion it is a plain loop of ours that stands for
the official sampler: logits, softmax and argmax of every place at every step. Other kinds have no plain loop here.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from demur.models.bidirectional import ENCODERS
from demur.types import Canvas, Kind, Model


@torch.no_grad()
def generated(model: Model, canvas: Canvas, length: int) -> Int[Tensor, "b g"]:
    """``generate``, greedy, with its cache, on rows that are padded on the left; the new tokens."""
    width = canvas.width - length
    ids, seen = canvas.ids[:, :width], (~canvas.pad[:, :width]).long()
    net, config = model.net, model.net.generation_config
    held = {name: getattr(config, name, None) for name in ("temperature", "top_p", "top_k")}
    try:
        for name in held:  # of sampling, which warns where nothing is sampled
            setattr(config, name, None)
        out = net.generate(
            input_ids=ids, attention_mask=seen, do_sample=False, max_new_tokens=length,
            pad_token_id=getattr(model, "pad_id", None), eos_token_id=list(model.stop_ids) or None,
        )  # fmt: skip
    finally:
        for name, value in held.items():
            setattr(config, name, value)
    new: Int[Tensor, "b g"] = out[:, width:]
    return new


@torch.no_grad()
def denoised(model: Model, canvas: Canvas, length: int, steps: int) -> Int[Tensor, "b g"]:
    """Low-confidence remasking in one block, greedy: the surest guesses of each step are committed."""
    ids, width = canvas.ids.clone(), canvas.width - length
    mask_id = model.mask_id
    assert mask_id is not None, "a masked model has one"
    mask = _everyone(model, canvas)
    positions = ((~canvas.pad).long().cumsum(dim=1) - 1).clamp(min=0)
    for step in range(steps):
        logits = model.net(input_ids=ids, attention_mask=mask, position_ids=positions, use_cache=False).logits
        if model.shift:
            logits = torch.cat([logits[:, :1], logits[:, :-1]], dim=1)
        guess = logits.argmax(dim=-1)
        sure = logits.softmax(dim=-1).gather(-1, guess[..., None])[..., 0]
        still: Bool[Tensor, "b n"] = torch.eq(ids, mask_id)
        still[:, :width] = False
        chosen = sure.masked_fill(~still, -torch.inf).topk(length // steps + (step < length % steps), dim=-1).indices
        ids.scatter_(1, chosen, guess.gather(1, chosen))
    return ids[:, width:]


def _everyone(model: Model, canvas: Canvas) -> Tensor:
    """A mask that lets every place see every other one but padding."""
    if model.net.config.model_type in ENCODERS:
        return (~canvas.pad).long()
    room = (canvas.rows, 1, canvas.width, canvas.width)
    mask = torch.zeros(room, dtype=model.net.dtype, device=canvas.ids.device)
    return mask.masked_fill(canvas.pad[:, None, None, :], torch.finfo(model.net.dtype).min)


def has_plain(model: Model) -> bool:
    """Whether a bare way is known."""
    return model.kind in (Kind.CAUSAL, Kind.MASKED)
