"""What a guard sees of a batch after a step: how each row stands, and its sigma.

On a CPU, sigma is taken as offline, bit for bit. From an accelerator one transfer a step brings a few numbers a row
instead of its state, which is d of them: products of the state, in float64, and the host makes sigma of them as it does
of its own. So that sigma agrees to rounding.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int, Num, Shaped
from numpy.typing import NDArray
from torch import Tensor

from demur.signals import Anchors

ON_HOST = ("cpu", "mps")
"""Devices whose states NumPy reads: there is nothing to move, or no float64 (mps)."""

Seen = tuple[Shaped[NDArray[Any], "b k"], Float[NDArray[np.float64], "b"]]
"""What was told of every row besides, and sigma."""


class Signal:
    """sigma of pooled states, each at its row's own step."""

    def __init__(self, anchors: Anchors) -> None:
        self.anchors, self.last = anchors, len(anchors.harmless) - 1
        self.tables: tuple[Tensor, ...] = ()  # what products are taken with, on the states' device once it is known

    def __call__(
        self, phi: Float[Tensor, "b d"], step: int | Int[Tensor, "b"], told: Num[Tensor, "b k"]
    ) -> Callable[[], Seen]:
        """Begins what there is to be moved. What it gives back waits for it: ``told``, which goes along, and sigma in
        [0, 1] of every row, nan for a state that is not finite. ``step`` counts from 0, for all rows or row by row; one
        outside 0 ... T - 1 is taken for the nearest of these.
        """
        if phi.device.type in ON_HOST:
            sigma = as_offline(self.anchors, phi.detach().cpu().numpy(), _numbers(step))
            along = told.cpu().numpy().copy()  # a sampler may write into its own until this is read
            return lambda: (along, sigma)
        if not self.tables:
            self.tables = tuple(torch.from_numpy(table).to(phi.device, torch.float64) for table in self.anchors.tables)
        take = products_there if self.anchors.whitened is None else whitened_products_there
        at = min(max(step, 0), self.last) if isinstance(step, int) else step.clamp(0, self.last)
        own = () if isinstance(at, int) else (at,)
        columns = (*told.unbind(dim=1), *own, *take(phi, at, *self.tables))
        read = crossing(torch.stack([column.double() for column in columns], dim=1))

        def seen() -> Seen:
            numbers, k = read(), told.shape[1]
            steps = np.full(len(numbers), at) if isinstance(at, int) else numbers[:, k].astype(np.int64)
            return numbers[:, :k], self.anchors.of_products(numbers[:, -3:], steps)

        return seen


class Recent:
    """Pooled states as the guard reads them: up to step ``width`` as they are, behind it of the last ``width`` tokens
    alone (:mod:`demur.signals.recent`). It keeps the running means of so many steps, on their device.
    """

    def __init__(self, width: int) -> None:
        self.width, self.steps = width, 0
        self.means: list[Float[Tensor, "b d"]] = []

    def __call__(self, phi: Float[Tensor, "b d"]) -> Float[Tensor, "b d"]:
        """One step more. The bits are those of :func:`demur.signals.recent.recent`."""
        self.steps += 1
        if self.steps <= self.width:
            self.means.append(phi)
            return phi
        place, before = (self.steps - 1) % self.width, self.steps - self.width
        exact = torch.float32 if phi.device.type == "mps" else torch.float64
        behind = phi.to(exact) * self.steps - self.means[place].to(exact) * before
        self.means[place] = phi
        return (behind / self.width).float()


def as_offline(
    anchors: Anchors, phi: Float[NDArray[np.float32], "b d"], step: int | Int[NDArray[np.int64], "b"]
) -> Float[NDArray[np.float64], "b"]:
    """sigma by NumPy, as the offline guard takes it. ``step`` counts from 0, for all rows or row by row; one outside
    0 ... T - 1 is taken for the nearest of these.
    """
    last = len(anchors.harmless) - 1
    if isinstance(step, int):
        return anchors.at(phi[:, None], min(max(step, 0), last))[:, 0]
    return anchors.each(phi, np.clip(step, 0, last))


def products_there(
    phi: Float[Tensor, "b d"], at: int | Int[Tensor, "b"], directions: Float[Tensor, "T 2 d"]
) -> tuple[Float[Tensor, "b"], Float[Tensor, "b"], Float[Tensor, "b"]]:
    """What :func:`demur.signals.sigma.sigma_of` is taken of, by tensor operations, without asking the device."""
    x = phi.double()  # no square of an fp32 number overflows here
    harmful, harmless = (directions[at] * x[:, None]).sum(dim=-1).unbind(dim=-1)
    return harmful, harmless, x.norm(dim=-1)


def whitened_products_there(
    phi: Float[Tensor, "b d"],
    at: int | Int[Tensor, "b"],
    middle: Float[Tensor, "T d"],
    seen: Float[Tensor, "T d"],
    loud: Float[Tensor, "r d"],
    taken: Float[Tensor, "r"],
) -> tuple[Float[Tensor, "b"], Float[Tensor, "b"], Float[Tensor, "b"]]:
    """The same of whitened anchors: :func:`demur.signals.whitened.products`."""
    x = phi.double() - middle[at]
    return (x * seen[at]).sum(dim=-1), x.square().sum(dim=-1), (x @ loud.T).square() @ taken


def crossing(numbers: Float[Tensor, "b k"]) -> Callable[[], Float[NDArray[np.float64], "b k"]]:
    """Begins the one transfer of a step. What it gives back waits for it."""
    if not numbers.is_cuda:
        return lambda: numbers.cpu().numpy()
    here = numbers.to("cpu", non_blocking=True)
    copied = torch.cuda.current_stream(numbers.device).record_event()

    def read() -> Float[NDArray[np.float64], "b k"]:
        copied.synchronize()
        return here.numpy()

    return read


def _numbers(step: int | Int[Tensor, "b"]) -> int | Int[NDArray[np.int64], "b"]:
    return step if isinstance(step, int) else step.cpu().numpy()
