"""Masked diffusion: one generator for LLaDA, Dream, MDLM and what can be composed of the same rules.

The file is long because a step reads as one piece: what is predicted, what is committed, what is masked again.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import ClassVar, Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from demur.kinds import check_kinds
from demur.samplers.asked import Asked, Host
from demur.samplers.dice import Dice, Rngs
from demur.samplers.plans import Plans, Turn, Turns
from demur.samplers.repair import Repair, again_from, annealed_plan, audited, forbid
from demur.samplers.rules import (
    CONFIDENCE,
    SAMPLINGS,
    SCHEDULES,
    Quota,
    above,
    among_top,
    annealed,
    bounded,
    check_count,
    check_nucleus,
    check_temperature,
    check_threshold,
    coins,
    dream,
    gumbel,
    joined,
    nucleus,
    pieces,
    probability,
    surest,
    tempered,
)
from demur.types import Canvas, DemurError, Forward, Need, Scoring, Step


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
        check_kinds(self, vars(self), type(self).__name__)
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
            check_count(name, getattr(self, name), "or None: a step for each open position, one block")
        check_threshold("threshold", self.threshold)
        check_threshold("entropy_bound", self.entropy_bound)
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

    @property
    def commits_are_final(self) -> bool:
        """Whether a committed token is never masked again."""
        return self.revise == 0

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
                quotas = [Quota(left=share - i) for i in range(share)]
            chances = coins(len(quotas), self.eps)  # a schedule may need fewer steps than its share
            plan += [Turn(b * block + size, quota, chances[i], i == len(quotas) - 1) for i, quota in enumerate(quotas)]
        return plan

    def __call__(self, model: Scoring, canvas: Canvas, rngs: Rngs, repair: Repair | None = None) -> Iterator[Step]:
        """Steps until every row's plan is done or, with dynamic commits, its positions are filled; ``repair`` is a
        defense's. Raises for guidance and for revising on a model without a mask token.

        A step decides for all rows at once, where the model is. The host waits for it once, when it reads what is open
        and where each row stands in its plan (:class:`~demur.samplers.asked.Host`).
        """
        dice, host, device = Dice(rngs, canvas.rows), Host.of(canvas), canvas.ids.device
        mask = -1 if model.mask_id is None else model.mask_id  # -1: no token is like it (law 3 runs a causal model)
        plan = cache(self.plan)
        plans = Plans([annealed_plan(plan(int(n)), repair) for n in host.open.sum(axis=1)], device)
        rank: Int[Tensor, "b n"] = canvas.open.long().cumsum(dim=1)  # 1 for the first open position of a row
        ids, open_ = canvas.ids.clone(), canvas.open.clone()
        trust = torch.full(
            ids.shape, torch.inf, dtype=torch.float32, device=device
        )  # how sure each committed token was
        portions = torch.tensor([int(self.revise * n) for n in range(canvas.width + 1)], device=device)
        banned: Int[Tensor, "b n"] = torch.full_like(ids, -1)  # the token that a repaired place held
        due = [False] * canvas.rows  # rows that are still to be repaired
        at: Int[Tensor, "b"] = torch.zeros(
            canvas.rows, dtype=torch.long, device=device
        )  # every row's place in its plan
        turn = plans.turns(at)
        for index in itertools.count():
            waiting = open_ & turn.live[:, None]
            seen, stands = host.read(waiting, at)
            asked, turns = Asked(waiting, seen), plans.of(stands)
            if not any(turns):
                return
            out = self._forward(model, host.passing(asked, ids), asked.mask)
            passes = 1 + (self.cfg_scale > 0)
            if repair is not None:
                if index == 0:
                    due, more = audited(repair, model, canvas, out, turn)
                    passes += more
                forbid(out.logits, banned[asked.places], mask)
            guess, sure = self._guess(out.logits, dice, host, asked, turns)
            predictions, confidence = ids.clone(), torch.full(ids.shape, torch.nan, dtype=torch.float32, device=device)
            predictions[asked.places], confidence[asked.places] = guess, sure.float()
            score = torch.full(ids.shape, -torch.inf, dtype=sure.dtype, device=device)
            score[asked.places] = self._shaken(sure, dice, asked, turn, turns)
            block = rank <= turn.end[:, None]
            committed = self._select(score.masked_fill(~block, -torch.inf), turn, dice, host, asked, turns)
            committed &= open_ & (predictions != mask)
            ids = torch.where(committed, predictions, ids)
            open_ = open_ & ~committed
            at = self._next(turn, open_ & block)
            now, turn = turn, plans.turns(at)
            if self.revise:
                trust = torch.where(committed, confidence, trust)
                goes_on = turn.live & (turn.end == now.end)
                written = canvas.open & ~open_ & block & (rank > self._begin(now)[:, None]) & goes_on[:, None]
                again = surest(
                    -trust.masked_fill(~written, torch.inf), portions[written.sum(dim=1)], [slice(None)] * canvas.rows
                )
                ids, open_ = ids.masked_fill(again, mask), open_ | again
            if repair is not None and any(due):  # once a row, the host has to ask for more
                for i, then in enumerate(plans.of(at.tolist())):
                    if due[i] and (was := turns[i]) is not None and (then is None or then.end != was.end):
                        due[i], mine = False, block[i] & canvas.open[i]
                        plans.insert(
                            i, int(at[i]), again_from(repair, was.end, mine, ids[i], open_[i], banned[i], mask, dice, i)
                        )
                turn = plans.turns(at)
            yield Step(
                index=index,
                ids=ids,
                open=open_,
                committed=committed,
                predictions=predictions,
                confidence=confidence,
                live=now.live,
                hidden=out.hidden,
                start=out.start,
                span="all",
                shift=model.shift,
                passes=passes,
            )

    def _forward(self, model: Scoring, now: Canvas, asked: Bool[Tensor, "b n"]) -> Forward:
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
            blind = torch.where(now.open | now.pad, now.ids, model.mask_id)
            free = model.watching().forward(replace(now, ids=blind), asked).logits
            logits = free + (self.cfg_scale + 1) * (logits - free)
        if max((*self.suppress, *self.late), default=0) >= logits.shape[-1]:
            raise DemurError(
                f"suppress {self.suppress}, late {self.late}",
                f"token ids below {logits.shape[-1]}, the size of the vocabulary",
                "look them up in the tokenizer",
            )
        for token in self.suppress:
            logits[:, token] = -torch.inf
        return replace(out, logits=logits)

    def _guess(
        self,
        logits: Float[Tensor, "k v"],
        dice: Dice,
        host: Host,
        asked: Asked,
        turns: Sequence[Turn | None],
    ) -> tuple[Int[Tensor, "k"], Float[Tensor, "k"]]:
        """A guess for every asked position, and how sure it is of it; -inf where a coin said not to commit."""
        # Noise for whole rows is drawn for a row's own columns, so that it is the same with any padding; a single
        # generator draws for the padding as well, as the official code does.
        firsts = [0] * len(host.starts) if dice.shared else host.starts
        heads = None
        if self.remasking == "origin":  # a coin for every position; tokens are drawn for those that it chose only
            chance = torch.tensor([turn.chance if turn else 0.0 for turn in turns], dtype=torch.float32)
            rolled = dice.rand(asked.counts).cpu()
            heads = rolled < chance.repeat_interleave(torch.tensor(asked.counts), output_size=len(rolled))
        found = [
            self._guess_some(logits[here], dice, asked, firsts, row, None if heads is None else heads[here])
            for row, here in pieces(logits, asked.counts, drawn=self.temperature > 0, whole=dice.shared)
        ]
        guess, sure = joined(found)
        if self.remasking == "random":
            return guess, asked.numbers(dice, firsts, None).to(logits.device)
        return guess, sure

    def _guess_some(
        self,
        logits: Float[Tensor, "k v"],
        dice: Dice,
        asked: Asked,
        firsts: Sequence[int],
        row: int | None,
        heads: Bool[Tensor, "k"] | None,
    ) -> tuple[Int[Tensor, "k"], Float[Tensor, "k"]]:
        """The same for some of the positions: all of one ``row`` where tokens are drawn, or, with None, of any rows."""
        if self.sampling == "gumbel":
            guess = logits.argmax(dim=-1)
            if self.temperature > 0:
                noise = asked.numbers(dice, firsts, row, logits.shape[-1], dtype=torch.float64)
                guess = gumbel(logits, self.temperature, noise)
            for token in self.late:
                logits[:, token] = -torch.inf
            probs = logits.softmax(dim=-1)
        else:
            scaled = tempered(logits, self.temperature) if self.temperature > 0 else logits
            probs = among_top(nucleus(scaled, self.top_p), self.top_k).softmax(dim=-1)
            guess = probs.argmax(dim=-1)
        counts = [n if row in (None, i) else 0 for i, n in enumerate(asked.counts)]
        if heads is not None:
            if self.temperature > 0:
                chosen = [int(mine.sum()) for mine in torch.split(heads, counts)]
                where = heads.nonzero()[:, 0].to(guess.device)
                guess[where] = dice.multinomial(_normalised(probs[where]), chosen)
            return guess, probability(probs, guess).masked_fill(~heads.to(guess.device), -torch.inf)
        if self.sampling == "categorical" and self.temperature > 0:
            guess = dice.multinomial(_normalised(probs), counts)
        if self.remasking == "random":
            return guess, guess  # how sure is a matter of chance
        return guess, CONFIDENCE[self.remasking](probs, guess)

    def _shaken(
        self, sure: Float[Tensor, "k"], dice: Dice, asked: Asked, turn: Turns, turns: Sequence[Turn | None]
    ) -> Float[Tensor, "k"]:
        """Scores with each row's share of chance; a row without any draws nothing and keeps its own."""
        shaken = [one is not None and one.noise > 0 for one in turns]
        if not any(shaken):
            return sure
        counts = torch.tensor(asked.counts)
        noise = torch.zeros(len(sure), dtype=torch.float32)
        drawn = dice.rand([n if s else 0 for n, s in zip(asked.counts, shaken, strict=True)])
        noise[torch.tensor(shaken).repeat_interleave(counts)] = drawn.cpu()
        share = turn.noise[asked.places[0]]
        # Minus an entropy is no number in [0, 1]; its exponential is one, in the same order.
        of_one = torch.where(share > 0, sure.exp(), sure) if self.remasking == "entropy" else sure
        return annealed(of_one, noise.to(sure.device), share).to(sure.dtype)

    def _select(
        self,
        score: Float[Tensor, "b n"],
        turn: Turns,
        dice: Dice,
        host: Host,
        asked: Asked,
        turns: Sequence[Turn | None],
    ) -> Bool[Tensor, "b n"]:
        """The positions that a step commits; ``score`` is -inf outside the open positions of each row's block."""
        able = score > -torch.inf
        if self.remasking == "origin":
            return able
        if self.entropy_bound is not None:
            return torch.where(turn.last[:, None], able, bounded(score, self.entropy_bound))
        count, rows = turn.count(able.sum(dim=1)), [slice(start, None) for start in host.starts]
        if self.threshold is not None:
            return above(score, count, rows, self.threshold)
        if self.alg_temp == 0:
            return surest(score, count, rows)
        drawn = torch.zeros_like(able)
        for i, one in enumerate(turns):
            if one is not None:
                first = host.starts[i]
                n = int((asked.seen[i] & (host.rank[i] <= one.end)).sum())
                weights = (score[i, first:] / self.alg_temp).softmax(dim=-1)
                drawn[i, first + dice.choose(weights, min(one.quota(n), n), i)] = True
        drawn &= able  # weights may underflow to 0, and then a draw takes what must not be taken
        return drawn | surest(score.masked_fill(drawn, -torch.inf), count - drawn.sum(dim=1), rows)

    def _next(self, turn: Turns, left: Bool[Tensor, "b n"]) -> Int[Tensor, "b"]:
        """The next turn; if commits may be more than planned, the first of the next block once nothing is left of this
        one.
        """
        if self.threshold is None and self.entropy_bound is None:
            return turn.next
        return torch.where(left.any(dim=1), turn.next, turn.next_block)

    def _begin(self, turn: Turns) -> Int[Tensor, "b"]:
        """How many open positions stand before each row's block."""
        length = self.block_length
        return torch.zeros_like(turn.end) if length is None else (turn.end - 1) // length * length


def _normalised(probs: Float[Tensor, "k v"]) -> Float[Tensor, "k v"]:
    """Probabilities that add up to 1 once more, as torch's Categorical makes them before it draws."""
    return probs / probs.sum(dim=-1, keepdim=True)
