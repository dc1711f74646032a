"""How things are timed beside each other, and what a ratio is: see run.py for the way it is used."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

import numpy as np

Clock = Callable[[], float]
Steps = Generator[None, None, Any]
CLOCKS: Mapping[str, Clock] = {"wall": time.perf_counter, "cpu": time.process_time}
TOLERANCE = 1e-4
STEP_LIMIT = 1.01


@dataclass(frozen=True)
class Seconds:
    """How long one variant of a case took: one number for each run."""

    case: str
    variant: str
    runs: tuple[float, ...]


@dataclass(frozen=True)
class Ratio:
    """Pairwise ratios of runs that stood beside each other. ``target``: at least (or, with ``most``, at most)."""

    case: str
    what: str
    pairs: tuple[float, ...]
    target: float | None = None
    most: bool = False

    @property
    def median(self) -> float:
        return median(self.pairs)

    @property
    def met(self) -> bool | None:
        if self.target is None:
            return None
        return self.median <= self.target if self.most else self.median >= self.target


def timed(clock: Clock, call: Callable[[], Any]) -> tuple[float, Any]:
    begun = clock()
    value = call()
    return clock() - begun, value


def in_turn(clock: Clock, variants: Mapping[str, Callable[[], Any]], rounds: int) -> dict[str, list[float]]:
    """Seconds of every variant in every round; every other round goes backwards, so that drift favours nobody."""
    names, took = list(variants), {name: [] for name in variants}
    for i in range(rounds):
        for name in names if i % 2 == 0 else reversed(names):
            took[name].append(timed(clock, variants[name])[0])
    return took


def in_lockstep(
    clock: Clock, variants: Mapping[str, Callable[[], Steps]]
) -> tuple[dict[str, list[float]], dict[str, Any]]:
    """Seconds of every step of generations that advance one step each, in rotating order; and what they returned.

    The time from the last step to the end of the iteration is added to the last step.
    """
    names, running = list(variants), {name: make() for name, make in variants.items()}
    took: dict[str, list[float]] = {name: [] for name in names}
    returned: dict[str, Any] = {}
    turn = 0
    while running:
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            if name not in running:
                continue
            spent, (ended, value) = timed(clock, lambda name=name: _advance(running[name]))
            if ended:
                took[name][-1] += spent
                returned[name] = value
                del running[name]
            else:
                took[name].append(spent)
        turn += 1
    return took, returned


def _advance(steps: Steps) -> tuple[bool, Any]:
    """One step further: whether that was the end, and what the iteration returned."""
    try:
        next(steps)
    except StopIteration as end:
        return True, end.value
    return False, None


def finished(steps: Steps) -> Any:
    """What an iteration returned."""
    while True:
        ended, value = _advance(steps)
        if ended:
            return value


# ---------------------------------------------------------------------------------------------------------------------
# Comparing


def same_tokens(case: str, got: Any, expected: Any) -> None:
    got, expected = (np.asarray(x) for x in (got, expected))
    if got.shape != expected.shape or (got != expected).any():
        raise SystemExit(f"{case}: tokens differ\n  {got.tolist()}\n  {expected.tolist()}")


def same(case: str, got: np.ndarray, expected: np.ndarray) -> None:
    """Within the tolerance, relative to the norm of the last axis."""
    off = np.linalg.norm(got - expected, axis=-1) / np.linalg.norm(expected, axis=-1)
    if not (off <= TOLERANCE).all():
        raise SystemExit(f"{case}: off by {off.max():.2e} of the norm, expected at most {TOLERANCE}")


def pairwise(top: Sequence[float], bottom: Sequence[float]) -> tuple[float, ...]:
    return tuple(a / b for a, b in zip(top, bottom, strict=True))


def overhead(
    case: str,
    what: str,
    rounds: Sequence[Mapping[str, Sequence[float]]],
    name: str,
    without: str,
    whole_limit: float | None,
) -> list[Ratio]:
    """Whole generations, pair by pair; steps, pair by pair, without each generation's last; and what that adds.

    The last step has what a generation does once: the pass that feeds the last token back (``generated`` is defined by
    it, which costs 1/T and a little; no limit is set for that whole), and putting the traces together.
    """
    whole = pairwise([sum(took[name]) for took in rounds], [sum(took[without]) for took in rounds])
    steps = [pair for took in rounds for pair in pairwise(took[name][:-1], took[without][:-1])]
    once = [(took[name][-1] - took[without][-1]) / sum(took[without]) for took in rounds]
    return [
        Ratio(case, f"{what} / no capture, whole", whole, whole_limit, most=True),
        Ratio(case, f"{what} / no capture, a step", tuple(steps), STEP_LIMIT, most=True),
        Ratio(case, f"{what}: last step's extra, share of whole", tuple(once)),
    ]


def listed(case: str, took: Mapping[str, Sequence[float]]) -> list[Seconds]:
    return [Seconds(case, name, tuple(runs)) for name, runs in took.items()]


def say(line: str) -> None:
    """Progress, apart from the report."""
    print(line, file=sys.stderr, flush=True)
