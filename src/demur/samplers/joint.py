"""Block diffusion that edits what it has written: LLaDA2.1's joint thresholds (arXiv:2602.08676)."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from demur.samplers.dice import Dice, Rngs
from demur.samplers.rules import among_top, check_nucleus, check_temperature, nucleus, tempered
from demur.types import Blocks, Canvas, DemurError, Need, Step, lacking


@dataclass(frozen=True)
class JointThreshold:
    """LLaDA2.1's sampler (its generate): two thresholds at every step, one to write and one to write again.

    In every step all places of the current block are guessed. Masked ones are committed where the guess is surer than
    ``threshold``; where fewer than ``at_least`` are, the surest ones. Written ones (never given ones) are edited where
    another token is guessed, and surer than ``edit_threshold``. A block that is full is looked at again, up to
    ``max_post_steps`` times, until nothing is edited. So a finished block has recovered from what it could, by design;
    finished blocks are final.

    The defaults are the authors' quality mode; their fast one is ``threshold=0.5, edit_threshold=0.0``. ``stop``: a
    block that holds an end of sequence is the last one.

    An edit may put the mask back, as in the official code: the place is open again. There, a block goes on for ever if
    the model insists on a mask. Here it ends when nothing changes (temperature 0), or after
    ``(n + 1) (max_post_steps + 1)`` steps of a block of n places; what is masked then stays open.

    In a step, ``committed`` are the places written or edited, ``predictions`` and ``confidence`` the guess at every
    place of the block that is not given. The official code keeps no keys and values, which in bf16 shows in the tokens;
    with ``cache`` finished blocks are kept as long as all rows stand in the same block.
    """

    needs: ClassVar[frozenset[Need]] = frozenset({Need.BLOCKS, Need.MASK})

    threshold: float = 0.7
    edit_threshold: float = 0.5
    max_post_steps: int = 16
    at_least: int = 1
    temperature: float = 0.0
    top_k: int | None = None
    top_p: float | None = None
    stop: bool = True
    cache: bool = False

    def __post_init__(self) -> None:
        if self.at_least < 1 or self.max_post_steps < 0:
            raise DemurError(
                f"at_least={self.at_least}, max_post_steps={self.max_post_steps}",
                "at least 1 place a step, and at least 0 steps on a full block",
                "leave them out for the model's own",
            )
        check_temperature(self.temperature)
        check_nucleus(self.top_k, self.top_p)

    def __call__(self, model: Blocks, canvas: Canvas, rngs: Rngs) -> Iterator[Step]:
        """Steps until every row is full or has ended with its last block. Raises for a model without blocks."""
        if lacking(model, self.needs):
            raise DemurError(
                f"joint thresholds on the {model.kind} model {model.name}",
                "a model whose attention is causal over blocks (LLaDA2.1)",
                "use a sampler of its kind, or load it with the block_length it was trained with",
            )
        mask_id = -1 if model.mask_id is None else model.mask_id  # who offers Need.MASK has one
        dice, block = Dice(rngs, canvas.rows), model.blocks(canvas)
        places = torch.arange(model.block_length or 1, device=canvas.ids.device)
        stops = torch.tensor(model.stop_ids, dtype=torch.long, device=canvas.ids.device)
        ids, open_ = canvas.ids.clone(), canvas.open.clone()
        behind = int(block.max()) + 1
        current = torch.where(open_, block, behind).amin(dim=1)
        looked, taken = torch.zeros_like(current), torch.zeros_like(current)  # at a full block; steps of the block
        together = bool((block == block[:1]).all())
        cache = model.new_cache() if self.cache and not model.shift and together else None
        for index in itertools.count():
            live = current < behind
            inside = (block == current[:, None]) & live[:, None] & ~canvas.pad
            passed = inside.any(dim=0).long()
            begins, last, any_ = torch.stack([passed.argmax(), passed.flip(0).argmax(), passed.amax()]).tolist()
            if not any_:
                return
            upto = canvas.width - last
            if cache is not None and upto - begins > len(places):
                cache = None  # rows have drifted apart: what the cache holds is no longer final for all
            seen = Canvas(ids=ids[:, :upto], open=canvas.open[:, :upto], pad=canvas.pad[:, :upto])
            out = model.forward(seen, inside[:, :upto], cache=cache, keep=begins)
            grid = _Grid.of(inside, places, ids, open_, canvas.open)
            guess, sure = self._guess(out.logits, dice, grid)
            commit = self._surest(sure, grid.masked)
            edit = grid.written & (sure > self.edit_threshold) & (guess != grid.ids)
            now = torch.where(commit | edit, guess, grid.ids)
            before, ids = ids, grid.back(now, ids)
            written = grid.back((commit | edit) & (now != mask_id), torch.zeros_like(open_))
            open_ = torch.where(inside & canvas.open, ids == mask_id, open_)
            predictions = grid.back(torch.where(grid.masked | grid.written, guess, grid.ids), before)
            confidence = torch.full(ids.shape, float("nan"), device=ids.device)
            scored = sure.float().masked_fill(~(grid.masked | grid.written), float("nan"))
            yield Step(
                index=index,
                ids=ids.clone(),
                open=open_.clone(),
                committed=written,
                predictions=predictions,
                confidence=grid.back(scored, confidence),
                live=live,
                hidden=out.hidden,
                start=out.start,
                span="all" if cache is None else "tail",
                settled=begins if cache is not None else 0,
                shift=model.shift,
                reached=block <= current[:, None],
            )
            full, still = ~grid.masked.any(dim=1), (open_ & inside).any(dim=1)
            looked, taken = looked + full.long(), taken + 1
            done = (full & ~edit.any(dim=1)) | (~still & (looked >= self.max_post_steps))
            if self.temperature == 0:
                done |= (ids == before).all(dim=1)
            done |= taken >= (len(places) + 1) * (self.max_post_steps + 1)
            ended = (torch.isin(ids, stops) & inside & canvas.open).any(dim=1) & done & self.stop
            later = torch.where(open_ & (block > current[:, None]), block, behind).amin(dim=1)
            current = torch.where(done & live, torch.where(ended, behind, later), current)
            looked, taken = looked.masked_fill(done, 0), taken.masked_fill(done, 0)

    def _guess(
        self, logits: Float[Tensor, "k v"], dice: Dice, grid: _Grid
    ) -> tuple[Int[Tensor, "b c"], Float[Tensor, "b c"]]:
        """A guess for every place of the rows' blocks and its probability; -inf where there is no place."""
        if self.temperature == 0:
            token, probs = logits.argmax(dim=-1), logits.softmax(dim=-1)
        else:
            probs = nucleus(among_top(tempered(logits, self.temperature), self.top_k), self.top_p).softmax(dim=-1)
            token = dice.multinomial(probs, grid.there.sum(dim=1).tolist())
        sure = probs.gather(-1, token[:, None])[:, 0]
        nowhere = torch.full(grid.there.shape, -torch.inf, dtype=sure.dtype, device=sure.device)
        return grid.ids.masked_scatter(grid.there, token), nowhere.masked_scatter(grid.there, sure)

    def _surest(self, sure: Float[Tensor, "b c"], masked: Bool[Tensor, "b c"]) -> Bool[Tensor, "b c"]:
        """The masked places above the threshold; of a row with too few of them, its surest masked places.

        The whole block is ranked, as officially: which of equal scores comes first depends on what else is ranked.
        """
        above = masked & (sure > self.threshold)
        score = sure.masked_fill(~masked, -torch.inf)
        best = score.topk(min(self.at_least, score.shape[1]), dim=1).indices
        first = torch.zeros_like(masked).scatter(1, best, torch.ones_like(best, dtype=torch.bool)) & masked
        return torch.where((above.sum(dim=1) >= self.at_least)[:, None], above, first)


