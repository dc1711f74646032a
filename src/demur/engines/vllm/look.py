"""The guard for a whole batch: one look a step, by tensor operations where the states lie.

:class:`~demur.guards.online.Watch` looks at rows that begin together. Here rows come and go, each stands at a step of
its own, and each has a place in tensors that outlives its neighbours. What is computed is the same: pooled states in
fp32, sigma in float64, the detector's score of the signal held up to T, and behind T the last T tokens alone.

A step may come once more for a row (an engine computes part of a prompt, and the row means nothing yet): what comes
later for a step replaces what came first, a flag included.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from demur.guards import Guard
from demur.guards.autoencoder import Autoencoder
from demur.guards.detectors import Detector, Last, Mean
from demur.guards.sight import products_there, whitened_products_there
from demur.signals import EPS, TAU
from demur.signals.whitened import INSIDE
from demur.types import DemurError

_FLOOR = 1e-6  # as in demur.guards.prefix
_HIGHEST = float(np.finfo(np.float64).max)


class Glance(NamedTuple):
    """A row with something new: where it stands among the states of a step, its place, the step (from 1), whether the
    step comes once more, and the tokens that end it.
    """

    row: int
    place: int
    step: int
    again: bool = False
    stops: tuple[int, ...] = ()


class Eyes(Protocol):
    """One guard's eyes on all of its rows: :class:`Look`, or :class:`demur.engines.vllm.host_look.HostLook`."""

    @property
    def steps(self) -> int:
        """The guard's T."""
        ...

    @property
    def device(self) -> torch.device:
        """Where states and logits lie."""
        ...

    def take(self) -> int:
        """A place for one row more, empty."""
        ...

    def give(self, place: int) -> None:
        """A row is over; its place is free."""
        ...

    def looks_at(self, step: int) -> bool:
        """Whether anything is looked at in a step, counted from 1."""
        ...

    def see(self, states: Float[Tensor, "n d"], rows: Sequence[Glance], fed: Int[Tensor, "n"] | None = None) -> None:
        """Takes note of one step of each row. ``fed``: the token that each row of the batch was fed, where only the
        device knows; a row that was fed one of its ``stops`` is over, and is left as it is.
        """
        ...

    def is_quiet(self, places: Sequence[int]) -> bool:
        """Whether no row is flagged, where that is known without waiting for a device; else False."""
        ...

    def flagged(self, places: Int[Tensor, "b"]) -> Float[Tensor, "b"]:
        """The step that flagged each row; 0 for none."""
        ...

    def row(self, place: int) -> Float[Tensor, "T+4"]:
        """What is to be told of a row: sigma of T steps, the step that flagged it, its score (else the last), the last
        sigma, and the worst score from step T on (of a shorter answer: the last).
        """
        ...


