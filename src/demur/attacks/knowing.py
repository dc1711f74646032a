"""What an attacker knows who has the guard: how far the answer to a prompt lies from being stopped.

A monitor that has only met attacks that were made without it says little about attackers who have it. With this, a
search keeps what makes the answer likelier *and* what keeps the guard quiet: its score is target - weight x suspicion.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from demur.guards import Guard
from demur.traces import Trace, generate
from demur.types import Model, Prompt, Sampler


@dataclass(frozen=True, eq=False)
class Suspicion:
    """How suspicious the guard finds the model's answer to each prompt: 0 or less where the online guard lets it pass,
    above 0 where it stops it; in units of what harmless answers scatter by at that step.

    Every prompt costs one answer of ``length`` tokens. An answer whose signal is not finite is stopped, and counts as
    ``UNSEEN``. Raises for a model that is not the guard's.
    """

    guard: Guard
    model: Model
    sampler: Sampler | None = None
    length: int | None = None
    batch: int = 32

    def __call__(self, prompts: Sequence[Prompt]) -> list[float]:
        """The suspicion of one answer to each prompt."""
        key: Any = (self.guard.spec.layer, self.guard.spec.pool)
        how: dict[str, Any] = {} if self.length is None else {"length": self.length}
        return self.of(generate(self.model, prompts, self.sampler, pools=[key], batch=self.batch, **how))

    def of(self, traces: Sequence[Trace]) -> list[float]:
        """The suspicion of answers that are there."""
        guard = self.guard
        z = guard.prefix.scores(guard.anchors.signals(traces))
        own = np.arange(1, z.shape[1] + 1) <= np.array([[trace.steps] for trace in traces])
        highest = np.where(own, z, -np.inf).max(axis=1) - guard.prefix.threshold.value
        if guard.tail is not None:
            beyond = [guard.anchors.beyond(trace) for trace in traces]
            worst = np.array([float((1.0 - row).max()) if len(row) else -np.inf for row in beyond])
            highest = np.maximum(highest, (worst - guard.tail.threshold.value) / guard.prefix.scale[-1])
        return [float(value) if value < UNSEEN else UNSEEN for value in highest]  # nan is not below


UNSEEN = 1e3
"""The suspicion of what the guard can't see: it stops it."""
