"""Masked diffusion: one generator for LLaDA, Dream, MDLM and what can be composed of the same rules.

The file is long because a step reads as one piece: what is predicted, what is committed, what is masked again.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from demur.samplers.dice import Dice, Rngs
from demur.samplers.rules import (
    CONFIDENCE,
    SAMPLINGS,
    SCHEDULES,
    Quota,
    above,
    among_top,
    annealed,
    annealing,
    bounded,
    check_nucleus,
    check_temperature,
    coins,
    dream,
    gumbel,
    nucleus,
    probability,
    surest,
    tempered,
)
from demur.types import Canvas, DemurError, Forward, Need, Scoring, Step


@dataclass(frozen=True)
class Turn:
    """One step of a row's plan: the block's end in open positions from the left, how many to commit, the chance of each
    position where coins decide, and whether it is the block's last, which commits what is left. ``noise`` is the share
    of chance in the order of commits.
    """

    end: int
    quota: Quota
    chance: float
    last: bool
    noise: float = 0.0


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


@dataclass(frozen=True)
class MaskedDiffusion:
    """Every step predicts all open positions, commits some of the current block and leaves the rest masked.

    The defaults are LLaDA's (arXiv:2502.09992, Algorithms 4 and 5; its generate.py); :func:`dream` gives Dream's.

    - ``steps`` in all (None: one for each open position), ``block_length`` in open positions from the left (None: one
      block), blocks filled left to right, ``schedule``: even, linear, cosine or dream.
    - Guesses: ``sampling`` by gumbel noise in float64 (LLaDA) or categorical (Dream), at ``temperature`` (0: argmax),
      the categorical ones within ``top_p`` and ``top_k``. ``suppress`` are tokens never predicted.
    - Commits, ``remasking``: the surest by low_confidence (probability), margin or entropy; at random; or origin (each
      position by a coin of its own). ``late`` tokens get no confidence. ``alg_temp`` > 0 draws the positions.
      ``threshold``: everything surer than it if that is more than planned. ``entropy_bound``: by joint entropy, however
      many. Both may end before ``steps``.
    - ``cfg_scale`` guides away from a pass whose given tokens are masked; states are those of the conditional half.
    - ``revise`` in [0, 1): after each step but a block's last, that share of the block's committed positions, the least
      sure ones, is masked again (in the spirit of ReMDM, arXiv:2503.00307); then the schedule spreads what is open
      evenly over the steps left.

    A position whose prediction is the mask token itself stays open (as in the official code); suppress the mask id to
    rule that out.
    """

    needs: ClassVar[frozenset[Need]] = frozenset({Need.REMASK})
    whole: ClassVar[bool] = True  # ``steps`` are those of a whole answer

    steps: int | None = 32
    block_length: int | None = None
    temperature: float = 0.0
    remasking: Literal["low_confidence", "random", "margin", "entropy", "origin"] = "low_confidence"
    schedule: Literal["even", "linear", "cosine", "dream"] = "even"
    sampling: Literal["gumbel", "categorical"] = "gumbel"
    top_p: float | None = None
    top_k: int | None = None
    alg_temp: float = 0.0
    eps: float = 1e-3
    threshold: float | None = None
    entropy_bound: float | None = None
    revise: float = 0.0
    cfg_scale: float = 0.0
    suppress: tuple[int, ...] = ()
    late: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if self.remasking not in (*CONFIDENCE, "random", "origin"):
            raise DemurError(
                f"remasking {self.remasking!r}", ", ".join((*CONFIDENCE, "random", "origin")), "name one of these"
            )
        if self.schedule not in SCHEDULES:
            raise DemurError(f"schedule {self.schedule!r}", ", ".join(SCHEDULES), "name one of these")
        if self.sampling not in SAMPLINGS:
            raise DemurError(f"sampling {self.sampling!r}", ", ".join(SAMPLINGS), "name one of these")
        if self.late and self.sampling != "gumbel":
            raise DemurError(f"late tokens with {self.sampling} sampling", "sampling='gumbel'", "leave one out")
        for name in ("steps", "block_length"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise DemurError(f"{name}={value}", "at least 1", "or None: a step for each open position, one block")
        check_temperature(self.temperature)
        check_nucleus(self.top_k, self.top_p)
        for name in ("cfg_scale", "alg_temp"):
            if not 0 <= getattr(self, name) < math.inf:
                raise DemurError(f"{name} {getattr(self, name)}", "a finite number, at least 0", "0 leaves it out")
        if min((*self.suppress, *self.late), default=0) < 0:
            raise DemurError(
                f"suppress {self.suppress}, late {self.late}", "token ids from 0", "look them up in the tokenizer"
            )
        if self.entropy_bound is not None and self.remasking != "entropy":
            raise DemurError(f"entropy_bound with remasking {self.remasking!r}", "remasking='entropy'", "set it")
        if not 0 <= self.revise < 1:
            raise DemurError(f"revise={self.revise}", "at least 0 and below 1", "0 leaves it out")
        if self.sampling == "gumbel" and (self.top_p is not None or self.top_k is not None):
            raise DemurError("top_p or top_k with Gumbel noise", "sampling='categorical'", "set it")

    def plan(self, n_open: int) -> list[Turn]:
        """The turns of one row with ``n_open`` open positions. Raises if there are fewer steps than blocks."""
        if n_open == 0:
            return []
        block = self.block_length or n_open
        n_blocks = -(-n_open // block)
        steps = n_open if self.steps is None else self.steps
        if steps < n_blocks:
            raise DemurError(
                f"{steps} steps for {n_blocks} blocks ({n_open} open positions, block length {block})",
                "at least one step a block",
                f"use at least {n_blocks} steps or longer blocks",
            )
        plan: list[Turn] = []
        for b in range(n_blocks):
            size, share = min(block, n_open - b * block), steps // n_blocks + (b < steps % n_blocks)
            quotas = dream(size, share, self.eps) if self.schedule == "dream" else SCHEDULES[self.schedule](size, share)
            if self.revise:  # what was masked again has to be committed too: spread what is open over the steps left
                quotas = [_over(share - i) for i in range(share)]
            chances = coins(len(quotas), self.eps)  # a schedule may need fewer steps than its share
            plan += [Turn(b * block + size, quota, chances[i], i == len(quotas) - 1) for i, quota in enumerate(quotas)]
        return plan

    def __call__(self, model: Scoring, canvas: Canvas, rngs: Rngs, repair: Repair | None = None) -> Iterator[Step]:
        """Steps until every row's plan is done or, with dynamic commits, its positions are filled; ``repair`` is a
        defense's. Raises for guidance and for revising on a model without a mask token.
        """
        dice = Dice(rngs, canvas.rows)
        mask = -1 if model.mask_id is None else model.mask_id  # -1: no token is like it (law 3 runs a causal model)
        starts = canvas.starts()
        plans = [_annealed(self.plan(int(n)), repair) for n in canvas.open.sum(dim=1).tolist()]
        rank: Int[Tensor, "b n"] = canvas.open.long().cumsum(dim=1)  # 1 for the first open position of a row
        ids, open_ = canvas.ids.clone(), canvas.open.clone()
        trust = torch.full(ids.shape, torch.inf, device=ids.device)  # how sure each committed token was
        at = [0] * canvas.rows  # every row's place in its own plan
        banned: Int[Tensor, "b n"] = torch.full_like(ids, -1)  # the token that a repaired place held
        due = [False] * canvas.rows  # rows that are still to be repaired
        for index in itertools.count():
            turns = [plan[at[i]] if at[i] < len(plan) else None for i, plan in enumerate(plans)]
            if not any(turns):
                return
            live: Bool[Tensor, "b"] = torch.tensor([turn is not None for turn in turns], device=ids.device)
            asked = open_ & live[:, None]
            out, passes = self._forward(model, replace(canvas, ids=ids), canvas.open, asked), 1 + (self.cfg_scale > 0)
            if repair is not None:
                if index == 0:
                    due, more = _audited(repair, model, canvas, out, plans)
                    passes += more
                _forbid(out.logits, banned[asked], mask)
            guess, sure = self._guess(out.logits, dice, asked, starts, turns)
            predictions, confidence = ids.clone(), torch.full(ids.shape, float("nan"), device=ids.device)
            predictions[asked], confidence[asked] = guess, sure.float()
            score = torch.full(ids.shape, -torch.inf, dtype=sure.dtype, device=ids.device)
            score[asked] = self._shaken(sure, asked, turns, dice)
            committed = torch.zeros_like(open_)
            for i, turn in enumerate(turns):
                if turn is not None:
                    mine = slice(starts[i], None)
                    within = rank[i, mine] <= turn.end
                    chosen = self._select(score[i, mine].masked_fill(~within, -torch.inf), turn, dice, i)
                    committed[i, chosen + starts[i]] = True
            committed &= open_
            committed &= predictions != mask
            ids = torch.where(committed, predictions, ids)
            open_ = open_ & ~committed
            trust = torch.where(committed, confidence, trust)
            for i, turn in enumerate(turns):
                if turn is not None:
                    block = rank[i] <= turn.end
                    at[i] = self._next(plans[i], at[i], full=not bool((open_[i] & block).any()))
                    if self.revise and at[i] < len(plans[i]) and plans[i][at[i]].end == turn.end:
                        again = self._doubted(
                            trust[i], canvas.open[i] & ~open_[i] & block & (rank[i] > self._begin(turn))
                        )
                        ids[i, again], open_[i, again] = mask, True
                    if due[i] and (at[i] == len(plans[i]) or plans[i][at[i]].end != turn.end):
                        assert repair is not None
                        due[i], block = False, block & canvas.open[i]
                        mending = _masked_again(repair, block, ids[i], open_[i], banned[i], mask, dice, i)
                        plans[i][at[i] : at[i]] = [replace(one, end=turn.end) for one in mending]
            yield Step(
                index=index,
                ids=ids.clone(),
                open=open_.clone(),
                committed=committed,
                predictions=predictions,
                confidence=confidence,
                live=live,
                hidden=out.hidden,
                start=out.start,
                span="all",
                shift=model.shift,
                passes=passes,
            )

    def _forward(self, model: Scoring, now: Canvas, opened: Bool[Tensor, "b n"], asked: Bool[Tensor, "b n"]) -> Forward:
        """The conditional pass, guided away from the one in which the given tokens are masked too."""
        if self.revise and model.mask_id is None:
            raise DemurError(
                f"revising on the causal model {model.name}", "a mask token to mask again", "leave revise 0"
            )
        out: Forward = model.forward(now, asked)
        logits = out.logits
        if self.cfg_scale > 0:
            if model.mask_id is None:
                raise DemurError("guidance on a causal model", "a model with a mask token", "leave cfg_scale 0")
            blind = torch.where(opened | now.pad, now.ids, model.mask_id)
            free = model.watching().forward(replace(now, ids=blind), asked).logits
            logits = free + (self.cfg_scale + 1) * (logits - free)
        if max((*self.suppress, *self.late), default=0) >= logits.shape[-1]:
            raise DemurError(
                f"suppress {self.suppress}, late {self.late}",
                f"token ids below {logits.shape[-1]}, the size of the vocabulary",
                "look them up in the tokenizer",
            )
        if self.suppress:
            logits[:, list(self.suppress)] = -torch.inf
        return replace(out, logits=logits)

    def _guess(
        self,
        logits: Float[Tensor, "k v"],
        dice: Dice,
        asked: Bool[Tensor, "b n"],
        starts: Sequence[int],
        turns: Sequence[Turn | None],
    ) -> tuple[Int[Tensor, "k"], Float[Tensor, "k"]]:
        """A guess for every asked position, and how sure it is of it; -inf where a coin said not to commit."""
        rows, columns = torch.where(asked)
        counts = asked.sum(dim=1).tolist()
        # Noise for whole rows is drawn for a row's own columns, so that it is the same with any padding; a single
        # generator draws for the padding as well, as the official code does.
        firsts = [0] * len(starts) if dice.shared else list(starts)
        lengths = [asked.shape[1] - first for first in firsts]
        offsets = [sum(lengths[:i]) - first for i, first in enumerate(firsts)]
        places = columns + torch.tensor(offsets, device=columns.device)[rows]
        if self.sampling == "gumbel":
            guess = gumbel(logits, self.temperature, dice, lengths, places)
            if self.late:
                logits[:, list(self.late)] = -torch.inf
            probs = logits.softmax(dim=-1)
        else:
            scaled = tempered(logits, self.temperature) if self.temperature > 0 else logits
            probs = among_top(nucleus(scaled, self.top_p), self.top_k).softmax(dim=-1)
            guess = probs.argmax(dim=-1)
        if self.remasking == "origin":  # a coin for every position; tokens are drawn for those that it chose only
            chance = torch.tensor([turn.chance if turn else 0.0 for turn in turns], device=rows.device)
            heads = dice.rand(counts).to(rows.device) < chance[rows]
            if self.temperature > 0:
                chosen = [int(heads[rows == i].sum()) for i in range(len(counts))]
                guess[heads] = dice.multinomial(_normalised(probs[heads]), chosen)
            return guess, probability(probs, guess).masked_fill(~heads, -torch.inf)
        if self.sampling == "categorical" and self.temperature > 0:
            guess = dice.multinomial(_normalised(probs), counts)
        if self.remasking == "random":
            return guess, dice.rand(lengths).to(places.device)[places]
        return guess, CONFIDENCE[self.remasking](probs, guess)

    def _shaken(
        self, sure: Float[Tensor, "k"], asked: Bool[Tensor, "b n"], turns: Sequence[Turn | None], dice: Dice
    ) -> Float[Tensor, "k"]:
        """Scores with each row's share of chance; a row without any draws nothing and keeps its own."""
        shares = [turn.noise if turn else 0.0 for turn in turns]
        if not any(shares):
            return sure
        share = torch.tensor(shares, device=sure.device)[torch.where(asked)[0]]
        counts = [n if s else 0 for n, s in zip(asked.sum(dim=1).tolist(), shares, strict=True)]
        noise = torch.zeros(len(sure), device=sure.device)
        noise[share > 0] = dice.rand(counts).to(sure.device)
        # Minus an entropy is no number in [0, 1]; its exponential is one, in the same order.
        of_one = torch.where(share > 0, sure.exp(), sure) if self.remasking == "entropy" else sure
        return annealed(of_one, noise, share).to(sure.dtype)

    def _select(self, score: Float[Tensor, "n"], turn: Turn, dice: Dice, row: int) -> Int[Tensor, "c"]:
        """The positions of one row that a step commits; ``score`` is -inf outside its block's open positions."""
        able = torch.where(torch.isfinite(score))[0]
        count = min(turn.quota(len(able)), len(able))
        if self.remasking == "origin" or (self.entropy_bound is not None and turn.last):
            return able
        if self.entropy_bound is not None:
            return bounded(score, self.entropy_bound)
        if self.threshold is not None:
            return above(score, count, self.threshold)
        if self.alg_temp > 0:  # weights may underflow to 0, and then multinomial takes what must not be taken
            drawn = dice.choose((score / self.alg_temp).softmax(dim=-1), count, row)
            drawn = drawn[torch.isfinite(score[drawn])]
            return torch.cat([drawn, surest(score.index_fill(0, drawn, -torch.inf), count - len(drawn))])
        return surest(score, count)

    def _next(self, plan: Sequence[Turn], at: int, full: bool) -> int:
        """The next turn; if commits may be more than planned, the first of the next block once this one is full."""
        end, at = plan[at].end, at + 1
        if full and (self.threshold is not None or self.entropy_bound is not None):
            while at < len(plan) and plan[at].end == end:
                at += 1
        return at

    def _begin(self, turn: Turn) -> int:
        """How many open positions stand before the turn's block."""
        return 0 if self.block_length is None else (turn.end - 1) // self.block_length * self.block_length

    def _doubted(self, trust: Float[Tensor, "n"], committed: Bool[Tensor, "n"]) -> Int[Tensor, "c"]:
        """The least sure of the committed positions, as many as ``revise`` says."""
        count = int(self.revise * int(committed.sum()))
        return torch.topk(trust.masked_fill(~committed, torch.inf), count, largest=False).indices


