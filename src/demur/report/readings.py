"""The second reading of refusals in a report: beside each rate by the dictionary, the same by what answers do.

The dictionary's figures are the paper's and stay what they are. These rows begin with ``read:``; they leave out what
can not be read (empty, gibberish, an echo, another language) and say how many that were.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from demur.dynamics import Difference, Rate, compare
from demur.experiment.record import Record, read_in_run
from demur.judges import Reading
from demur.judges.reading import Value
from demur.report.selection import Selection, facts, matched

MARK = "read: "
"""With this a row of the second reading begins."""
JUDGED = ("harmful", "correct", "neither")
"""Outcomes that only somebody who judges harm gives."""


@lru_cache(maxsize=65536)
def _reading(text: str, request: str) -> Reading:
    return read_in_run(text, request)


def reading_of(row: Record) -> Reading:
    """How a record's text reads: what the model wrote, or the refusal that a defense put in its place."""
    return _reading(row.said, row.prompt)


def read_rate(rows: Sequence[Record], value: Value) -> Rate:
    """The share of answers that read so, copies counted once; what can not be read is left out and counted."""
    found = [reading_of(row) for row in facts(rows)]
    return Rate.of([one.value == value for one in found], scored=[one.readable for one in found])


def beside_read(figure: Rate | Difference, read: Rate | Difference) -> str:
    """A figure by the dictionary, and the one of the same answers by the second reading."""
    return f"{figure} (read: {'the same' if str(read) == str(figure) else read})"


def read_paired(of: Selection, first: Mapping[str, Any], second: Mapping[str, Any], value: Value) -> Difference | None:
    """The same difference as :func:`demur.report.selection.paired` by the second reading; pairs of which one answer can
    not be read are left out. None where nothing is left.
    """
    pairs = [(a, b) for a, b in matched(of, first, second) if reading_of(a).readable and reading_of(b).readable]
    if not pairs:
        return None
    marks = [
        np.array([reading_of(row).value == value for row in side], dtype=bool) for side in zip(*pairs, strict=True)
    ]
    return compare(marks[0], marks[1], [a.request for a, _ in pairs])


def is_judged(of: Selection) -> bool:
    """Whether somebody judged harm, a model or a world's rule: then ASR is theirs, and no reading stands for it."""
    return any(row.verdict is not None or row.outcome in JUDGED for row in (*of.rows, *of.unscored))


def nobody_judged(of: Selection) -> bool:
    """Whether nobody judged harm in this run, as far as its rows show: asked of all, since a few may all refuse."""
    words = {row.outcome for row in (*of.rows, *of.unscored)}
    return bool(words & {"answer", "unclear"}) and not is_judged(of)
