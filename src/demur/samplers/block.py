"""Block diffusion: masked diffusion inside one block at a time, on models whose attention is causal over blocks."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

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
    bounded,
    check_nucleus,
    check_temperature,
    gumbel,
    nucleus,
    probability,
    surest,
    tempered,
)
from demur.types import Blocks, Canvas, DemurError, Need, Step, lacking


@dataclass(frozen=True)
class BlockDiffusion:
    """Fills the model's blocks from left to right; the defaults are SDAR's (its generate.py, static).

    The block length is the model's own; a block that begins in the prompt is finished first. ``steps`` for each block.

    - Guesses: ``sampling`` categorical within ``top_k`` and ``top_p`` at ``temperature`` (0: argmax), or with Gumbel
      noise (BD3LM).
    - Commits, ``remasking``: the surest by low_confidence, margin or entropy, at random, or sequential (from the left).
      ``quota``: planned for whole blocks (SDAR, LLaDA2) or for what is open of a block. ``threshold`` and
      ``entropy_bound`` commit everything that is sure enough.
    - ``stop``: a block that holds an end of sequence is the last; ``stop_early``: the step that fills everything before
      an end of sequence is the last.
    - Where the model predicts the mask token itself up to a block's last step, the place is left open, and the next
      block is begun (as in LLaDA2's and BD3LM's code).

    With ``cache``, finished blocks are passed once and kept as keys and values, as long as all rows stand in the same
    block; the results are the same.

    The official samplers fill whole blocks, past the length asked for; ask for a length that fills them.
    """

    needs: ClassVar[frozenset[Need]] = frozenset({Need.BLOCKS, Need.MASK})

    steps: int = 4
    temperature: float = 1.0
    sampling: Literal["categorical", "gumbel"] = "categorical"
    top_k: int | None = None
    top_p: float | None = None
    remasking: Literal["low_confidence", "margin", "entropy", "random", "sequential"] = "low_confidence"
    schedule: Literal["even", "linear", "cosine"] = "even"
    quota: Literal["block", "open"] = "block"
    threshold: float | None = None
    entropy_bound: float | None = None
    stop: bool = True
    stop_early: bool = False
    cache: bool = True

    def __post_init__(self) -> None:
        if self.remasking not in (*CONFIDENCE, "random", "sequential"):
            raise DemurError(
                f"remasking {self.remasking!r}", ", ".join((*CONFIDENCE, "random", "sequential")), "name one"
            )
        for name, known in (("sampling", SAMPLINGS), ("schedule", SCHEDULES), ("quota", ("block", "open"))):
            if getattr(self, name) not in known:
                raise DemurError(f"{name} {getattr(self, name)!r}", ", ".join(known), "name one of these")
        if self.steps < 1:
            raise DemurError(f"steps={self.steps}", "at least 1 for each block", "raise it")
        if self.entropy_bound is not None and self.remasking != "entropy":
            raise DemurError(f"entropy_bound with remasking {self.remasking!r}", "remasking='entropy'", "set it")
        check_temperature(self.temperature)
        check_nucleus(self.top_k, self.top_p)

    def __call__(self, model: Blocks, canvas: Canvas, rngs: Rngs) -> Iterator[Step]:
        """Steps until every row is full or has ended with its last block. Raises for a model without blocks."""
        if lacking(model, self.needs):
            raise DemurError(
                f"block diffusion on the {model.kind} model {model.name}",
                "a model whose attention is causal over blocks (SDAR, LLaDA2, BD3LM)",
                "use a sampler of its kind, or load it with the block_length it was trained with",
            )
        dice, block = Dice(rngs, canvas.rows), model.blocks(canvas)
        length, starts = model.block_length or 1, canvas.starts()
        stops = torch.tensor(model.stop_ids, dtype=torch.long, device=canvas.ids.device)
        cache = model.new_cache() if self.cache and not model.shift and bool((block == block[:1]).all()) else None
        ids, open_ = canvas.ids.clone(), canvas.open.clone()
        left = torch.zeros_like(
            open_
        )  # open places of finished blocks, where the model predicted the mask token itself
        ended = [False] * canvas.rows
        quotas: list[list[Quota]] = [[] for _ in ended]
        for index in itertools.count():
            waiting = open_ & ~left
            live = waiting.any(dim=1) & ~torch.tensor(ended, device=ids.device)
            if not bool(live.any()):
                return
            current = torch.where(waiting, block, block.max() + 1).amin(dim=1)
            drawn = live
            if dice.shared:  # a single generator draws for the rows that have ended as well, as the official code does
                current, drawn = torch.where(live, current, current[live].amin()), torch.ones_like(live)
            inside: Bool[Tensor, "b n"] = (block == current[:, None]) & drawn[:, None] & ~canvas.pad
            asked = open_ & inside & live[:, None]
            # Tokens are drawn for every place of the block, as the official code does, and kept where it is open.
            # No position sees a later block: what stands behind the current ones is not passed at all.
            upto = int(torch.where(inside.any(dim=0))[0][-1]) + 1
            seen = Canvas(ids=ids[:, :upto], open=canvas.open[:, :upto], pad=canvas.pad[:, :upto])
            if bool((current[live] != current[live][0]).any()):
                cache = None  # rows have drifted apart: what the cache holds is no longer final for all
            begins = int(torch.where(block[0] == current[live][0])[0][0]) if cache is not None else 0
            out = model.forward(seen, inside[:, :upto], cache=cache, keep=begins)
            guess, sure = self._guess(out.logits, dice, inside, starts)
            predictions, confidence = ids.clone(), torch.full(ids.shape, float("nan"), device=ids.device)
            predictions[inside], confidence[inside] = guess, sure.float()
            predictions = torch.where(asked, predictions, ids)
            confidence = confidence.masked_fill(~asked, float("nan"))
            score = _scores(sure, inside, asked)
            committed = torch.zeros_like(open_)
            for i in torch.where(live)[0].tolist():
                if not quotas[i]:
                    n_open = int(asked[i].sum())
                    quotas[i] = SCHEDULES[self.schedule](length if self.quota == "block" else n_open, self.steps)
                quota, columns = quotas[i].pop(0), torch.where(inside[i])[0]
                chosen = self._select(score[i, columns], asked[i, columns], quota, last=not quotas[i])
                committed[i, columns[chosen]] = True
            committed &= asked & (predictions != model.mask_id)
            ids = torch.where(committed, predictions, ids)
            open_ = open_ & ~committed
            for i in torch.where(live)[0].tolist():
                masked = open_[i] & inside[i]
                if not quotas[i] or not bool(masked.any()):
                    quotas[i], left[i] = [], left[i] | masked
                    ended[i] = self.stop and bool((torch.isin(ids[i], stops) & inside[i] & canvas.open[i]).any())
                if self.stop_early and self._closed(ids[i], committed[i], open_[i], stops):
                    ended[i] = True
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
                span="all" if cache is None else "tail",
                settled=begins,
                shift=model.shift,
                reached=block <= current[:, None],
                passes=1,
            )

    @staticmethod
    def _closed(
        ids: Int[Tensor, "n"], committed: Bool[Tensor, "n"], open_: Bool[Tensor, "n"], stops: Int[Tensor, "e"]
    ) -> bool:
        """Whether an end of sequence was written by this step and nothing is open before the first one."""
        ends = torch.isin(ids, stops)
        if not bool((ends & committed).any()):
            return False
        return not bool(open_[: int(torch.where(ends)[0][0])].any())

    def _guess(
        self, logits: Float[Tensor, "k v"], dice: Dice, inside: Bool[Tensor, "b n"], starts: Sequence[int]
    ) -> tuple[Int[Tensor, "k"], Float[Tensor, "k"]]:
        """A guess for every place of the rows' blocks, and how sure it is."""
        counts = inside.sum(dim=1).tolist()
        places = torch.arange(len(logits), device=logits.device)
        if self.sampling == "gumbel":
            probs, guess = logits.softmax(dim=-1), gumbel(logits, self.temperature, dice, counts, places)
        elif self.temperature == 0:
            probs = logits.softmax(dim=-1)
            guess = probs.argmax(dim=-1)
        else:
            probs = nucleus(among_top(tempered(logits, self.temperature), self.top_k), self.top_p).softmax(dim=-1)
            guess = dice.multinomial(probs, counts)
        if self.remasking == "random":
            return guess, dice.rand(counts).to(logits.device)
        if self.remasking == "sequential":
            return guess, probability(probs, guess)
        return guess, CONFIDENCE[self.remasking](probs, guess)

    def _select(
        self, score: Float[Tensor, "c"], asked: Bool[Tensor, "c"], quota: Quota, last: bool
    ) -> Int[Tensor, "k"]:
        """The places of one row's block that a step commits; a block's last step commits what is left.

        ``score`` is -inf where nothing is asked. The whole block is ranked, as officially: which of equal scores comes
        first depends on what else is ranked.
        """
        places = torch.where(asked)[0]
        count = min(quota(len(places)), len(places))
        if self.remasking == "sequential":
            return places[:count]
        if self.entropy_bound is not None:
            return places if last else bounded(score, self.entropy_bound)
        if self.threshold is not None:
            return above(score, count, self.threshold)
        return surest(score, count)


def _scores(sure: Float[Tensor, "k"], inside: Bool[Tensor, "b n"], asked: Bool[Tensor, "b n"]) -> Float[Tensor, "b n"]:
    """Scores at their places, -inf where nothing is asked. They keep their dtype: in bf16 the official code rounds its
    threshold as well.
    """
    score = torch.full(inside.shape, -torch.inf, dtype=sure.dtype, device=sure.device)
    score[inside] = sure
    return score.masked_fill(~asked, -torch.inf)
