"""Block diffusion: masked diffusion inside one block at a time, on models whose attention is causal over blocks."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from demur.kinds import check_kinds
from demur.samplers.asked import Asked, Host, spans
from demur.samplers.dice import Dice, Rngs
from demur.samplers.rules import (
    CONFIDENCE,
    SAMPLINGS,
    SCHEDULES,
    above,
    among_top,
    bounded,
    check_count,
    check_nucleus,
    check_temperature,
    check_threshold,
    gumbel,
    joined,
    nucleus,
    pieces,
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
    commits_are_final: ClassVar[bool] = True

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
        check_kinds(self, vars(self), type(self).__name__)
        if self.remasking not in (*CONFIDENCE, "random", "sequential"):
            raise DemurError(
                f"remasking {self.remasking!r}", ", ".join((*CONFIDENCE, "random", "sequential")), "name one"
            )
        for name, known in (("sampling", SAMPLINGS), ("schedule", SCHEDULES), ("quota", ("block", "open"))):
            if getattr(self, name) not in known:
                raise DemurError(f"{name} {getattr(self, name)!r}", ", ".join(known), "name one of these")
        check_count("steps", self.steps, "raise it: so many for each block")
        check_threshold("threshold", self.threshold)
        check_threshold("entropy_bound", self.entropy_bound)
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
        dice, host, block, device = Dice(rngs, canvas.rows), Host.of(canvas), model.blocks(canvas), canvas.ids.device
        blocks, beyond = block.cpu().numpy(), block.max() + 1
        own = block.masked_fill(canvas.pad, torch.iinfo(block.dtype).max)  # padding is of no block
        stops = torch.tensor(model.stop_ids, dtype=torch.long, device=device)
        cache = model.new_cache() if self.cache and not model.shift and bool((blocks == blocks[:1]).all()) else None
        ids, open_ = canvas.ids, canvas.open
        # What is still to be filled. Not all that is open: a place stays open where the model predicted the mask token
        # itself up to a block's last step, and where it stands behind a row's end.
        waiting, nothing = open_, canvas.ids
        quotas = _Quotas.of(self, model.block_length or 1, canvas.rows, device)
        for index in itertools.count():
            seen, _ = host.read(waiting, quotas.turn)
            if not seen.any():
                return
            # A row's block is the first in which it waits. Of rows that have ended, a single generator draws for the
            # others' first one, as the official code does.
            current_seen, live_seen = np.where(seen, blocks, blocks.max() + 1).min(axis=1), seen.any(axis=1)
            current, live = torch.where(waiting, own, beyond).amin(dim=1), waiting.any(dim=1)
            if dice.shared:
                current_seen = np.where(live_seen, current_seen, current_seen.min())
                current = torch.where(live, current, current.amin())
            # Tokens are drawn for every place of the block, as the official code does, and kept where it is open.
            inside: Bool[Tensor, "b n"] = own == current[:, None]
            inside_seen = (blocks == current_seen[:, None]) & ~host.pad
            places, asked = Asked(inside, inside_seen), waiting & inside
            # No position sees a later block: what stands behind the current ones is not passed at all.
            upto = int(inside_seen.any(axis=0).nonzero()[0][-1]) + 1
            of_live = current_seen[live_seen]
            if (of_live != of_live[0]).any():
                cache = None  # rows have drifted apart: what the cache holds is no longer final for all
            begins = int((blocks[0] == of_live[0]).argmax()) if cache is not None else 0
            out = model.forward(host.passing(places, ids, upto), inside[:, :upto], cache=cache, keep=begins)
            guess, sure = self._guess(out.logits, dice, places.counts)
            given = ~asked
            nothing = sure.new_full(ids.shape, -torch.inf) if index == 0 else nothing
            guesses, score = ids.index_put(places.places, guess), nothing.index_put(places.places, sure)
            predictions, score = torch.where(asked, guesses, ids), score.masked_fill(given, -torch.inf)
            count, last = quotas.next(asked)
            # Scores keep their dtype: in bf16 the official code rounds its threshold as well.
            committed = self._select(score, asked, count, last, spans(inside_seen))
            committed &= asked & (predictions != model.mask_id)
            ids, open_ = torch.where(committed, predictions, ids), open_.masked_fill(committed, False)
            still = asked.masked_fill(committed, False).any(dim=1)
            done = live & (last | ~still)
            quotas.passed(live, done)
            finished = inside & done[:, None]
            ends, over = torch.isin(ids, stops), finished
            if self.stop:
                over = over | (ends & finished & canvas.open).any(dim=1, keepdim=True)
            if self.stop_early:
                over = over | (live & _closed(ends, committed, open_))[:, None]
            waiting = waiting.masked_fill(committed | over, False)
            yield Step(
                index=index,
                ids=ids,
                open=open_,
                committed=committed,
                predictions=predictions,
                confidence=score.float().masked_fill(given, float("nan")),
                live=live,
                hidden=out.hidden,
                start=out.start,
                span="all" if cache is None else "tail",
                settled=begins,
                shift=model.shift,
                reached=block <= current[:, None],
                passes=1,
            )

    def _guess(
        self, logits: Float[Tensor, "k v"], dice: Dice, counts: Sequence[int]
    ) -> tuple[Int[Tensor, "k"], Float[Tensor, "k"]]:
        """A guess for every place of the rows' blocks, and how sure it is."""
        found = []
        for row, here in pieces(logits, counts, drawn=self.temperature > 0, whole=dice.shared):
            found.append(
                self._guess_some(logits[here], dice, [n if row in (None, i) else 0 for i, n in enumerate(counts)])
            )
        guess, sure = joined(found)
        return guess, dice.rand(counts).to(logits.device) if self.remasking == "random" else sure

    def _guess_some(
        self, logits: Float[Tensor, "k v"], dice: Dice, counts: Sequence[int]
    ) -> tuple[Int[Tensor, "k"], Float[Tensor, "k"]]:
        """The same for some of the places, ``counts`` of each row where tokens are drawn."""
        if self.sampling == "gumbel":
            probs, guess = logits.softmax(dim=-1), logits.argmax(dim=-1)
            if self.temperature > 0:
                guess = gumbel(logits, self.temperature, dice.rand(counts, logits.shape[-1], dtype=torch.float64))
        elif self.temperature == 0:
            probs = logits.softmax(dim=-1)
            guess = probs.argmax(dim=-1)
        else:
            probs = nucleus(among_top(tempered(logits, self.temperature), self.top_k), self.top_p).softmax(dim=-1)
            guess = dice.multinomial(probs, counts)
        return guess, CONFIDENCE.get(self.remasking, probability)(probs, guess)

    def _select(
        self,
        score: Float[Tensor, "b n"],
        asked: Bool[Tensor, "b n"],
        count: Int[Tensor, "b"],
        last: Bool[Tensor, "b"],
        among: Sequence[slice],
    ) -> Bool[Tensor, "b n"]:
        """The places that a step commits; a block's last step commits what is left.

        ``score`` is -inf where nothing is asked. The whole block is ranked, as officially: which of equal scores comes
        first depends on what else is ranked.
        """
        if self.remasking == "sequential":
            return asked & (asked.cumsum(dim=1) <= count[:, None])
        if self.entropy_bound is not None:
            return torch.where(last[:, None], asked, bounded(score, self.entropy_bound))
        if self.threshold is not None:
            return above(score, count, among, self.threshold)
        return surest(score, count, among)