class Look:
    """A guard's eyes where the states lie on a device. ``places`` is how many rows there is room for; it grows.

    ``score`` is what :func:`score_of` gives for the guard's detector. ``acts``: a flagged row's later steps are not its
    own, and are not looked at.
    """

    def __init__(self, guard: Guard, device: torch.device, score: Score, acts: bool = False) -> None:
        self.guard, self.device, self.score, self.acts = guard, device, score, acts
        self.steps, self.size = guard.spec.steps, guard.anchors.harmless.shape[1]
        self.places, self.free = 0, list[int]()
        anchors = guard.anchors
        self.tables = [self._there(table) for table in anchors.tables]
        by = anchors.whitened
        self.odds = [self._there(table) for table in (by.steep, by.offset)] if by is not None else []
        self.centre, self.scale = self._there(guard.prefix.centre), self._there(guard.prefix.scale)
        self.columns = torch.arange(self.steps, device=device)
        self.limit, self.tail = limits_of(guard)
        d, t = self.size, self.steps
        self.shapes: dict[str, tuple[tuple[int, ...], torch.dtype]] = {
            "sums": ((2, d), torch.float32),  # with the last step, and without it
            # sigma of T steps, the step that flagged (0: none), its score or the last one, the last sigma, the worst
            # score from step T on, and that without the last step
            "told": ((t + 5,), torch.float64),
        }
        if self.tail is not None:  # running means of the last T steps and of one more, so that a step may come again
            self.shapes["means"] = ((t + 1, d), torch.float32)
        self.kept: dict[str, Tensor] = {}
        self._grow(8)

    def _there(self, array: Any) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(array)).to(self.device, torch.float64)

    def _grow(self, places: int) -> None:
        for name, (shape, dtype) in self.shapes.items():
            wider = torch.zeros((places, *shape), dtype=dtype, device=self.device)
            if name in self.kept:
                wider[: self.places] = self.kept[name]
            self.kept[name] = wider
        self.free += range(places - 1, self.places - 1, -1)
        self.places = places

    def take(self) -> int:
        """A place for one row more, empty."""
        if not self.free:
            self._grow(2 * self.places)
        place = self.free.pop()
        for name in ("sums", "told"):
            self.kept[name][place] = 0
        return place

    def give(self, place: int) -> None:
        """A row is over; its place is free."""
        self.free.append(place)

    def looks_at(self, step: int) -> bool:
        """Whether anything is looked at in a step, counted from 1."""
        return step >= 1 and (step <= self.steps or self.tail is not None)

    def see(self, states: Float[Tensor, "n d"], rows: Sequence[Glance], fed: Int[Tensor, "n"] | None = None) -> None:
        """See :class:`Eyes`. By tensors, and without asking the device anything."""
        at, places, steps = columns([(row.row, row.place, row.step) for row in rows], self.device)
        again = torch.tensor([row.again for row in rows], device=self.device) if any(r.again for r in rows) else None
        alive = None
        if fed is not None:
            most = max(len(row.stops) for row in rows) or 1
            stops = [[*row.stops, *[-1] * (most - len(row.stops))] for row in rows]
            ends = (fed[at][:, None] == torch.tensor(stops, device=self.device)).any(dim=1)
            alive = ~(ends & (steps > first_answered(self.guard)))
        known = [row.step for row in rows]
        self._see(states[at], places, steps, again, alive, min(known), max(known))

    def _see(
        self,
        states: Float[Tensor, "b d"],
        places: Int[Tensor, "b"],
        steps: Int[Tensor, "b"],
        again: Bool[Tensor, "b"] | None,
        alive: Bool[Tensor, "b"] | None,
        least: int,
        most: int,
    ) -> None:
        """``again``: the row's step before comes once more (None: no row's). Rows that are not ``alive`` are left as
        they are. ``least`` and ``most`` of the steps: what no row needs is not computed.
        """
        behind = most > self.steps
        sums, told = self.kept["sums"][places], self.kept["told"][places]
        before = sums[:, 0] if again is None else torch.where(again[:, None], sums[:, 1], sums[:, 0])
        now = before + states.float()
        mean = now / steps[:, None]
        seen = self._recent(mean, places, steps) if self.tail is not None and behind else mean
        at = (steps - 1).clamp(max=self.steps - 1) if behind else steps - 1
        sigma = self._signal(seen, at)
        held, (was, its_score, _, until, until_before) = told[:, : self.steps], told[:, self.steps :].unbind(dim=1)
        if least <= self.steps:
            later = self.columns >= at[:, None]
            held = torch.where(later & (steps <= self.steps)[:, None] if behind else later, sigma[:, None], held)
        score, limit = self._scores(held, sigma, at, steps, least, most)
        above = ~(score <= limit)  # not `>`, which lets a nan pass
        flagged, risk = was > 0, 1.0 - sigma
        if again is not None:
            flagged, until = flagged & (was < steps), torch.where(again, until_before, until)
        worst = torch.where(steps > self.steps, torch.maximum(until, risk), risk) if behind else risk
        flag, of_flag = torch.where(flagged, was, above * steps), torch.where(flagged, its_score, score)
        takes = None if alive is None and not self.acts else ~flagged if self.acts else torch.ones_like(flagged)
        takes = takes if takes is None or alive is None else takes & alive
        self._keep("told", places, torch.cat([held, torch.stack([flag, of_flag, sigma, worst, until], 1)], 1), takes)
        self._keep("sums", places, torch.stack([now, before], dim=1), takes)
        if self.tail is not None:
            self._keep("means", (places, steps % (self.steps + 1)), mean, takes)

    def _keep(self, name: str, where: Any, new: Tensor, takes: Bool[Tensor, "b"] | None) -> None:
        """Keeps what is new of the rows that take it: None for all."""
        kept = self.kept[name]
        kept[where] = new if takes is None else torch.where(takes.view(-1, *[1] * (new.ndim - 1)), new, kept[where])

    def is_quiet(self, places: Sequence[int]) -> bool:
        """Never known: only the device could say."""
        return False

    def flagged(self, places: Int[Tensor, "b"]) -> Float[Tensor, "b"]:
        """The step that flagged each row; 0 for none."""
        return self.kept["told"][places, self.steps]

    def row(self, place: int) -> Float[Tensor, "T+4"]:
        """See :class:`Eyes`; on the row's device, so that nobody waits for it."""
        return self.kept["told"][place, : self.steps + 4].clone()  # the place may be another row's when it is read

    def _recent(
        self, mean: Float[Tensor, "b d"], places: Int[Tensor, "b"], steps: Int[Tensor, "b"]
    ) -> Float[Tensor, "b d"]:
        """States as the guard reads them behind T: see :class:`demur.guards.sight.Recent`."""
        old = self.kept["means"][places, (steps + 1) % (self.steps + 1)].double()
        count = steps[:, None].double()
        window = (mean.double() * count - old * (count - self.steps)) / self.steps
        return torch.where(steps[:, None] > self.steps, window.float(), mean)

    def _signal(self, states: Float[Tensor, "b d"], at: Int[Tensor, "b"]) -> Float[Tensor, "b"]:
        """sigma of products, as :meth:`demur.signals.Anchors.of_products` takes it, without asking the device."""
        if not self.odds:
            harmful, harmless, length = products_there(states, at, *self.tables)
            harmful, harmless = (torch.log((1.0 - p / (length + EPS)).clamp(min=0) + EPS) for p in (harmful, harmless))
            return torch.sigmoid((harmful - harmless) / TAU)
        along, square, taken_out = whitened_products_there(states, at, *self.tables)
        length = (square - taken_out).clamp(min=0).sqrt()
        lean = torch.atanh((along / (length + (length == 0))).clamp(-INSIDE, INSIDE))
        steep, offset = self.odds
        return torch.sigmoid(steep[at] * lean + offset[at]).masked_fill(~length.isfinite(), torch.nan)

    def _scores(
        self,
        held: Float[Tensor, "b T"],
        sigma: Float[Tensor, "b"],
        at: Int[Tensor, "b"],
        steps: Int[Tensor, "b"],
        least: int,
        most: int,
    ) -> tuple[Float[Tensor, "b"], Float[Tensor, "b"] | float]:
        """Scores and the limits that hold for them: of signals up to T, and of windows behind it."""
        if self.tail is not None and least > self.steps:
            return 1.0 - sigma, self.tail
        known = held.isfinite().all(dim=1)
        score = torch.where(known, (self.score(held) - self.centre[at]) / self.scale[at], torch.nan)
        if self.tail is None or most <= self.steps:
            return score, self.limit
        behind = steps > self.steps
        limit = torch.full_like(score, self.limit)
        return torch.where(behind, 1.0 - sigma, score), torch.where(behind, self.tail, limit)