class _Grid(NamedTuple):
    """The current blocks of all rows, one beside the other: ``b`` rows of ``c`` places."""

    columns: Int[Tensor, "b c"]
    """Where the places lie on the canvas; the last column, where there is none."""
    there: Bool[Tensor, "b c"]
    ids: Int[Tensor, "b c"]
    masked: Bool[Tensor, "b c"]
    """Open places."""
    written: Bool[Tensor, "b c"]
    """Places that are neither open nor given."""

    @classmethod
    def of(
        cls,
        inside: Bool[Tensor, "b n"],
        places: Int[Tensor, "c"],
        ids: Int[Tensor, "b n"],
        open_: Bool[Tensor, "b n"],
        ours: Bool[Tensor, "b n"],
    ) -> _Grid:
        """``inside``: the columns of the rows' blocks; ``ours``: the places that are not given."""
        columns = inside.long().argmax(dim=1, keepdim=True) + places
        there = places < inside.sum(dim=1, keepdim=True)
        columns = columns.clamp(max=inside.shape[1] - 1)
        masked, free = open_.gather(1, columns) & there, ours.gather(1, columns) & there
        return cls(columns, there, ids.gather(1, columns), masked, free & ~masked)

    def back(self, values: Tensor, canvas: Tensor) -> Tensor:
        """The canvas with these values at the blocks' places."""
        spare = torch.cat([canvas, canvas[:, :1]], dim=1)  # one column more, for the places that are not there
        where = torch.where(self.there, self.columns, canvas.shape[1])
        return spare.scatter(1, where, values.to(canvas.dtype))[:, :-1]