class _Quotas:
    """How many places each row commits next: a table by what a block had open when it was begun, and by its steps."""

    def __init__(self, table: Int[Tensor, "l s 2"], size: int | None, rows: int) -> None:
        self.table, self.by_open = table, size is None
        self.turn = torch.zeros(rows, dtype=torch.long, device=table.device)  # the steps that the row's block has had
        self.planned = torch.full_like(self.turn, size or 0)  # for how many places they are planned

    @classmethod
    def of(cls, sampler: BlockDiffusion, length: int, rows: int, device: torch.device) -> _Quotas:
        """The sampler's schedule of blocks of up to ``length`` open places."""
        plans = [[quota.fixed for quota in SCHEDULES[sampler.schedule](n, sampler.steps)] for n in range(length + 1)]
        table = torch.zeros((length + 1, max(map(len, plans)), 2), dtype=torch.long)  # how many, and whether it is last
        for n, plan in enumerate(plans):
            table[n, : len(plan), 0] = torch.tensor(plan, dtype=torch.long)
            table[n, len(plan) - 1 : len(plan), 1] = 1
        return cls(table.to(device), length if sampler.quota == "block" else None, rows)

    def next(self, asked: Bool[Tensor, "b n"]) -> tuple[Int[Tensor, "b"], Bool[Tensor, "b"]]:
        """How many of the places asked for each row commits now, and whether that is its block's last step."""
        n = asked.sum(dim=1)
        if self.by_open:
            self.planned = torch.where(self.turn == 0, n, self.planned)
        count, is_last = self.table[self.planned, self.turn].unbind(1)
        return torch.minimum(count, n), is_last > 0

    def passed(self, live: Bool[Tensor, "b"], done: Bool[Tensor, "b"]) -> None:
        """A step is over for the ``live`` rows; those whose block is ``done`` begin another."""
        self.turn = (self.turn + live).masked_fill(done, 0)


def _closed(ends: Bool[Tensor, "b n"], committed: Bool[Tensor, "b n"], open_: Bool[Tensor, "b n"]) -> Bool[Tensor, "b"]:
    """Whether an end of sequence was written by this step and nothing is open before the first one."""
    before = ends.long().cumsum(dim=1) == 0
    return (ends & committed).any(dim=1) & ~(open_ & before).any(dim=1)
