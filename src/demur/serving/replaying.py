"""Judging a text that another engine writes: the same tokens go through a model that is here, and its guard looks.

The model is the one that writes, or a surrogate. The text is read anew at every look, since its last tokens may change
as it grows: plain, and slow only for long texts.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from demur.guards import Guard
from demur.guards.rows import Row, RowState, look, new_rows
from demur.models.control import answer_row, control_tokens
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

    ``longest``: so many tokens of an answer are read at most. What is longer, or goes on behind an end of sequence, is
    not watched: nobody has looked at the rest.
    """

    model: Model
    guard: Guard
    longest: int = 8192
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

    @cached_property
    def controls(self) -> Sequence[str]:
        """The texts that the model's tokenizer reads as control tokens."""
        found = control_tokens(self.model.tokenizer, self.model.chat.template or "")
        return sorted({*found.values()})

    def __call__(self, prompt: Prompt, text: str, wanted: Callable[[], bool] = lambda: True) -> Judged:
        """The guard's verdict on a text so far, as if it had looked after every token. Raises as
        :func:`demur.traces.teacher_forced` does. ``wanted`` is asked once it is this look's turn.
        """
        guard, key = self.guard, (self.guard.spec.layer, self.guard.spec.pool)
        if not text:
            return NOTHING
        with self._one:
            if not wanted():
                return Judged(not_watched("nobody waits for it"))
            tokens, unread = self._read(text)
            if not tokens:
                return Judged(not_watched(unread))
            (trace,) = teacher_forced(
                self.model, [prompt], [tokens], steps=guard.spec.steps, length=len(tokens), pools=[key],  # type: ignore[list-item]
                sampler=self.sampler,
            )  # fmt: skip
        (row,) = new_rows(guard, 1)
        signal = [*guard.anchors.signal(trace)[: trace.steps], *guard.anchors.beyond(trace)]
        for value in signal:
            row.observe(RowState.RUNNING, float(value))
            look(guard, [row])
            if row.state is RowState.FLAGGED:
                break
        found = self._judged(row, trace.steps)
        return replace(found, verdict=not_watched(unread)) if unread and not found.verdict.flagged else found

    def _read(self, text: str) -> tuple[list[int], str]:
        """The tokens of a text that are read, and why the rest is not; empty where there is no rest."""
        tokens = answer_row(self.model.tokenizer, text)
        if not tokens:
            return [], "the text has no tokens here"
        stops = {*self.model.stop_ids}
        end = next((i + 1 for i, token in enumerate(tokens) if token in stops), len(tokens))
        if end < len(tokens):
            return tokens[:end], "the text goes on behind an end of sequence"
        unread = f"the text has more than {self.longest} tokens" if len(tokens) > self.longest else ""
        return tokens[: self.longest], unread

    def _judged(self, row: Row, steps: int) -> Judged:
        verdict, limit = verdict_of(self.guard, row, steps)
        return Judged(verdict, limit, sigma_of(row), steps, row.looked)
