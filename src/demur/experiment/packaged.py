"""All prompts that come with the package, as one world: a recipe needs no file and no data set for it.

Its sets are mixed evenly all along. A role takes a part of the list, so every role holds requests of every set:
what a guard is calibrated on is like what it is tested on.
"""

from __future__ import annotations

from collections.abc import Sequence

from demur.prompts import packaged
from demur.types import Prompt
from demur.worlds import Listed


class Packaged(Listed):
    """All sets that come with the package: 1,100 harmless prompts, 660 harmful ones."""

    name = "packaged"

    def __init__(self) -> None:
        self.harmless = mixed(packaged("harmless"))
        self.harmful = mixed(packaged("harmful"))


def mixed(prompts: Sequence[Prompt]) -> list[Prompt]:
    """The prompts of several sources (a set each), such that every stretch holds about the same share of each; each
    set keeps its own order.
    """
    by_set: dict[str, list[Prompt]] = {}
    for prompt in prompts:
        by_set.setdefault(prompt.source, []).append(prompt)
    placed = [((i + 0.5) / len(of), source, prompt) for source, of in by_set.items() for i, prompt in enumerate(of)]
    return [prompt for _, _, prompt in sorted(placed, key=lambda one: one[:2])]
