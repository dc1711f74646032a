"""Block diffusion whose blocks begin with a token of the causal model: Nemotron-Labs-Diffusion."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.functional import pad

from demur.kinds import check_kinds
from demur.samplers.asked import Asked, Host, places
from demur.samplers.dice import Dice, Rngs
from demur.samplers.given import firsts, one_after_another
from demur.samplers.rules import (
    but_not,
    check_count,
    check_temperature,
    check_threshold,
    joined,
    pieces,
    probability,
    surest,
    tempered,
)
from demur.types import Canvas, DemurError, Forward, Known, Need, Seeds, Step, lacking


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
        check_kinds(self, vars(self), type(self).__name__)
        check_count("steps", self.steps, "raise it, or leave it out: so many for each block")
        check_threshold("threshold", self.threshold)
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
        """Steps of rows whose first open places lie in one column, so that their blocks do, too. The host waits for the
        device once a step, to read who is done with the block and who has ended.
        """
        dice, host, length, index = Dice(rngs, canvas.rows), Host.of(canvas), model.block_length or 1, 0
        rows, width, device = canvas.rows, canvas.width, canvas.ids.device
        columns = torch.arange(width, device=device)
        least, no_guess = (torch.full((), value, device=device) for value in (-torch.inf, torch.nan))
        stops = torch.tensor(model.stop_ids, dtype=torch.long, device=device)
        cache = model.new_cache() if self.cache else None
        ids, open_ = canvas.ids, canvas.open
        ended, ended_seen = torch.zeros(rows, dtype=torch.bool, device=device), [False] * rows
        for begin in range(first, width, length):
            here, ours = slice(begin, min(begin + length, width)), canvas.open[:, begin : begin + length]
            going = [not gone and bool(own.any()) for gone, own in zip(ended_seen, host.open[:, here], strict=True)]
            if not any(going):
                continue  # what is given here is read before the next block
            begun = self._begun(model, host, dice, cache, Canvas(ids, open_, canvas.pad), ended, here, going)
            done, drawn, around = ended | ~ours.any(dim=1), begun.drawn, (begin, width - here.stop)
            reached = (columns < here.stop).expand(rows, width)
            inside, inside_seen = reached & (columns >= begin), np.zeros_like(host.open)
            inside_seen[:, here] = True
            asked = Asked(inside, inside_seen)
            for step in range(begun.quota.steps):
                live = ~done
                before, left = ids[:, here], open_[:, here]
                guessed = left & live[:, None]
                masked = guessed
                if step == 0:
                    masked = but_not(guessed, begun.seeds)
                    ids = _put(torch.where(begun.seeds, begun.seed, before), here, ids)
                now = host.passing(asked, ids, here.stop)
                out = model.forward(now, inside[:, : here.stop], cache=cache, keep=begin)
                guess, sure = self._guess(out.logits, dice, masked, drawn)
                written = self._chosen(torch.where(masked, sure, least), masked, begun.quota.at(step))
                written &= guess != model.mask_id
                if step == 0:
                    guess, sure = begun.beside(guess, sure)
                    written = written | begun.seeds
                    out = begun.joined(out) if cache is not None else out
                block, left = torch.where(written, guess, before), but_not(left, written)
                ids, open_ = _put(block, here, ids), _put(left, here, open_)
                yield Step(
                    index=index,
                    ids=ids,
                    open=open_,
                    committed=pad(written, around),
                    predictions=_put(torch.where(guessed, guess, block), here, ids),
                    confidence=pad(torch.where(guessed, sure.float(), no_guess), around, value=float("nan")),
                    live=live,
                    hidden=out.hidden,
                    start=out.start,
                    span="all" if cache is None else "tail",
                    settled=0 if cache is None else begin,
                    reached=reached,
                    passes=1 + (step == 0),
                )
                index += 1
                if self.stop:  # what is behind an end of sequence is not waited for
                    ends = torch.isin(block, stops) & but_not(ours, left)
                    ended, left = ended | ends.any(dim=1), but_not(left, ends.cumsum(dim=1) > 0)
                done = done | ~left.any(dim=1)
                done_seen, ended_seen = torch.stack([done, ended]).tolist()
                if all(done_seen):
                    break
                drawn = [not one for one in done_seen]

    def _begun(
        self,
        model: Seeds,
        host: Host,
        dice: Dice,
        cache: Any,
        now: Canvas,
        ended: Bool[Tensor, "b"],
        here: slice,
        going: Sequence[bool],
    ) -> _Begun:
        """The causal pass, and what it gives the blocks. ``going``: the rows that have something to fill here."""
        columns, ours = host.open[:, here], host.canvas.open[:, here]
        every = torch.arange(now.rows, device=now.ids.device)
        scored = every, torch.full_like(every, here.start)
        known = Known(host.first, max(host.starts) > 0, scored, host.canvas, host.kept)
        read = model.seed(replace(now, known=known), here.start, cache)
        free = but_not(ours[:, 0], ended)
        drawn = [own and bool(first) for own, first in zip(going, columns[:, 0], strict=True)]
        seed, sure = self._seed(read, dice, free, drawn, now.ids[:, here.start])
        seeded = free & (seed != model.mask_id)
        left = [*going]  # rows that have more to fill than the seed
        if self.temperature > 0 and any(one and own.sum() == 1 for one, own in zip(drawn, columns, strict=True)):
            more = zip(going, columns.sum(axis=1), seeded.tolist(), strict=True)
            left = [own and bool(n > one) for own, n, one in more]
        quota = _Quota.of(ours.sum(dim=1) - seeded.long(), self.steps or model.block_length or 1)
        seeds = seeded[:, None] & (torch.arange(ours.shape[1], device=ours.device) == 0)
        return _Begun(read, seed[:, None], sure[:, None], seeds, quota, left)

    def _seed(
        self, read: Forward, dice: Dice, free: Bool[Tensor, "b"], begun: Sequence[bool], instead: Int[Tensor, "b"]
    ) -> tuple[Int[Tensor, "b"], Float[Tensor, "b"]]:
        """A token for the first place of every row's block, and its probability. It is drawn for rows in which that
        place is ``free``; ``begun``: the same, as the host knows it.
        """
        if self.temperature == 0:
            probs = read.logits.float().softmax(dim=-1)
            token = read.logits.argmax(dim=-1)
        else:
            probs = tempered(read.logits, self.temperature).softmax(dim=-1)
            which = _which(free, [True] * len(begun) if dice.shared else begun)
            token = instead.index_copy(0, which, dice.multinomial(probs[which], [int(one) for one in begun]))
        return token, probability(probs, token).float()

    def _guess(
        self, logits: Float[Tensor, "k v"], dice: Dice, masked: Bool[Tensor, "b m"], drawn: Sequence[bool]
    ) -> tuple[Int[Tensor, "b m"], Float[Tensor, "b m"]]:
        """A guess for every place of the block, and its probability without noise. Numbers are drawn for whole blocks,
        as the official code does, of the rows that have something to fill: ``drawn``, as the host knows it.
        """
        (rows, size), found = masked.shape, []
        hot = self.temperature > 0 and any(drawn)
        for row, here in pieces(logits, [size] * rows, drawn=hot, whole=dice.shared):
            some = logits[here]
            guess = some.argmax(dim=-1)
            if hot and (row is None or drawn[row]):
                every = dice.shared or row is not None or all(drawn)
                counts = [size * (one and row in (None, i)) for i, one in enumerate(drawn)]
                noise = dice.rand([size] * rows if dice.shared else counts, some.shape[-1], dtype=torch.float64)
                if every:
                    guess = _noisy(some, self.temperature, noise)
                else:
                    which = _which(masked.any(dim=1), drawn)
                    fresh = _noisy(some.view(rows, size, -1)[which].flatten(0, 1), self.temperature, noise)
                    guess = guess.view(rows, size).index_copy(0, which, fresh.view(-1, size)).flatten()
            found.append((guess, probability(some.softmax(dim=-1), guess)))
        guess, sure = joined(found)
        return guess.view(rows, size), sure.view(rows, size)

    def _chosen(
        self, score: Float[Tensor, "b m"], masked: Bool[Tensor, "b m"], quota: Int[Tensor, "b"]
    ) -> Bool[Tensor, "b m"]:
        """The masked places that a step commits. ``score`` is -inf elsewhere."""
        among = [slice(None)] * len(score)
        if self.threshold is None:
            return surest(score, quota, among) & masked
        n = masked.sum(dim=1)
        return (surest(score, n.clamp(max=1), among, n) | (score >= self.threshold)) & masked


class _Quota(NamedTuple):
    """How many places each row commits in each of so many ``steps``: an even share, the first ones one more. A step
    whose share is 0 is taken where a mask was predicted and is left.
    """

    steps: int
    share: Int[Tensor, "b"]
    rest: Int[Tensor, "b"]

    @classmethod
    def of(cls, masks: Int[Tensor, "b"], steps: int) -> _Quota:
        """Of rows with so many masks."""
        return cls(steps, masks // steps, masks % steps)

    def at(self, step: int) -> Int[Tensor, "b"]:
        """In the step of this number, from 0."""
        return self.share + (self.rest > step)


class _Begun(NamedTuple):
    """A block that is begun: the causal pass, the token that it gives each row and its probability, where that token
    stands (``seeds``, nowhere in rows that take none), how many places are committed when, and the rows whose numbers
    are drawn in the first step, as the host knows them.
    """

    read: Forward
    seed: Int[Tensor, "b 1"]
    sure: Float[Tensor, "b 1"]
    seeds: Bool[Tensor, "b m"]
    quota: _Quota
    drawn: list[bool]

    def beside(
        self, guess: Int[Tensor, "b m"], sure: Float[Tensor, "b m"]
    ) -> tuple[Int[Tensor, "b m"], Float[Tensor, "b m"]]:
        """Guesses of the first step, with the seeds among them."""
        return torch.where(self.seeds, self.seed, guess), torch.where(self.seeds, self.sure.to(sure.dtype), sure)

    def joined(self, block: Forward) -> Forward:
        """With the states of what is finished, by the causal pass, before those of the block."""
        read = self.read
        hidden = {layer: torch.cat([read.hidden[layer], states], dim=1) for layer, states in block.hidden.items()}
        return replace(block, hidden=hidden, start=read.start)


def _which(rows: Bool[Tensor, "b"], seen: Sequence[bool]) -> Int[Tensor, "r"]:
    """The numbers of these rows, on the device; ``seen``: the same rows on the host."""
    if all(seen):
        return torch.arange(len(seen), device=rows.device)
    return places(rows[None], sum(seen))[1]


def _put(block: Tensor, here: slice, canvas: Tensor) -> Tensor:
    """The canvas with this block in it."""
    return torch.cat([canvas[:, : here.start], block, canvas[:, here.stop :]], dim=1)


def _noisy(logits: Float[Tensor, "k v"], temperature: float, noise: Float[Tensor, "k v"]) -> Int[Tensor, "k"]:
    """Guesses by Gumbel noise: argmax exp(l) / (-log u)^temperature, in float64; ``noise`` are the numbers u."""
    device = torch.device("cpu") if logits.device.type == "mps" else logits.device  # mps has no float64
    wide = logits.to(device, torch.float64).exp() / (-torch.log(noise.to(device))) ** temperature
    return wide.argmax(dim=-1).to(logits.device)
