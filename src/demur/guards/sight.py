"""What a guard sees of a batch after a step: pooled states become sigma where they lie, and one transfer brings the
host two numbers a row: its :class:`~demur.guards.rows.RowState` and its sigma.

On a CPU, sigma is that of the offline guard, bit for bit. On an accelerator it is the same formula in float64 by a
handful of tensor operations, since states of b rows are d times as much to move; it agrees to rounding.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from jaxtyping import Float, Int
from numpy.typing import NDArray
from torch import Tensor

from demur.signals import EPS, TAU, Anchors
from demur.signals.whitened import INSIDE

ON_HOST = ("cpu", "mps")
"""Devices whose states NumPy reads: there is nothing to move, or no float64 (mps)."""


class Signal:
    """sigma of pooled states, each at its row's own step."""

    def __init__(self, anchors: Anchors) -> None:
        self.anchors = anchors
        self.tables: tuple[Tensor, ...] = ()  # what the anchors read by, on the states' device once it is known

    def __call__(self, phi: Float[Tensor, "b d"], step: Int[Tensor, "b"]) -> Float[Tensor, "b"]:
        """In [0, 1], where the states lie; nan for a state that is not finite. ``step`` counts from 0; one outside
        0 ... T - 1 is taken for the nearest of these.
        """
        if phi.device.type in ON_HOST:
            return torch.from_numpy(as_offline(self.anchors, phi.detach().cpu().numpy(), step.tolist()))
        step = step.clamp(0, len(self.anchors.harmless) - 1)
        whitened = self.anchors.whitened
        if not self.tables:
            read_by = [self.anchors.directions] if whitened is None else whitened.arrays.values()
            self.tables = tuple(torch.from_numpy(table).to(phi.device, torch.float64) for table in read_by)
        if whitened is None:
            return where_it_lies(phi, self.tables[0][step])
        return whitened_where_it_lies(phi, step, *self.tables)


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
    anchors: Anchors, phi: Float[NDArray[np.float32], "b d"], step: Sequence[int]
) -> Float[NDArray[np.float64], "b"]:
    """sigma by NumPy, as the offline guard takes it. ``step`` counts from 0; one outside 0 ... T - 1 is taken for the
    nearest of these. Rows stand at one step, but for those that have waited.
    """
    last = len(anchors.harmless) - 1
    at = [min(max(t, 0), last) for t in step]
    if len({*at}) == 1:
        return anchors.at(phi[:, None], at[0])[:, 0]
    sigma = np.empty(len(phi))
    for t in {*at}:
        rows = np.array(at) == t
        sigma[rows] = anchors.at(phi[rows, None], t)[:, 0]
    return sigma


def where_it_lies(phi: Float[Tensor, "b d"], directions: Float[Tensor, "b 2 d"]) -> Float[Tensor, "b"]:
    """The same by tensor operations, without asking the device. ``directions``: unit vectors of the anchors of each
    row's step, the harmful one first (:attr:`demur.signals.Anchors.directions`).
    """
    x = phi.double()  # no square of an fp32 number overflows here
    cosines = (directions * x[:, None]).sum(dim=-1) / (x.norm(dim=-1, keepdim=True) + EPS)
    logs = torch.log((1.0 - cosines).clamp(min=0.0) + EPS)
    return torch.sigmoid((logs[:, 0] - logs[:, 1]) / TAU)


def whitened_where_it_lies(
    phi: Float[Tensor, "b d"],
    step: Int[Tensor, "b"],
    middle: Float[Tensor, "T d"],
    away: Float[Tensor, "T d"],
    loud: Float[Tensor, "r d"],
    turned_down: Float[Tensor, "r"],
    steep: Float[Tensor, "T"],
    offset: Float[Tensor, "T"],
) -> Float[Tensor, "b"]:
    """The same of whitened anchors, by the fields of :class:`demur.signals.whitened.Whitened`."""
    x = phi.double() - middle[step]
    x = x - (x @ loud.T * turned_down) @ loud
    length = x.norm(dim=-1)
    cosine = (x * away[step]).sum(dim=-1) / torch.where(length > 0, length, 1.0)
    lean = torch.atanh(cosine.clamp(-INSIDE, INSIDE))
    return torch.where(length.isfinite(), torch.sigmoid(steep[step] * lean + offset[step]), torch.nan)


def crossing(state: Int[Tensor, "b"], sigma: Float[Tensor, "b"]) -> Callable[[], list[list[float]]]:
    """Begins the one transfer of a step. What it gives back waits for it, and reads a row's state and sigma a row."""
    numbers = torch.stack([state.to(sigma.device, sigma.dtype), sigma], dim=1)
    if not numbers.is_cuda:
        return numbers.cpu().tolist
    here = numbers.to("cpu", non_blocking=True)
    copied = torch.cuda.current_stream(numbers.device).record_event()

    def read() -> list[list[float]]:
        copied.synchronize()
        return here.tolist()

    return read
