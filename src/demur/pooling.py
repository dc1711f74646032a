"""Step representations phi_t: hidden states mean-pooled over positions, while the steps run and on their device.

Four modes, because the paper (arXiv:2602.02600, section 3.1) and its reference code differ:

- ``generated`` (the paper). Autoregressive: states *of* the tokens generated so far. Diffusion: positions committed
  after the step, from the step's own forward pass.
- ``producing`` (reference code, AR). Autoregressive: states that *produced* the tokens so far, one column earlier.
  Diffusion: states that produce every response position; the same as ``response`` where nothing is shifted.
- ``response`` (reference code, LLaDA). Diffusion only: every response position, still masked ones included.
- ``masked`` (ours). Diffusion only: the positions still masked after the step.

In block diffusion, response positions are those up to the row's current block; later ones do not exist yet. In
renoising diffusion, where a pass sees one canvas, they are those up to the row's current canvas, and a finished one
stays in the mean with the states of the last pass over it, the one that wrote its tokens.

Where a mode has nothing to average (no position masked any more; a row that has ended), the last value is held; before
there is one (no position committed yet at the first step), it is zeros, whatever the states hold.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from demur.types import POOLS, Canvas, DemurError, Layer, Pool, Step

Phi = Mapping[tuple[Layer, Pool], Float[Tensor, "b d"]]


class Pooler:
    """Pools one generation's steps in their order; keeps a running sum per layer and mode, never a volume of states."""

    def __init__(self, canvas: Canvas, wanted: Sequence[tuple[Layer, Pool]]) -> None:
        for _, pool in wanted:
            if pool not in POOLS:
                raise DemurError(f"pooling mode {pool!r}", " or ".join(POOLS), "name one of these")
        self.wanted = tuple(wanted)
        self.canvas = canvas
        self.sums: dict[tuple[Layer, Pool], Float[Tensor, "b d"]] = {}
        self.counts: dict[tuple[Layer, Pool], Float[Tensor, "b 1"]] = {}
        self.canvases: dict[tuple[Layer, Pool], tuple[int, Float[Tensor, "b d"], Float[Tensor, "b 1"]]] = {}
        self.phi: dict[tuple[Layer, Pool], Float[Tensor, "b d"]] = {}

    @cached_property
    def first(self) -> int:
        """The first column that is open in any row."""
        return int(self.canvas.open.any(dim=0).long().argmax())

    def __call__(self, step: Step) -> Phi:
        """phi after ``step``, in fp32, by (layer, mode); rows that had ended keep theirs."""
        for key in self.wanted:
            layer, _ = key
            if layer not in step.hidden:
                raise DemurError(
                    f"layer {layer!r} was not captured",
                    f"one that the model watches: {', '.join(step.hidden) or 'none'}",
                    f"use model.watching({layer!r})",
                )
            states = step.hidden[layer]
            if step.span == "new":
                self._accumulate(key, step, states)
            else:
                self._average(key, step, states)
        return {key: self.phi[key] for key in self.wanted}

    def _accumulate(self, key: tuple[Layer, Pool], step: Step, states: Float[Tensor, "b m d"]) -> None:
        """A cached pass: add the states that belong to the positions committed by this step."""
        if key[1] not in ("generated", "producing"):
            raise DemurError(
                f"pooling mode {key[1]!r} on an autoregressive trace",
                "generated or producing",
                "pass --pool generated",
            )
        column = 0 if key[1] == "producing" else 1
        if column >= states.shape[1]:
            raise DemurError("a token's own state that was not computed", "model.watching(..., own=True)", "ask for it")
        mine, live = states[:, column].float(), _pooled(step)[:, None].float()
        if key in self.sums:
            self.sums[key] = torch.addcmul(self.sums[key], mine, live)
            self.counts[key] = self.counts[key] + live
        else:
            self.sums[key], self.counts[key] = mine * live, live.clamp(min=1)  # a row that never lives has no count
        self.phi[key] = self.sums[key] / self.counts[key]

    def _average(self, key: tuple[Layer, Pool], step: Step, states: Float[Tensor, "b m d"]) -> None:
        """A pass over the whole canvas: average the positions of the mode afresh."""
        of_mode = step.open if key[1] == "masked" else self.canvas.open
        if key[1] == "generated":
            of_mode = of_mode > step.open  # without these, in one operation: true is more than false
        columns = of_mode & _pooled(step)[:, None]
        if step.reached is not None:
            columns &= step.reached
        columns = self._producing(columns, step.shift) if key[1] == "producing" else columns
        begin = max(self.first - step.shift, step.start)  # the prompt's states are none of the modes' business
        total, count = _masked_sum(states[:, begin - step.start :], begin, columns)
        if step.span == "tail":  # what stands before the pass was added when it was passed for the last time
            if key in self.sums:
                total, count = total + self.sums[key], count + self.counts[key]
            if step.settled > begin:
                final = columns.clone()
                final[:, step.settled :] = False
                more, n = _masked_sum(states[:, begin - step.start :], begin, final)
                self.sums[key] = self.sums[key] + more if key in self.sums else more
                self.counts[key] = self.counts[key] + n if key in self.counts else n
        elif step.span == "canvas":
            total, count = self._with_finished(key, step, total, count)
        moved = count > 0
        if step.span != "all":  # what was added before does not bring an ended row back
            moved &= _pooled(step)[:, None]
        held = self.phi[key] if key in self.phi else torch.zeros_like(total)
        self.phi[key] = torch.where(moved, total / count, held)  # 0 / 0, where nothing is averaged, is not taken

    def _with_finished(
        self, key: tuple[Layer, Pool], step: Step, total: Float[Tensor, "b d"], count: Float[Tensor, "b 1"]
    ) -> tuple[Float[Tensor, "b d"], Float[Tensor, "b 1"]]:
        """Sum and count of a row's current canvas and of those before, each as the row's last step on it left it."""
        nothing = torch.zeros_like(total), torch.zeros_like(count)
        start, *current = self.canvases.get(key, (step.start, *nothing))
        done, n = self.sums.get(key, nothing[0]), self.counts.get(key, nothing[1])
        if start != step.start:
            done, n, current = done + current[0], n + current[1], [*nothing]
        self.sums[key], self.counts[key] = done, n
        mine = _pooled(step)[:, None]  # rows finish a canvas at different steps
        self.canvases[key] = (step.start, torch.where(mine, total, current[0]), torch.where(mine, count, current[1]))
        return total + done, count + n

    def _producing(self, positions: Bool[Tensor, "b n"], shift: int) -> Bool[Tensor, "b n"]:
        """The columns that produced the positions. A row's first position, after padding, is produced by itself."""
        if not shift:
            return positions
        moved = torch.zeros_like(positions)
        moved[:, :-shift] = positions[:, shift:]
        begins = torch.nn.functional.pad(self.canvas.pad, (1, 0), value=True)[:, :-1] & ~self.canvas.pad
        return (moved & ~self.canvas.pad) | (positions & begins)


def _pooled(step: Step) -> Bool[Tensor, "b"]:
    """The rows whose states are the sampler's own doing."""
    return step.live if step.replaced is None else step.live & ~step.replaced


def _masked_sum(
    states: Float[Tensor, "b m d"], start: int, columns: Bool[Tensor, "b n"]
) -> tuple[Float[Tensor, "b d"], Float[Tensor, "b 1"]]:
    """Sum in fp32 over the marked columns, and how many there were; ``states`` begin at column ``start``."""
    weights = columns[:, start : start + states.shape[1]].float()
    total = torch.bmm(weights[:, None, :], states.float())[:, 0]
    return total, weights.sum(dim=1, keepdim=True)