def limits_of(guard: Guard) -> tuple[float, float | None]:
    """The limits up to step T and behind it (None: nothing is looked at there). An infinite score is above both."""
    tail = None if guard.tail is None else min(guard.tail.threshold.value, _HIGHEST)
    return min(guard.prefix.threshold.value, _HIGHEST), tail


def first_answered(guard: Guard) -> int:
    """Behind which step a token that was fed may be one of the answer's own: a prompt may end with a stop token."""
    return 0 if guard.spec.pool == "generated" else 1


def columns(rows: Sequence[tuple[int, ...]], device: torch.device) -> Sequence[Int[Tensor, "b"]]:
    """Tuples of integers as one tensor a column, by one transfer."""
    return torch.tensor(rows, dtype=torch.long).to(device, non_blocking=True).unbind(dim=1)


Score = Callable[[Tensor], Tensor]
"""A detector's comparable scores by tensors."""


def score_of(detector: Detector, device: torch.device) -> Score | None:
    """See :data:`Score`; None for a detector that only NumPy can read."""
    if isinstance(detector, Last):
        return lambda held: _log(1.0 - held[:, -1])
    if isinstance(detector, Mean):
        return lambda held: _log(1.0 - held.mean(dim=1))
    if isinstance(detector, Autoencoder):
        layers = [
            (torch.from_numpy(weight).to(device, torch.float64), torch.from_numpy(bias).to(device, torch.float64))
            for weight, bias in zip(detector.weights, detector.biases, strict=True)
        ]

        def errors(held: Tensor) -> Tensor:
            out = held
            for i, (weight, bias) in enumerate(layers):
                out = torch.nn.functional.linear(out, weight, bias)
                out = out.relu() if i + 1 < len(layers) else out
            return _log((out - held).square().sum(dim=1))

        return errors
    return None


def _log(score: Tensor) -> Tensor:
    return score.clamp(min=_FLOOR).log()


def check_readable(guard: Guard) -> None:
    """Raises for a guard that can not be read off the states that an engine's head is given."""
    spec = guard.spec
    if spec.layer != "last" or spec.pool not in ("generated", "producing"):
        raise DemurError(
            f"a guard that reads layer {spec.layer!r}, pooled as {spec.pool!r}",
            "layer 'last', pool 'generated' or 'producing': the states that the head of the model is given",
            "fit one for these",
        )
