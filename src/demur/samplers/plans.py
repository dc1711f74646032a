"""The plans of a batch as tables: made on the host, once, and read on the model's device at every step."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from numpy.typing import NDArray
from torch import Tensor

from demur.samplers.rules import Quota, counted


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


@dataclass(frozen=True, eq=False)
class Turns:
    """The turns that rows stand at: :class:`Turn`, each field with one entry a row. A row that has no turn left is not
    ``live``, and has zeros. ``left`` and ``share`` are None where all of the plans have zeros there.
    """

    live: Bool[Tensor, "b"]
    end: Int[Tensor, "b"]
    fixed: Int[Tensor, "b"]
    left: Int[Tensor, "b"] | None
    is_last: Int[Tensor, "b"]
    share: Float[Tensor, "b"] | None
    chance: Float[Tensor, "b"]
    noise: Float[Tensor, "b"]
    next: Int[Tensor, "b"]
    next_block: Int[Tensor, "b"]

    @property
    def last(self) -> Bool[Tensor, "b"]:
        """Whether the turn is its block's last."""
        return self.is_last > 0

    def count(self, n: Int[Tensor, "b"]) -> Int[Tensor, "b"]:
        """How many of ``n`` open positions each row commits."""
        return counted(n, self.fixed, self.share, self.left)


class Plans:
    """The plans of ``b`` rows, on the host and as tables on the device. ``at`` is a row's place in its plan, from 0."""

    def __init__(self, rows: Sequence[list[Turn]], device: torch.device) -> None:
        self.rows, self.device = [list(turns) for turns in rows], device
        self._number = torch.arange(len(rows), device=device)
        self._tabulate()

    def _tabulate(self) -> None:
        length = max((len(turns) for turns in self.rows), default=0) + 1  # a last column for rows that have ended
        tables = [_table(turns, length) for turns in self.rows]
        quotas = [turn.quota for turns in self.rows for turn in turns]
        self._has_left, self._has_share = any(one.left for one in quotas), any(one.share for one in quotas)
        self._whole = torch.from_numpy(np.stack([whole for whole, _ in tables])).to(self.device)
        self._real = torch.from_numpy(np.stack([real for _, real in tables])).to(self.device)

    def turns(self, at: Int[Tensor, "b"]) -> Turns:
        """The turn of every row."""
        live, end, fixed, left, last, after, after_block = self._whole[self._number, at].unbind(1)
        share, chance, noise = self._real[self._number, at].unbind(1)
        return Turns(
            live=live > 0,
            end=end,
            fixed=fixed,
            left=left if self._has_left else None,
            is_last=last,
            share=share if self._has_share else None,
            chance=chance,
            noise=noise,
            next=after,
            next_block=after_block,
        )

    def of(self, at: Sequence[int]) -> list[Turn | None]:
        """The turn of every row on the host; None for a row that has ended."""
        return [turns[t] if t < len(turns) else None for turns, t in zip(self.rows, at, strict=True)]

    def insert(self, row: int, at: int, turns: Sequence[Turn]) -> None:
        """Puts more turns into a row's plan, before the one at ``at``; the tables are written anew."""
        self.rows[row][at:at] = turns
        self._tabulate()


def _table(turns: Sequence[Turn], length: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """A row's plan as columns: see :meth:`Plans.turns`."""
    whole, real = np.zeros((length, 7), dtype=np.int64), np.zeros((length, 3), dtype=np.float32)
    whole[:, 5:] = len(turns)  # who has ended stays there
    i = 0
    for _, of_block in itertools.groupby(turns, key=lambda turn: turn.end):
        block = list(of_block)
        behind = i + len(block)
        for turn in block:
            whole[i] = (1, turn.end, turn.quota.fixed, turn.quota.left, turn.last, i + 1, behind)
            real[i] = (turn.quota.share, turn.chance, turn.noise)
            i += 1
    return whole, real