def _normalised(probs: Float[Tensor, "k v"]) -> Float[Tensor, "k v"]:
    """Probabilities that add up to 1 once more, as torch's Categorical makes them before it draws."""
    return probs / probs.sum(dim=-1, keepdim=True)


def _over(steps_left: int) -> Quota:
    return lambda n_open: -(-n_open // steps_left)


def _annealed(plan: list[Turn], repair: Repair | None) -> list[Turn]:
    """The plan with a defense's chance in it, annealed to 0 over the steps of each block."""
    if repair is None:
        return plan
    blocks = [list(turns) for _, turns in itertools.groupby(plan, key=lambda turn: turn.end)]
    shares = [share for block in blocks for share in annealing(len(block), repair.noise)]
    return [replace(turn, noise=share) for turn, share in zip(plan, shares, strict=True)]


def _audited(
    repair: Repair, model: Scoring, canvas: Canvas, out: Forward, plans: Sequence[Sequence[Turn]]
) -> tuple[list[bool], int]:
    """Which rows are to be repaired, and the forward passes that it took to know."""
    ends = torch.tensor([plan[0].end if plan else 0 for plan in plans], device=canvas.ids.device)
    found, passes = repair.audit(model, canvas, out, canvas.open & (canvas.open.long().cumsum(dim=1) <= ends[:, None]))
    return found.tolist(), passes


def _masked_again(
    repair: Repair,
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
    again = done[dice.choose(torch.ones(len(done), device=done.device), count, row)]
    banned[block] = mask_id  # what the model left open is filled now, too
    banned[again] = ids[again]
    ids[again], open_[again] = mask_id, True
    left = min(repair.steps, int((block & open_).sum()))
    return [Turn(0, _over(left - j), 1.0, j == left - 1, noise=1.0) for j in range(left)]


def _forbid(logits: Float[Tensor, "k v"], banned: Int[Tensor, "k"], mask_id: int) -> None:
    """Rules out, in place, the token that each position of a repaired block held, and the mask token; -1: nothing."""
    where = torch.where(banned >= 0)[0]
    if len(where):
        logits[where, banned[where]] = -torch.inf
        logits[where, mask_id] = -torch.inf
