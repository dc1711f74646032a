"""SRI Guard as a defense: while the answer is written, and on the finished one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Self

from demur.defenses.setup import Setup
from demur.guards.guard import Guard
from demur.guards.online import Guarded, Watch
from demur.traces import Trace
from demur.types import DemurError, Sampler, Verdict


def _guard(setup: Setup, name: str) -> Guard:
    if setup.guard is None:
        raise DemurError(f"{name} without a guard", "one that was fitted", "run: demur guard fit")
    return setup.guard


@dataclass(frozen=True)
class Online:
    """SRI Guard while the answer is written: what :class:`demur.guards.Watch` does."""

    guard: Guard
    name: ClassVar[str] = "sri-guard"
    active: ClassVar[bool] = True
    stops: ClassVar[bool] = True
    outermost: ClassVar[bool] = True

    @classmethod
    def made(cls, setup: Setup) -> Self:
        """With the guard that was fitted. Raises if there is none."""
        return cls(_guard(setup, cls.name))

    def __call__(self, sampler: Sampler) -> Guarded:
        """The sampler, watched."""
        return Watch(self.guard)(sampler)


@dataclass(frozen=True)
class Offline:
    """SRI Guard on finished generations."""

    guard: Guard
    name: ClassVar[str] = "sri-guard-offline"

    @classmethod
    def made(cls, setup: Setup) -> Self:
        """With the guard that was fitted. Raises if there is none."""
        return cls(_guard(setup, cls.name))

    def review(self, traces: Sequence[Trace]) -> list[Verdict]:
        """The guard's verdicts. What it can not judge is not shown, as online. They name no step: the guard acts on the
        finished answer.
        """
        found = self.guard.judge_all(traces)
        return [replace(verdict, flagged=verdict.flagged is not False, step=None) for verdict in found]
