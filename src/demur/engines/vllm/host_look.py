"""The guard for rows whose states NumPy can read: as :class:`demur.engines.vllm.look.Look`, row by row.

On a CPU this takes less time than tensors: between two looks a model reads all of its weights, so that every operation
is cold the first time. A few kinds of them, over and over, are quicker than many kinds, each of a whole batch
(docs/vllm.md). It also reads every detector.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from torch import Tensor

from demur.engines.vllm.look import Eyes, Glance, Look, first_answered, limits_of, score_of
from demur.guards import Guard

State = Float[NDArray[np.float32], "d"]


def look_of(guard: Guard, device: torch.device, acts: bool = False) -> Eyes:
    """The eyes for states on a device. A detector that only NumPy can read makes the host wait for it once a step."""
    score = None if device.type == "cpu" else score_of(guard.detector, device)
    return HostLook(guard, device, acts) if score is None else Look(guard, device, score, acts)


class HostLook:
    """One guard's eyes on all of its rows, by NumPy. ``acts``: a flagged row's later steps are not its own."""

    def __init__(self, guard: Guard, device: torch.device, acts: bool = False) -> None:
        self.guard, self.device, self.acts = guard, device, acts
        self.steps = guard.spec.steps
        self.limit, self.tail = limits_of(guard)
        self.rows: list[_Row | None] = []
        self.free = list[int]()

    def take(self) -> int:
        """A place for one row more, empty."""
        row = _Row(self.steps, self.guard.anchors.harmless.shape[1], self.tail is not None)
        if not self.free:
            self.rows.append(row)
            return len(self.rows) - 1
        place = self.free.pop()
        self.rows[place] = row
        return place

    def give(self, place: int) -> None:
        """A row is over; its place is free."""
        self.rows[place] = None
        self.free.append(place)

    def looks_at(self, step: int) -> bool:
        """Whether anything is looked at in a step, counted from 1."""
        return step >= 1 and (step <= self.steps or self.tail is not None)

    def see(self, states: Float[Tensor, "n d"], rows: Sequence[Glance], fed: Int[Tensor, "n"] | None = None) -> None:
        """See :class:`demur.engines.vllm.look.Eyes`."""
        if fed is not None:
            tokens, first = fed.tolist(), first_answered(self.guard)
            rows = [each for each in rows if each.step <= first or tokens[each.row] not in each.stops]
        new = [(each, self._row(each.place)) for each in rows]
        if self.acts:
            new = [(each, row) for each, row in new if not 0 < row.flagged < each.step]
        if not new:
            return
        at: Sequence[int] = [each.row for each, _ in new]
        if len(at) < len(states):  # no others leave their device, or become fp32
            states, at = states[at], range(len(at))
        given = states.float().cpu().numpy()
        seen = np.empty((len(new), given.shape[1]), np.float32)
        with np.errstate(over="ignore", invalid="ignore"):  # what is not finite is flagged
            for out, where, (each, row) in zip(seen, at, new, strict=True):
                row.add(given[where], each.step, each.again, out)
        steps = np.array([each.step for each, _ in new])
        sigma = self.guard.anchors.each(seen, np.minimum(steps, self.steps) - 1).tolist()
        early = []
        for (each, row), value in zip(new, sigma, strict=True):
            row.read(value, each.step, each.again)
            if each.step <= self.steps:
                early.append((each.step, row))
            elif self.tail is not None:
                row.judge(1.0 - value, self.tail, each.step)
        if early:
            held = np.array([row.sigma for _, row in early])
            scores = self.guard.prefix.score_held(held, np.array([step for step, _ in early]))
            for (step, row), score in zip(early, scores.tolist(), strict=True):
                row.judge(score, self.limit, step)

    def is_quiet(self, places: Sequence[int]) -> bool:
        """Whether no row is flagged."""
        return not any(self._row(place).flagged for place in places)

    def flagged(self, places: Int[Tensor, "b"]) -> Float[Tensor, "b"]:
        """The step that flagged each row; 0 for none."""
        found = [float(self._row(place).flagged) for place in places.tolist()]
        return torch.tensor(found, dtype=torch.float64, device=self.device)

    def row(self, place: int) -> Float[Tensor, "T+4"]:
        """See :class:`demur.engines.vllm.look.Eyes`."""
        of = self._row(place)
        return torch.tensor([*of.sigma.tolist(), of.flagged, of.score, of.last, of.worst], dtype=torch.float64)

    def _row(self, place: int) -> _Row:
        found = self.rows[place]
        assert found is not None
        return found


class _Row:
    """What is kept of a row: running sums with and without its last step, running means where a guard looks at whole
    answers, and what :meth:`HostLook.row` tells.
    """

    def __init__(self, steps: int, size: int, whole: bool) -> None:
        self.sum = self.sum_before = np.zeros(size, np.float32)
        self.means = np.zeros((steps + 1, size), np.float32) if whole else None
        self.sigma = np.zeros(steps)
        self.flagged, self.score, self.last, self.worst, self.worst_before = 0, 0.0, 0.0, 0.0, 0.0

    def add(self, state: State, step: int, again: bool, out: State) -> None:
        """Adds a state, and writes to ``out`` what the guard reads: the mean of all, behind T that of the last T."""
        if not again:
            self.sum_before = self.sum
        self.sum, width = self.sum_before + state, len(self.sigma)
        np.divide(self.sum, step, out=out)
        if self.means is None:
            return
        self.means[step % (width + 1)] = out
        if step > width:
            old = self.means[(step + 1) % (width + 1)].astype(np.float64)
            out[:] = (out.astype(np.float64) * step - old * (step - width)) / width

    def read(self, sigma: float, step: int, again: bool) -> None:
        """Takes note of its signal after a step. What a step brought that comes once more is forgotten."""
        if again:
            self.worst = self.worst_before
            self.flagged = self.flagged if self.flagged < step else 0
        risk = 1.0 - sigma
        if step <= len(self.sigma):
            self.sigma[step - 1 :] = sigma
        else:
            risk = float(np.maximum(self.worst, risk))  # of a number and nan it is nan
        self.last, self.worst_before, self.worst = sigma, self.worst, risk

    def judge(self, score: float, limit: float, step: int) -> None:
        """Takes note of its score, and whether that is above the limit."""
        if not self.flagged:
            self.score = score
            self.flagged = 0 if score <= limit else step  # not `>`, which lets a nan pass
