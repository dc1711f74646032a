"""What a defense changes inside a masked generation: chance in the order of commits, and a repair of one block."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from demur.samplers.dice import Dice
from demur.samplers.plans import Turn, Turns
from demur.samplers.rules import Quota, annealing
from demur.types import Canvas, Forward, Scoring


@dataclass(frozen=True)
class Repair:
    """What a defense changes inside a generation; :class:`demur.defenses.DiffuGuard` says why and whence.

    ``noise`` in [0, 1]: the share of chance in the order of commits at a block's first step, annealed to 0 at its last.
    ``audit`` looks once, at the first pass (model, canvas, the pass, the open places of each row's first block), and
    says which rows are to be repaired and how many forward passes it took. A repair comes right after a row's first
    block: a ``share`` of its places, drawn evenly, is masked again, and filled in up to ``steps`` steps more, in random
    order, none with the token that it held.
    """

    noise: float
    share: float
    steps: int
    audit: Callable[[Any, Canvas, Forward, Bool[Tensor, "b n"]], tuple[Bool[Tensor, "b"], int]]


def annealed_plan(plan: list[Turn], repair: Repair | None) -> list[Turn]:
    """The plan with a defense's chance in it, annealed to 0 over the steps of each block."""
    if repair is None:
        return plan
    blocks = [list(turns) for _, turns in itertools.groupby(plan, key=lambda turn: turn.end)]
    shares = [share for block in blocks for share in annealing(len(block), repair.noise)]
    return [replace(turn, noise=share) for turn, share in zip(plan, shares, strict=True)]


def audited(repair: Repair, model: Scoring, canvas: Canvas, out: Forward, first: Turns) -> tuple[list[bool], int]:
    """Which rows are to be repaired, and the forward passes that it took to know."""
    block = canvas.open & (canvas.open.long().cumsum(dim=1) <= first.end[:, None])
    found, passes = repair.audit(model, canvas, out, block)
    return found.tolist(), passes


def again_from(
    repair: Repair,
    end: int,
    block: Bool[Tensor, "n"],
    ids: Int[Tensor, "n"],
    open_: Bool[Tensor, "n"],
    banned: Int[Tensor, "n"],
    mask_id: int,
    dice: Dice,
    row: int,
) -> list[Turn]:
    """Opens a share of one row's finished block again, in place, and says which turns fill it."""
    done = torch.where(block & ~open_)[0]
    count = min(int(repair.share * int(block.sum())), len(done))
    again = done[dice.choose(torch.ones(len(done), dtype=torch.float32, device=done.device), count, row)]
    banned[block] = mask_id  # what the model left open is filled now, too
    banned[again] = ids[again]
    ids[again], open_[again] = mask_id, True
    left = min(repair.steps, int((block & open_).sum()))
    return [Turn(end, Quota(left=left - j), 1.0, j == left - 1, noise=1.0) for j in range(left)]


def forbid(logits: Float[Tensor, "k v"], banned: Int[Tensor, "k"], mask_id: int) -> None:
    """Rules out, in place, the token that each position of a repaired block held, and the mask token; -1: nothing."""
    none = (banned < 0)[:, None]
    for token in (banned.clamp(min=0)[:, None], torch.full_like(banned, mask_id)[:, None]):
        logits.scatter_(1, token, torch.where(none, logits.gather(1, token), -torch.inf))
