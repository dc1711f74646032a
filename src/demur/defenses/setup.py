"""What a defense is made from, beside its own settings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from demur.guards.guard import Guard
from demur.types import Prompt


@dataclass(frozen=True)
class Setup:
    """What a line of defenses stands in: the model that it defends (``subject``), the ``guard`` that was fitted for it,
    harmless prompts to calibrate on, and ``alpha``, the share of harmless prompts that a filter may flag.

    A defense whose class has ``made(setup, **settings)`` is made by it; any other one by its settings alone.
    """

    guard: Guard | None = None
    subject: Any = None
    calibrate: Sequence[Prompt] = ()
    alpha: float = 0.01


@cache
def loaded(name: str) -> Any:
    """A model of this process that a defense asks."""
    from demur.models import load

    return load(name)
