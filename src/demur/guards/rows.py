"""The rows of a batch under a guard: how each stands, its signal so far, and when it is flagged.

A row is looked at after steps of its own, and never for a state that it merely holds: once it has ended, nothing is
left to stop (docs/decisions/0010-row-states.md). Both guards at work, :class:`~demur.guards.online.Watch` and the
stopping criteria for transformers, are made of these rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import IntEnum

import numpy as np
from jaxtyping import Float
from numpy.typing import NDArray

from demur.guards.guard import Guard
from demur.signals import Anchors


class RowState(IntEnum):
    """How a row stands after a step. The first three are what a sampler does, the others what the guard does."""

    ENDED = 0
    """It has taken its last step. Its neighbours' steps are nothing to it."""
    RUNNING = 1
    """It takes its steps, and is looked at."""
    WAITING = 2
    """It has finished a canvas, and its neighbours have not; it will go on. Nothing is new, so nothing is looked at."""
    FLAGGED = 3
    """It is above the limit: the next step writes the refusal over its answer."""
    STOPPED = 4
    """The refusal stands in its place."""


OVER = frozenset({RowState.ENDED, RowState.FLAGGED, RowState.STOPPED})
"""States in which a row takes no more steps of the sampler."""


@dataclass(eq=False)
class Row:
    """One row: its state, and what was seen of it.

    ``sigma`` holds T values, of which the first ``steps`` are known; the others repeat the last one, as unfinished
    signals are scored. Where the guard looks at ``whole`` answers, ``beyond`` is the signal of the steps behind T, of
    the last T tokens each. ``looked`` is the step after which the guard has looked for the last time. ``score`` and
    ``flagged_at`` are those of the look that flagged it (0: never).
    """

    sigma: Float[NDArray[np.float64], "T"]
    whole: bool = False
    beyond: list[float] = field(default_factory=list)
    state: RowState = RowState.RUNNING
    steps: int = 0
    looked: int = 0
    flagged_at: int = 0
    score: float = 0.0

    @property
    def is_watched(self) -> bool:
        """Whether steps are still to come that the guard looks at: none once the row is over, and none behind T unless
        it looks at whole answers.
        """
        return self.state not in OVER and (self.whole or self.steps < len(self.sigma))

    def observe(self, state: RowState, sigma: float) -> None:
        """Takes note of a step: how the row stands after it and, if it took part, its signal."""
        if self.state in OVER:
            return
        self.state = state
        if state is not RowState.RUNNING or not self.is_watched:
            return
        if self.steps < len(self.sigma):
            self.sigma[self.steps :] = sigma
        else:
            self.beyond.append(sigma)
        self.steps += 1

    def end(self) -> None:
        """No step follows."""
        if self.state not in OVER:
            self.state = RowState.ENDED

    def is_due(self, every: int) -> bool:
        """Whether the guard looks at it now: after every so many of its steps, after step T, and after its last one."""
        if self.steps == self.looked or self.flagged_at:
            return False
        return self.steps % every == 0 or self.steps == len(self.sigma) or self.state is RowState.ENDED

    def flag(self, score: float, at: int) -> None:
        """Its signal is above the limit of step ``at``."""
        self.state, self.score, self.flagged_at = RowState.FLAGGED, score, at

    def finished(self, anchors: Anchors, phi: Float[NDArray[np.float32], "d"]) -> Float[NDArray[np.float64], "T"]:
        """The whole signal, as offline: a row that ended before T holds its last state, ``phi``, against the anchors of
        every later step.
        """
        sigma = self.sigma.copy()
        if 0 < self.steps < len(sigma):
            held = np.repeat(phi[None, None], len(sigma) - self.steps, axis=1)
            sigma[self.steps :] = anchors.at(held, self.steps)[0]
        return sigma


def new_rows(guard: Guard, n: int) -> list[Row]:
    """So many rows of which nothing has been seen."""
    return [Row(np.zeros(guard.spec.steps), whole=guard.tail is not None) for _ in range(n)]


def look(guard: Guard, rows: Sequence[Row], every: int = 1) -> None:
    """Flags the rows that are due and above the limit of their step. Rows at one step are scored together; their scores
    do not depend on it. A signal that is not finite counts as above.
    """
    due, last = [row for row in rows if row.is_due(every)], guard.spec.steps
    for row in due:
        if row.steps > last and guard.tail is not None:
            row.looked, score = row.steps, 1.0 - row.beyond[-1]
            if guard.tail.threshold.exceeded(np.array(score)):
                row.flag(score, row.steps)
    for t in sorted({row.steps for row in due if row.steps <= last}):
        at_t = [row for row in due if row.steps == t]
        scores = guard.prefix.score_held(np.stack([row.sigma for row in at_t]), t)
        above = guard.prefix.threshold.exceeded(scores)
        for row, score, exceeded in zip(at_t, scores.tolist(), above.tolist(), strict=True):
            row.looked = t
            if exceeded:
                row.flag(score, t)


def finished(
    guard: Guard, rows: Sequence[Row], phi: Float[NDArray[np.float32], "b d"]
) -> Float[NDArray[np.float64], "b T"]:
    """The rows' whole signals, had each ended here; ``phi`` are their last pooled states."""
    return np.stack([row.finished(guard.anchors, own) for row, own in zip(rows, phi, strict=True)])
