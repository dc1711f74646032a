"""What a step asks for: the places that it predicts, as the device and the host know them.

Once a step the host reads what is open, and waits for the device to say it. From that it knows how many places there
are, which tensors need to be that long, and whose random numbers are to be drawn. Nothing else is asked for.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from numpy.typing import NDArray
from torch import Tensor

from demur.samplers.dice import Dice
from demur.types import Canvas, Known


@dataclass(frozen=True, eq=False)
class Asked:
    """The places of one step: a ``mask`` on the device, and the same as ``seen`` by the host."""

    mask: Bool[Tensor, "b n"]
    seen: Bool[NDArray[np.bool_], "b n"]

    @cached_property
    def places(self) -> tuple[Int[Tensor, "k"], Int[Tensor, "k"]]:
        """Row and column of each place, row-major, on the device."""
        return places(self.mask, int(self.seen.sum()))

    @property
    def first(self) -> int:
        """The first column that is asked for in any row; 0 if none is."""
        return int(self.seen.any(axis=0).argmax())

    @cached_property
    def counts(self) -> list[int]:
        """How many places each row has."""
        return [int(n) for n in self.seen.sum(axis=1)]

    def numbers(
        self, dice: Dice, firsts: Sequence[int], row: int | None, *tail: int, dtype: torch.dtype = torch.float32
    ) -> Float[Tensor, "k ..."]:
        """Random numbers for the places (of one ``row``, or all), on the host. They are drawn for whole rows, each from
        its column ``firsts`` on, as official codes draw them.
        """
        width = self.seen.shape[1]
        lengths = [width - first if row in (None, i) else 0 for i, first in enumerate(firsts)]
        begins = np.cumsum([0, *lengths[:-1]]) - np.array(firsts)
        rows, columns = self.seen.nonzero()
        mine = np.ones(len(rows), dtype=bool) if row is None else rows == row
        where = torch.from_numpy((columns + begins[rows])[mine])
        drawn = dice.rand(lengths, *tail, dtype=dtype)
        return drawn[where.to(drawn.device)]


@dataclass(frozen=True, eq=False)
class Host:
    """What the host knows of a canvas from the beginning."""

    canvas: Canvas
    starts: list[int]
    open: Bool[NDArray[np.bool_], "b n"]
    pad: Bool[NDArray[np.bool_], "b n"]
    kept: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, canvas: Canvas) -> Host:
        """Reads it."""
        pad = canvas.pad.cpu().numpy()
        return cls(canvas, pad.sum(axis=1).tolist(), canvas.open.cpu().numpy(), pad)

    @cached_property
    def first(self) -> int:
        """The first column that is open in any row."""
        return int(self.open.any(axis=0).argmax())

    @cached_property
    def rank(self) -> Int[NDArray[np.int64], "b n"]:
        """1 for the first open position of a row, and so on."""
        return self.open.cumsum(axis=1)

    def read(self, mask: Bool[Tensor, "b n"], at: Int[Tensor, "b"]) -> tuple[Bool[NDArray[np.bool_], "b n"], list[int]]:
        """A mask and a number a row. This is where the host waits for the device, once a step."""
        both = torch.cat([at[:, None], mask], dim=1).cpu().numpy()
        return both[:, 1:] > 0, both[:, 0].tolist()

    def passing(self, asked: Asked, ids: Int[Tensor, "b n"], upto: int | None = None) -> Canvas:
        """The canvas with these tokens, up to a column, for a pass that scores what is asked."""
        known = Known(
            min(self.first, asked.first),
            max(self.starts, default=0) > 0,
            asked.places,
            self.canvas,
            self.kept,
            asked.seen,
        )
        now, here = self.canvas, slice(0, upto)
        return Canvas(ids=ids[:, here], open=now.open[:, here], pad=now.pad[:, here], known=known)


def places(mask: Bool[Tensor, "b n"], count: int) -> tuple[Int[Tensor, "k"], Int[Tensor, "k"]]:
    """Row and column of the ``count`` places of a mask, row-major; the device is not asked how many there are."""
    if mask.device.type in ("cpu", "mps"):
        rows, columns = mask.nonzero(as_tuple=True)
    else:
        rows, columns = torch.nonzero_static(mask, size=count).unbind(1)
    return rows, columns


def spans(inside: Bool[NDArray[np.bool_], "b n"]) -> list[slice]:
    """The columns of each row's block; none for a row without."""
    begins, sizes = inside.argmax(axis=1).tolist(), inside.sum(axis=1).tolist()
    return [slice(begin, begin + size) for begin, size in zip(begins, sizes, strict=True)]
