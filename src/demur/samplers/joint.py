"""Block diffusion that edits what it has written: LLaDA2.1's joint thresholds (arXiv:2602.08676)."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from demur.kinds import check_kinds
from demur.samplers.asked import Asked, Host, spans
from demur.samplers.dice import Dice, Rngs
from demur.samplers.rules import (
    above,
    among_top,
    but_not,
    check_nucleus,
    check_temperature,
    check_threshold,
    joined,
    nucleus,
    pieces,
    probability,
    tempered,
)
from demur.types import Blocks, Canvas, DemurError, Need, Step, lacking

LONGEST = 256
"""Steps of a block before it may be taken for one that goes on for ever: with an edit threshold near 0 every place is
written anew in every step, and a mask that comes back may still go.
"""


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
    ``(n + 1) (max_post_steps + 1)`` steps of a block of n places, but never before ``LONGEST`` of them; what is masked
    then stays open.

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
        check_kinds(self, vars(self), type(self).__name__)
        if self.at_least < 1 or self.max_post_steps < 0:
            raise DemurError(
                f"at_least={self.at_least}, max_post_steps={self.max_post_steps}",
                "at least 1 place a step, and at least 0 steps on a full block",
                "leave them out for the model's own",
            )
        check_threshold("threshold", self.threshold)
        check_threshold("edit_threshold", self.edit_threshold)
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
        dice, host, block, device = Dice(rngs, canvas.rows), Host.of(canvas), model.blocks(canvas), canvas.ids.device
        blocks, size = block.cpu().numpy(), model.block_length or 1
        own = block.masked_fill(canvas.pad, torch.iinfo(block.dtype).max)  # padding is of no block
        stops = torch.tensor(model.stop_ids, dtype=torch.long, device=device)
        ids, open_, behind = canvas.ids, canvas.open, int(blocks.max()) + 1
        current: Int[Tensor, "b"] = torch.where(open_, block, behind).amin(dim=1)  # the block that a row stands in
        looked = torch.zeros_like(current)  # how often at a full block
        least, nothing = torch.full_like(current, self.at_least), canvas.ids
        cache = model.new_cache() if self.cache and not model.shift and bool((blocks == blocks[:1]).all()) else None
        stood, taken = np.full(canvas.rows, -1), np.zeros(canvas.rows, dtype=np.int64)  # a row's block, and its steps
        for index in itertools.count():
            # This is where the host waits for the device, once a step.
            current_seen = np.array(current.tolist())
            if not (current_seen < behind).any():
                return
            taken, stood = np.where(current_seen == stood, taken + 1, 1), current_seen
            inside: Bool[Tensor, "b n"] = own == current[:, None]
            asked = Asked(inside, (blocks == current_seen[:, None]) & ~host.pad)
            columns = np.flatnonzero(asked.seen.any(axis=0))
            begins, upto = int(columns[0]), int(columns[-1]) + 1
            if cache is not None and upto - begins > size:
                cache = None  # rows have drifted apart: what the cache holds is no longer final for all
            settled = begins if cache is not None else 0
            out = model.forward(host.passing(asked, ids, upto), inside[:, :upto], cache=cache, keep=begins)
            guess, sure = self._guess(out.logits, dice, asked.counts)
            nothing = sure.new_full(ids.shape, -torch.inf) if index == 0 else nothing
            guesses, score = ids.index_put(asked.places, guess), nothing.index_put(asked.places, sure)
            masked, free = inside & open_, inside & canvas.open
            edit = (free ^ masked) & (score > self.edit_threshold) & (guesses != ids)
            moved = edit | self._surest(score, masked, least, spans(asked.seen))
            before, ids = ids, torch.where(moved, guesses, ids)
            is_mask = ids == mask_id
            open_, committed = torch.where(free, is_mask, open_), moved.masked_fill(is_mask, False)
            reached = block <= current[:, None]
            yield Step(
                index=index,
                ids=ids,
                open=open_,
                committed=committed,
                predictions=torch.where(free, guesses, before),
                confidence=score.float().masked_fill(~free, float("nan")),
                live=current < behind,
                hidden=out.hidden,
                start=out.start,
                span="all" if cache is None else "tail",
                settled=settled,
                shift=model.shift,
                reached=reached,
            )
            full = ~masked.any(dim=1)
            looked = looked + full
            # Greedy, a step that changes nothing would come again for ever; else a full block that is not edited ends.
            idle = (ids == before).all(dim=1) if self.temperature == 0 else full & ~edit.any(dim=1)
            done = idle | but_not(looked >= self.max_post_steps, (open_ & inside).any(dim=1))
            if (late := taken >= max((size + 1) * (self.max_post_steps + 1), LONGEST)).any():
                done |= torch.from_numpy(late).to(device)
            then = block.masked_fill(~but_not(open_, reached), behind).amin(dim=1)
            if self.stop:
                ended = (torch.isin(ids, stops) & free).any(dim=1)
                then = then.masked_fill(ended, behind)
            current, looked = torch.where(done, then, current), looked.masked_fill(done, 0)

    def _guess(
        self, logits: Float[Tensor, "k v"], dice: Dice, counts: Sequence[int]
    ) -> tuple[Int[Tensor, "k"], Float[Tensor, "k"]]:
        """A guess for every place of the rows' blocks, and its probability."""
        found = []
        for row, here in pieces(logits, counts, drawn=self.temperature > 0, whole=dice.shared):
            if self.temperature == 0:
                token, probs = logits[here].argmax(dim=-1), logits[here].softmax(dim=-1)
            else:
                hot = tempered(logits[here], self.temperature)
                probs = nucleus(among_top(hot, self.top_k), self.top_p).softmax(dim=-1)
                token = dice.multinomial(probs, [n if row in (None, i) else 0 for i, n in enumerate(counts)])
            found.append((token, probability(probs, token)))
        return joined(found)

    def _surest(
        self, score: Float[Tensor, "b n"], masked: Bool[Tensor, "b n"], least: Int[Tensor, "b"], among: list[slice]
    ) -> Bool[Tensor, "b n"]:
        """The masked places above the threshold; of a row with too few of them, its surest masked places.

        The whole block is ranked, as officially: which of equal scores comes first depends on what else is ranked.
        """
        return above(score.masked_fill(~masked, -torch.inf), least, among, self.threshold) & masked
