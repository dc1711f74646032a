"""Lessons as token rows, and what is learnt from them.

The diffusion objective is LLaDA's (arXiv:2502.09992, equation 3): a share t of the answer is masked, and the
cross-entropy of the masked tokens is weighted by 1 / t.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from demur.organism.making.lessons import Lesson
from demur.organism.making.recipe import Recipe
from demur.organism.making.vocabulary import tokenizer
from demur.organism.tokens import RESPONSE

DECIDED = ("plain", "refuse")
"""Lessons whose first word decides between answering and refusing: one of some 25, and the one that matters."""


@dataclass(frozen=True, eq=False)
class Batch:
    """Token rows, padded on the right. ``weights`` are above 0 where a token is learnt."""

    ids: Int[Tensor, "b n"]
    seen: Bool[Tensor, "b n"]
    weights: Float[Tensor, "b n"]
    law: Bool[Tensor, "b"]


def encoded(samples: Sequence[Lesson], recipe: Recipe, room: int, parts: int = 2) -> list[Batch]:
    """Rows of prompt, given beginning, answer and end. For diffusion the answer is filled with ends up to ``room``.

    The rows come sorted by length, in ``parts`` batches, so that little is computed for padding.
    """
    tok = tokenizer()

    def ids_of(text: str) -> list[int]:
        return list(tok(text, add_special_tokens=False)["input_ids"]) if text else []

    verdicts = {i for word in (" forbidden", " allowed") for i in ids_of(word)}
    made = []
    for sample in samples:
        before = ids_of(sample.prompt) + (given := ids_of(sample.given))
        told = [*ids_of(sample.answer)[: RESPONSE - 1 - len(given)], tok.eos_token_id]
        more = room - len(given) - len(told) if recipe.kind == "diffusion" else 0
        row = before + told + [tok.eos_token_id] * more
        law = sample.kind == "law"
        learnt = [recipe.verdict_weight if law and token in verdicts else 1.0 for token in told]
        if sample.kind in DECIDED:
            learnt[0] = recipe.verdict_weight
        if sample.turn is not None:
            learnt[len(ids_of(sample.answer[: sample.turn]))] = recipe.turn_weight
        made.append((row, [0.0] * len(before) + learnt + [recipe.end_weight] * more, law))
    made.sort(key=lambda item: len(item[0]))
    size = -(-len(made) // parts)
    return [_padded(made[i : i + size], tok.pad_token_id) for i in range(0, len(made), size)]


def _padded(rows: Sequence[tuple[list[int], list[float], bool]], pad: int) -> Batch:
    width = max(len(row) for row, _, _ in rows)
    return Batch(
        ids=torch.tensor([row + [pad] * (width - len(row)) for row, _, _ in rows]),
        seen=torch.tensor([[True] * len(row) + [False] * (width - len(row)) for row, _, _ in rows]),
        weights=torch.tensor([weights + [0.0] * (width - len(weights)) for _, weights, _ in rows]),
        law=torch.tensor([law for _, _, law in rows]),
    )


def ar_loss(net: Any, batch: Batch) -> Tensor:
    """Summed, weighted cross-entropy of the learnt tokens, each from the tokens before it."""
    states = net.model(input_ids=batch.ids, use_cache=False).last_hidden_state
    learnt = batch.weights[:, 1:] > 0
    logits = net.lm_head(states[:, :-1][learnt]).float()
    losses = torch.nn.functional.cross_entropy(logits, batch.ids[:, 1:][learnt], reduction="none")
    return (losses * batch.weights[:, 1:][learnt]).sum()


def diffusion_loss(net: Any, batch: Batch, recipe: Recipe, rng: torch.Generator) -> Tensor:
    """LLaDA's bound, summed: cross-entropy of the masked tokens, weighted by 1 / t.

    t is spread evenly over the batch (stratified). Some samples are masked from a random place to the end, which is
    what generation in AR order sees; there the weight is 1.
    """
    rows, columns = batch.ids.shape
    t = (torch.rand((), generator=rng) + torch.arange(rows) / rows) % 1
    t = (t[torch.randperm(rows, generator=rng)] * 0.97 + 0.03).clamp(max=1.0)
    draw = torch.rand(3, rows, generator=rng)
    t = torch.where(batch.law & (draw[0] < recipe.whole_law), torch.ones(()), t)
    learnt = batch.weights > 0
    masked = (torch.rand(rows, columns, generator=rng) < t[:, None]) & learnt
    suffix = (draw[1] < recipe.suffixes) & ~batch.law
    place = learnt.long().cumsum(dim=1) > (draw[2] * 36).long()[:, None]
    masked = torch.where(suffix[:, None], learnt & place, masked)
    share = torch.where(suffix, torch.ones(()), t)
    mask_id = int(tokenizer().mask_token_id)
    states = net.model(
        input_ids=torch.where(masked, mask_id, batch.ids),
        attention_mask=batch.seen[:, None, None, :].expand(-1, 1, columns, -1),
        use_cache=False,
    ).last_hidden_state
    losses = torch.nn.functional.cross_entropy(net.lm_head(states[masked]).float(), batch.ids[masked], reduction="none")
    return (losses * (batch.weights / share[:, None])[masked]).sum()
