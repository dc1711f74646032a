"""A request under a guard, and what is told of it afterwards."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(eq=False)
class Request:
    """A request under a guard. ``out`` are its tokens so far, where the engine shows them: its own list, whose length
    is what counts. ``key`` is what the engine knows it by as long as it lives. ``drawn``: its settings of the draw but
    the temperature, by the names of :data:`demur.guards.drawing.NEUTRAL`.
    """

    guard: str
    id: str
    key: Any
    out: list[int] | None
    stops: tuple[int, ...]
    most: int | None = None
    least: int = 0
    temperature: float = 0.0
    number: int = 0
    place: int = -1
    steps: int = 0
    written: int = -1
    lost: str = ""
    ended_by_us: bool = False
    notes: tuple[str, ...] = ()
    drawn: Mapping[str, Any] = field(default_factory=dict)

    def has_ended(self, written: int) -> bool:
        """Whether the answer was over before this row: an engine may compute one step more than it needs."""
        if self.most is not None and written >= self.most:
            return True
        return bool(self.out) and written >= self.least and self.out is not None and self.out[-1] in self.stops


@dataclass(frozen=True)
class Verdict:
    """What is told of a request; :meth:`plain` is what leaves the engine.

    ``watched``: whether every step up to ``looked`` was looked at: all of ``steps``, or the first T where the guard
    does not look at whole answers. ``step`` is the one that flagged it, counted from 1, ``acted`` whether the answer
    was ended for it. ``sigma`` are the first T of its steps.
    """

    id: str
    number: int
    guard: str
    mode: str
    watched: bool
    flagged: bool | None
    step: int | None
    acted: bool
    score: float | None
    limit: float | None
    steps: int
    sigma: tuple[float, ...]
    last: float | None
    worst: float | None
    why: str
    looked: int = 0
    notes: tuple[str, ...] = ()

    @property
    def status(self) -> str:
        """What came of it, in words."""
        return "not watched" if not self.watched else "flagged" if self.flagged else "let pass"

    def plain(self) -> dict[str, Any]:
        """As JSON may hold it; a number that is not finite is None."""
        numbers = {"score": _finite(self.score), "limit": _finite(self.limit), "last": _finite(self.last)}
        numbers["worst"] = _finite(self.worst)
        return {
            **vars(self),
            **numbers,
            "sigma": [_finite(value) for value in self.sigma],
            "notes": list(self.notes),
            "status": self.status,
        }


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None
