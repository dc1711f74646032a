"""Which places of a growing answer are final: the text of these may leave, and of no others.

What a sampler promises decides. Where it says ``commits_are_final``, a written place is. Where steps say what they
passed, finished canvases and finished blocks are. Of a sampler that says neither, nothing is final before the row is
over: its text leaves at once, at the end.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from jaxtyping import Bool, Int
from numpy.typing import NDArray

from demur.types import Step


class Settled:
    """Reads a batch's steps in their order; gives how many places of every row, from its first, are final.

    ``places`` open places stand at the end of every row.
    """

    def __init__(self, sampler: Any, rows: int, places: int) -> None:
        while hasattr(sampler, "undefended"):
            sampler = sampler.undefended
        self.at_once = bool(getattr(sampler, "commits_are_final", False))
        self.places = places
        self.counts: Int[NDArray[np.int64], "b"] = np.zeros(rows, dtype=np.int64)
        self.reached: Bool[NDArray[np.bool_], "b p"] | None = None

    def __call__(self, step: Step, open_: Bool[NDArray[np.bool_], "b p"]) -> Int[NDArray[np.int64], "b"]:
        """How many are final after the step; ``open_``: which places are open after it, on the host."""
        final = ~open_ if self.at_once else ~open_ & self._finished(step, open_)
        counts = np.where(final.all(axis=1), self.places, final.argmin(axis=1))
        self.counts = np.maximum(self.counts, counts)
        return self.counts

    def _finished(self, step: Step, open_: Bool[NDArray[np.bool_], "b p"]) -> Bool[NDArray[np.bool_], "b p"]:
        """The places in canvases or blocks that will not be passed again."""
        first = step.ids.shape[1] - self.places
        columns = first + np.arange(self.places)
        if step.span == "canvas":
            return np.broadcast_to(columns < step.start, open_.shape)
        if step.reached is None:
            return np.zeros_like(open_)
        reached = step.reached[:, first:].cpu().numpy()
        before, self.reached = self.reached, reached
        if before is None:
            return np.zeros_like(open_)
        grew = (reached & ~before).any(axis=1, keepdims=True)
        return np.asarray(before & grew)
