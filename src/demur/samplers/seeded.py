"""Block diffusion whose blocks begin with a token of the causal model: Nemotron-Labs-Diffusion."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from demur.samplers.dice import Dice, Rngs
from demur.samplers.given import firsts, one_after_another
from demur.samplers.rules import check_temperature, tempered
from demur.types import Canvas, DemurError, Forward, Need, Seeds, Step, lacking


@dataclass(frozen=True)
class SeededBlocks:
    """Nemotron-Labs-Diffusion's sampler (its generate, with causal context).

    What is finished is read by a causal pass. That gives the first token of the next block, greedy or drawn at
    ``temperature``. The rest of the block is filled in up to ``steps`` steps (None: as many as it has places) by masked
    diffusion inside it: guesses by Gumbel noise at ``temperature``, the surest of an even share first or, with a
    ``threshold``, everything that is as sure, and one place at least.

    A row ends, with ``stop``, once it holds an end of sequence and nothing open before it in the block. Rows that are
    done with a block wait for their neighbours before the next one. Where the model predicts the mask token itself up
    to a block's last step, the place is left open.

    A block's first step is two passes: its states are those of the causal one, for what is finished, and of the block.
    Without ``cache`` everything is passed at every step; the results are the same.
    """

    needs: ClassVar[frozenset[Need]] = frozenset({Need.BLOCKS, Need.MASK, Need.SEED})
    commits_are_final: ClassVar[bool] = True

    steps: int | None = None
    temperature: float = 0.0
    threshold: float | None = None
    stop: bool = True
    cache: bool = True

    def __post_init__(self) -> None:
        if self.steps is not None and self.steps < 1:
            raise DemurError(f"steps={self.steps}", "at least 1 for each block", "raise it, or leave it out")
        check_temperature(self.temperature)

    def __call__(self, model: Seeds, canvas: Canvas, rngs: Rngs) -> Iterator[Step]:
        """Steps until every row is full or has ended. Raises for a model that does not begin blocks."""
        if missing := lacking(model, self.needs):
            raise DemurError(
                f"seeded blocks on the {model.kind} model {model.name}, which has no {missing}",
                "a model like Nemotron-Labs-Diffusion",
                "use a sampler of its kind",
            )
        begins = firsts(canvas)
        if any(start >= first and first < canvas.width for start, first in zip(canvas.starts(), begins, strict=True)):
            raise DemurError(
                "a row without a given token", "one at least, for the first block to follow", "begin it with one"
            )
        if len(set(begins)) > 1:
            yield from one_after_another(self, model, canvas, rngs, begins)
        else:
            yield from self._from(begins[0], model, canvas, rngs)

    def _from(self, first: int, model: Seeds, canvas: Canvas, rngs: Rngs) -> Iterator[Step]:
        """Steps of rows whose first open places lie in one column, so that their blocks do, too."""
        dice, length, index = Dice(rngs, canvas.rows), model.block_length or 1, 0
        stops = torch.tensor(model.stop_ids, dtype=torch.long, device=canvas.ids.device)
        cache = model.new_cache() if self.cache else None
        ids, open_ = canvas.ids.clone(), canvas.open.clone()
        ended = torch.zeros(canvas.rows, dtype=torch.bool, device=ids.device)
        for begin in range(first, canvas.width, length):
            here = slice(begin, min(begin + length, canvas.width))
            ours = canvas.open[:, here]
            if bool(ended.all()):
                return
            if not bool(ours.any()):
                continue  # all is given, and read before the next block
            read = model.seed(Canvas(ids, open_, canvas.pad), begin, cache)
            seed, sure_of_seed = self._seed(read, dice, ~ended & ours[:, 0], ids[:, begin])
            seeded = ~ended & ours[:, 0] & (seed != model.mask_id)
            done = ended | ~ours.any(dim=1)
            quotas = self._quotas(ours.sum(dim=1) - seeded.long(), self.steps or length)
            for step, quota in enumerate(quotas):
                live = ~done
                before = ids.clone()
                starts = step == 0
                masked = open_[:, here] & live[:, None]
                if starts:
                    ids[:, begin] = torch.where(seeded, seed, ids[:, begin])
                    masked[:, 0] &= ~seeded
                inside = torch.zeros_like(open_)
                inside[:, here] = ~canvas.pad[:, here]
                seen = Canvas(ids[:, : here.stop], canvas.open[:, : here.stop], canvas.pad[:, : here.stop])
                out = model.forward(seen, inside[:, : here.stop], cache=cache, keep=begin)
                guess, sure = self._guess(out.logits, dice, masked)
                written = self._chosen(sure.masked_fill(~masked, -torch.inf), masked, quota) & (guess != model.mask_id)
                if starts:
                    guess[:, 0] = torch.where(seeded, seed, guess[:, 0])
                    sure[:, 0] = torch.where(seeded, sure_of_seed.to(sure.dtype), sure[:, 0])
                    masked[:, 0] |= seeded
                    written[:, 0] |= seeded
                ids[:, here] = torch.where(written, guess, before[:, here])
                open_[:, here] &= ~written
                committed = torch.zeros_like(open_)
                committed[:, here] = written
                predictions, confidence = ids.clone(), torch.full(ids.shape, float("nan"), device=ids.device)
                predictions[:, here] = torch.where(masked, guess, ids[:, here])
                confidence[:, here] = sure.float().masked_fill(~masked, float("nan"))
                yield Step(
                    index=index,
                    ids=ids.clone(),
                    open=open_.clone(),
                    committed=committed,
                    predictions=predictions,
                    confidence=confidence,
                    live=live,
                    hidden=_joined(read, out) if starts and cache is not None else out.hidden,
                    start=read.start if starts and cache is not None else out.start,
                    span="all" if cache is None else "tail",
                    settled=0 if cache is None else begin,
                    reached=(torch.arange(canvas.width, device=ids.device) < here.stop).expand_as(open_),
                    passes=1 + starts,
                )
                index += 1
                ends = torch.isin(ids[:, here], stops) & ours & ~open_[:, here]
                before_end = open_[:, here] & (ends.cumsum(dim=1) == 0)
                over = ends.any(dim=1) & ~before_end.any(dim=1) & live & self.stop
                ended, done = ended | over, done | over | ~open_[:, here].any(dim=1)
                if bool(done.all()):
                    break
            ended = ended | ((torch.isin(ids[:, here], stops) & ours & ~open_[:, here]).any(dim=1) & self.stop)

    @staticmethod
    def _quotas(masks: Int[Tensor, "b"], steps: int) -> list[list[int]]:
        """How many places each row's step commits: an even share, the first ones one more. A step whose share is 0 is
        taken where a mask was predicted and is left.
        """
        return [[n // steps + (i < n % steps) for n in masks.tolist()] for i in range(steps)]

    def _seed(
        self, read: Forward, dice: Dice, drawn: Bool[Tensor, "b"], instead: Int[Tensor, "b"]
    ) -> tuple[Int[Tensor, "b"], Float[Tensor, "b"]]:
        """A token for the first place of every row's block that is drawn for, and its probability."""
        if self.temperature == 0:
            probs = read.logits.float().softmax(dim=-1)
            token = read.logits.argmax(dim=-1)
        else:
            probs = tempered(read.logits, self.temperature).softmax(dim=-1)
            counts = [1] * len(probs) if dice.shared else [int(row) for row in drawn]
            wanted = torch.ones_like(drawn) if dice.shared else drawn
            token = instead.clone()
            token[wanted] = dice.multinomial(probs[wanted], counts)
        return token, probs.gather(-1, token[:, None])[:, 0].float()

    def _guess(
        self, logits: Float[Tensor, "k v"], dice: Dice, masked: Bool[Tensor, "b m"]
    ) -> tuple[Int[Tensor, "b m"], Float[Tensor, "b m"]]:
        """A guess for every place of the block, and its probability without noise. Numbers are drawn for whole blocks,
        as the official code does, of the rows that have something to fill.
        """
        rows, places = masked.shape
        of_rows = logits.view(rows, places, -1)
        guess, drawn = of_rows.argmax(dim=-1), masked.any(dim=1)
        drawn = drawn.any().expand_as(drawn) if dice.shared else drawn
        if self.temperature > 0:
            counts = [places * int(row) for row in drawn]
            noise = dice.rand(counts, of_rows.shape[-1], dtype=torch.float64)
            guess[drawn] = _noisy(of_rows[drawn].flatten(0, 1), self.temperature, noise).view(-1, places)
        return guess, of_rows.softmax(dim=-1).gather(-1, guess[..., None])[..., 0]

    def _chosen(
        self, score: Float[Tensor, "b m"], masked: Bool[Tensor, "b m"], quota: list[int]
    ) -> Bool[Tensor, "b m"]:
        """The masked places that a step commits. ``score`` is -inf elsewhere."""
        chosen, all_of_it = torch.zeros_like(masked), self.threshold is not None
        ranked = masked.sum(dim=1).tolist() if all_of_it else quota  # so many are ranked: which of equal ones comes
        for count in {*ranked} - {0}:  # first depends on that
            rows = torch.tensor([own == count for own in ranked], device=score.device)
            best = score.topk(count, dim=1).indices[:, : 1 if all_of_it else count]
            surest = torch.zeros_like(masked).scatter(1, best, torch.ones_like(best, dtype=torch.bool))
            chosen |= surest & rows[:, None]
        if self.threshold is not None:
            chosen |= score >= self.threshold
        return chosen & masked


def _noisy(logits: Float[Tensor, "k v"], temperature: float, noise: Float[Tensor, "k v"]) -> Int[Tensor, "k"]:
    """Guesses by Gumbel noise: argmax exp(l) / (-log u)^temperature, in float64; ``noise`` are the numbers u."""
    device = torch.device("cpu") if logits.device.type == "mps" else logits.device  # mps has no float64
    wide = logits.to(device, torch.float64).exp() / (-torch.log(noise.to(device))) ** temperature
    return wide.argmax(dim=-1).to(logits.device)


def _joined(read: Forward, block: Forward) -> dict[str, Float[Tensor, "b m d"]]:
    """States of what is finished, by the causal pass, and of the block behind it."""
    return {layer: torch.cat([read.hidden[layer], states], dim=1) for layer, states in block.hidden.items()}
