"""Judging a text that another engine writes: the same tokens go through a model that is here, and its guard looks.

The model is the one that writes, or a surrogate. The text is read anew at every look, since its last tokens may change
as it grows: plain, and slow only for long texts.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from demur.guards import Guard
from demur.guards.rows import Row, RowState, look, new_rows
from demur.samplers.build import made_again
from demur.serving.verdicts import not_watched, sigma_of, verdict_of
from demur.traces import spec_of, teacher_forced
from demur.types import DemurError, Model, Need, Prompt, Verdict


@dataclass(frozen=True, eq=False)
class Judged:
    """What a guard says of a text so far. ``steps`` are its tokens here, ``looked`` those that the guard looked at."""

    verdict: Verdict
    limit: float | None = None
    sigma: Sequence[float] | None = None
    steps: int = 0
    looked: int = 0


NOTHING = Judged(not_watched("no text came"))


@dataclass(frozen=True, eq=False)
class Replay:
    """A guard, and the model that it belongs to. Raises for a diffusion model, whose steps no text tells, and for a
    guard of another model.

    ``longest``: so many tokens of an answer are read at most; what is longer is not watched behind them.
    """

    model: Model
    guard: Guard
    longest: int = 2048
    _one: Any = field(
        default_factory=threading.Lock, init=False, repr=False
    )  # a tokenizer is not made for several threads

    def __post_init__(self) -> None:
        if Need.CAUSAL not in self.model.offers:
            raise DemurError(
                f"a proxy that replays on the {self.model.kind} model {self.model.name}",
                "a causal model: how a diffusion model came to a text can not be read off it",
                "serve the model itself with demur serve",
            )
        self.guard.check(spec_of(self.model, self.sampler, self.guard.spec.steps, steps=self.guard.spec.steps))

    @cached_property
    def sampler(self) -> Any:
        """The one that the guard was calibrated under. How the engine samples is not known here."""
        spec = self.guard.spec
        return made_again(spec.sampler, {name: value for name, value in spec.settings.items() if name != "length"})

    def __call__(self, prompt: Prompt, text: str) -> Judged:
        """The guard's verdict on a text so far, as if it had looked after every token. Raises as
        :func:`demur.traces.teacher_forced` does.
        """
        guard, key = self.guard, (self.guard.spec.layer, self.guard.spec.pool)
        if not text:
            return NOTHING
        with self._one:
            (trace,) = teacher_forced(
                self.model, [prompt], [text], steps=guard.spec.steps, length=self.longest, pools=[key],  # type: ignore[list-item]
                sampler=self.sampler,
            )  # fmt: skip
        (row,) = new_rows(guard, 1)
        signal = [*guard.anchors.signal(trace)[: trace.steps], *guard.anchors.beyond(trace)]
        for value in signal:
            row.observe(RowState.RUNNING, float(value))
            look(guard, [row])
            if row.state is RowState.FLAGGED:
                break
        return self._judged(row, trace.steps)

    def _judged(self, row: Row, steps: int) -> Judged:
        verdict, limit = verdict_of(self.guard, row, steps)
        return Judged(verdict, limit, sigma_of(row), steps, row.looked)
