"""The two starter sets, of our own writing: see :mod:`demur.prompts`."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from demur.prompts.columns import Reading, prompt_of
from demur.prompts.jsonfiles import json_lines
from demur.types import DemurError, Prompt

SETS = ("harmless", "harmful")
"""The starter sets, by name."""
SOURCE = "demur starter set"


def starter_file(name: str) -> Path:
    """Where a starter set stands."""
    return Path(__file__).with_name(f"{name}.jsonl")


def starter(name: Literal["harmless", "harmful"], n: int | None = None) -> list[Prompt]:
    """The first ``n`` prompts of a starter set, 1 <= n <= 120, or all of them.

    The order is fixed and goes round the categories, so that the counts of any two categories differ by at
    most one: ten prompts and more cover them all. Raises `DemurError` for another name or another ``n``.
    """
    if name not in SETS:
        raise DemurError(f"starter set {name!r}", "harmless or harmful", "use `load` for everything else")
    reading = Reading(stem=name, name=SOURCE)
    prompts = [prompt_of(row, reading) for row in json_lines(starter_file(name))]
    if n is not None and not 1 <= n <= len(prompts):
        raise DemurError(f"n={n}", f"1 to {len(prompts)}, the size of the starter set {name!r}")
    return prompts[:n]
