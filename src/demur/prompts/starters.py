"""The sets that come with the package, of our own writing: see :mod:`demur.prompts`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from demur.kinds import fits, shown
from demur.prompts.columns import Reading, prompt_of
from demur.prompts.jsonfiles import json_lines
from demur.types import DemurError, Prompt

SETS = ("harmless", "harmful")
"""The starter sets, by name."""
MORE_SETS = ("blunt", "everyday", "check", "matched")
"""Further sets: 120 harmful requests as plain as those of the starter set, 360 everyday ones, all harmless, 200 more
harmless ones of both kinds, and 420 pairs of a harmful and a harmless one that share words.
"""
SOURCE = "demur starter set"
EVERYDAY_IN_TURN = 3


def starter_file(name: str) -> Path:
    """Where a starter set stands."""
    return Path(__file__).with_name(f"{name}.jsonl")


def starter(name: Literal["harmless", "harmful"], n: int | None = None) -> list[Prompt]:
    """The first ``n`` prompts of a starter set, 1 <= n <= 120, or all of them.

    The order is fixed and goes round the categories, so that the counts of any two categories differ by at
    most one: ten prompts and more cover them all. Raises `DemurError` for another name or another ``n``.
    """
    if not isinstance(name, str) or name not in SETS:
        raise DemurError(f"starter set {shown(name)}", "harmless or harmful", "use `load` for everything else")
    prompts = _whole(name)
    if n is not None and not (fits(n, int) and 1 <= n <= len(prompts)):
        raise DemurError(f"n={n!r:.40}", f"1 to {len(prompts)}, the size of the starter set {name!r}")
    return prompts[:n]


def packaged(name: Literal["harmless", "harmful"], pairs: bool = True) -> list[Prompt]:
    """All prompts of one side that come with the package, in a fixed order: what guards are made of unless others are
    named.

    Harmless: starter and everyday ones in turn (one to three, 480), 200 more of these kinds, to check guards on
    (``check``), then those of the matched pairs (420), which share their words with harmful requests. Harmful: the
    starter set (120), the blunt ones (120), then those of the matched pairs (420). ``pairs`` False: without the last.
    Raises `DemurError` for another name.
    """
    first = starter(name)
    if not fits(pairs, bool):
        raise DemurError(f"pairs={shown(pairs)}", "true or false", f"the first n: packaged({name!r})[:n]")
    last = [prompt for prompt in _whole("matched") if pairs and prompt.harmful == (name == "harmful")]
    if name == "harmful":
        return [*first, *_whole("blunt"), *last]
    everyday = _whole("everyday")
    turns = [[one, *everyday[i * EVERYDAY_IN_TURN : (i + 1) * EVERYDAY_IN_TURN]] for i, one in enumerate(first)]
    return [*(prompt for turn in turns for prompt in turn), *_whole("check"), *last]


def ids() -> Iterator[str]:
    """The ids of all prompts that come with the package, set by set."""
    for name in (*SETS, *MORE_SETS):
        yield from (str(row.values["id"]) for row in json_lines(starter_file(name)))


def by_id(wanted: str) -> Prompt | None:
    """The prompt with this id of those that come with the package; None if none has it."""
    for name in (*SETS, *MORE_SETS):
        for row in json_lines(starter_file(name)):
            if row.values["id"] == wanted:  # reading a row as a prompt takes far longer than finding it
                return prompt_of(row, _reading(name))
    return None


def _whole(name: str) -> list[Prompt]:
    return [prompt_of(row, _reading(name)) for row in json_lines(starter_file(name))]


def _reading(name: str) -> Reading:
    return Reading(stem=name, name=SOURCE if name in SETS else f"demur {name} set")
