"""Whether a list of prompts is sorted: its first rows are then of some kinds only, and its parts are not alike.

A list of whom nobody can tell how it is sorted is taken to be mixed.
"""

from __future__ import annotations

import re
import warnings
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from itertools import islice, pairwise

from demur.prompts.columns import Reading, prompt_of
from demur.prompts.rows import Rows
from demur.types import DemurError, DemurWarning, Prompt

MOST = 5_000
"""So many rows behind the first ones are looked at, to see whether these are like the others."""
FEWEST = 12
"""Fewer rows may stand in some order by chance."""


def sorted_by(prompts: Sequence[Prompt]) -> str:
    """What prompts are sorted by, in a word: ``category`` where those of one stand together (half as many changes as in
    a random order, or fewer), ``alphabet`` or ``length``. Empty where no order is seen.
    """
    if len(prompts) < FEWEST:
        return ""
    kinds = [prompt.category for prompt in prompts]
    shares = [count / len(kinds) for count in Counter(kinds).values()]
    changes = sum(one != other for one, other in pairwise(kinds))
    if 1 < len(shares) < len(kinds) and changes <= (len(kinds) - 1) * (1 - sum(share**2 for share in shares)) / 2:
        return "category"
    texts = [prompt.text.casefold() for prompt in prompts]
    words = [re.sub(r"\d+", "0", text) for text in texts]  # a running number is no order
    if words[0] != words[-1] and _ordered(texts) and _ordered(words):
        return "alphabet"
    lengths = [len(text) for text in texts]
    return "length" if max(lengths) > 2 * min(lengths) and _ordered(lengths) else ""


def _ordered(values: Sequence[str] | Sequence[int]) -> bool:
    rising = all(one <= other for one, other in pairwise(values))  # type: ignore[operator]
    return rising or all(one >= other for one, other in pairwise(values))  # type: ignore[operator]


def say_sorted(name: str, prompts: Sequence[Prompt], n: int, others: Sequence[Prompt] = ()) -> None:
    """Warns where the first ``n`` of a list are not like those behind them, since the list is sorted. ``others`` come
    behind ``prompts``.
    """
    more = [*prompts[n:], *others][:MOST]
    every = [*prompts[:n], *more]
    if not more or n < 1 or not (by := sorted_by(every)):
        return
    kinds, all_kinds = ({prompt.category for prompt in some} for some in (prompts[:n], every))
    if by == "category" and kinds == all_kinds:
        return
    of = f"of {len(kinds)} of {len(all_kinds)} categories" if by == "category" else "not like the others"
    warnings.warn(
        f"{name} is sorted by {by}, and the first {n} of its rows are taken, which are {of}; mix its rows, or take all",
        DemurWarning,
        stacklevel=3,
    )


def rest_of(rows: Rows, reading: Reading) -> list[Prompt]:
    """Prompts of rows that nobody takes, up to :data:`MOST` of them or the first that can not be read."""
    found: list[Prompt] = []
    with suppress(DemurError), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found.extend(prompt_of(row, reading) for row in islice(rows, MOST))
    return found
