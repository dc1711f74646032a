"""Refusal signals the plain way, written by us from the method's description, as the yardstick of the benchmarks.

Nothing here is wrong and nothing is slowed down on purpose. It does what a first implementation does: one prompt at a
time, every layer's states of every step kept, no key-value cache, logits for all positions, a Python loop over vectors.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Answer:
    """The tokens of one answer, and phi after each of its ``s`` steps.

    ``own`` are the last layer's states *of* the tokens that were fed back (all but the last one), for checking.
    """

    tokens: list[int]
    phi: Float[Tensor, "s d"]
    own: Float[Tensor, "s-1 d"] | None = None


@torch.no_grad()
def autoregressive(net: Any, prompt: Sequence[int], steps: int, stop_ids: Sequence[int]) -> Answer:
    """Greedy decoding; phi is the running mean of the last layer's states that produced the tokens (``producing``)."""
    ids = torch.tensor([list(prompt)], device=net.device)
    volumes: list[Float[Tensor, "l n d"]] = []
    for _ in range(steps):
        out = net(input_ids=ids, output_hidden_states=True, use_cache=False)
        volumes.append(torch.stack([states[0] for states in out.hidden_states]))
        token = out.logits[0, -1].argmax()
        ids = torch.cat([ids, token.view(1, 1)], dim=1)
        if token.item() in stop_ids:
            break
    producing = [volume[-1, -1].float().cpu() for volume in volumes]
    phi = torch.stack([torch.stack(producing[: t + 1]).mean(dim=0) for t in range(len(producing))])
    own = volumes[-1][-1, len(prompt) :].float().cpu()
    return Answer(tokens=ids[0, len(prompt) :].tolist(), phi=phi, own=own)


@torch.no_grad()
def masked_diffusion(net: Any, prompt: Sequence[int], length: int, steps: int, mask_id: int) -> Answer:
    """Greedy low-confidence remasking in one block; phi is the mean over the committed positions (``generated``).

    The committed positions are averaged in the states of the step's own pass, on the CPU, after the generation.
    """
    n = len(prompt)
    ids = torch.tensor([[*prompt, *[mask_id] * length]], device=net.device)
    everyone = torch.zeros((1, 1, n + length, n + length), dtype=net.dtype, device=net.device)
    kept: list[Float[Tensor, "1 n d"]] = []
    handle = net.get_decoder().norm.register_forward_hook(lambda _m, _i, output: kept.append(output.clone()))
    written: list[Bool[Tensor, "n"]] = []
    try:
        for step in range(steps):
            count = length // steps + (step < length % steps)
            masked: Bool[Tensor, "1 n"] = ids == mask_id
            logits: Float[Tensor, "1 n v"] = net(input_ids=ids, attention_mask=everyone, use_cache=False).logits
            guess: Int[Tensor, "1 n"] = logits.argmax(dim=-1)
            sure = logits.softmax(dim=-1).gather(-1, guess[..., None])[..., 0]
            sure = torch.where(masked, sure, -torch.inf)
            chosen = sure[0].topk(count).indices
            ids[0, chosen] = guess[0, chosen]
            now = ids[0] != mask_id
            now[:n] = False
            written.append(now.cpu())
    finally:
        handle.remove()
    phi = [states[0].float().cpu()[where].mean(dim=0) for states, where in zip(kept, written, strict=True)]
    return Answer(tokens=ids[0, n:].tolist(), phi=torch.stack(phi))


def signal(
    phi: Sequence[Float[Tensor, "t d"]],
    harmless: Float[Tensor, "T d"],
    harmful: Float[Tensor, "T d"],
    tau: float = 0.1,
    eps: float = 1e-8,
) -> list[list[float]]:
    """sigma of every step of every trace, one vector at a time."""
    signals = []
    for trace in phi:
        sigma = []
        for t, state in enumerate(trace):
            near = 1 - torch.nn.functional.cosine_similarity(state, harmless[t], dim=0)
            away = 1 - torch.nn.functional.cosine_similarity(state, harmful[t], dim=0)
            ratio = torch.log(away.clamp(min=0) + eps) - torch.log(near.clamp(min=0) + eps)
            sigma.append(torch.sigmoid(ratio / tau).item())
        signals.append(sigma)
    return signals
