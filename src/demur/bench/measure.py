"""How variants are timed beside each other, and what a ratio is.

Variants take turns, each round in another order, and a ratio is always taken of two runs of one round, which stood
beside each other. Wall time and processor time are read of the same runs: on a machine that others use too, look at
processor time; on an accelerator, which a processor only waits for, at wall time.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any


@dataclass(frozen=True)
class Took:
    """Seconds of one run: by the clock on the wall, and of the processor (all threads of this process)."""

    wall: float
    processor: float


@dataclass(frozen=True)
class Compared:
    """Ratios of two variants, one for each round: of ``what``, such as ``capture / bare``, in wall and processor time.

    Above 1: the first takes longer. ``most``: what its median may be at most, where that was promised.
    """

    what: str
    wall: tuple[float, ...]
    processor: tuple[float, ...]
    most: float | None = None

    @property
    def met(self) -> bool | None:
        """Whether the promise holds, in the steadier of the two times; None where there is none."""
        return None if self.most is None else median(self.steadier) <= self.most

    @property
    def steadier(self) -> tuple[float, ...]:
        """The time whose ratios are closer together."""
        return min(self.wall, self.processor, key=lambda ratios: (max(ratios) - min(ratios)) / median(ratios))


def in_turns(
    variants: Mapping[str, Callable[[], Any]],
    rounds: int,
    waited: Callable[[], object] = lambda: None,
    told: Callable[[str], object] = lambda what: None,
) -> tuple[dict[str, list[Took]], dict[str, Any]]:
    """Every variant once a round; what each took, and what its last run gave. ``waited`` returns when the device has
    done all its work. A round begins with another variant than the one before, and every second one goes backwards.
    """
    names = list(variants)
    took: dict[str, list[Took]] = {name: [] for name in names}
    gave: dict[str, Any] = {}
    for turn in range(rounds):
        order = names[turn // 2 % len(names) :] + names[: turn // 2 % len(names)]
        for name in order if turn % 2 == 0 else reversed(order):
            told(f"round {turn + 1} of {rounds}: {name}")
            waited()
            wall, processor = time.perf_counter(), time.process_time()
            gave[name] = variants[name]()
            waited()
            took[name].append(Took(time.perf_counter() - wall, time.process_time() - processor))
    return took, gave


def compared(took: Mapping[str, Sequence[Took]], top: str, bottom: str, most: float | None = None) -> Compared:
    """The ratio of two variants, round by round."""
    pairs = list(zip(took[top], took[bottom], strict=True))
    wall, processor = (
        tuple(getattr(a, kind) / max(getattr(b, kind), 1e-9) for a, b in pairs) for kind in ("wall", "processor")
    )
    return Compared(f"{top} / {bottom}", wall, processor, most)
