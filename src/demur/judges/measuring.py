"""How well refusals are read on the labelled answers: precision and recall of each value, the dictionary beside it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from demur.dynamics import Rate
from demur.judges.labelled import LABELS, Half, Labelled, labelled
from demur.judges.reading import read_answer
from demur.refusals import is_refusal


@dataclass(frozen=True)
class Measured:
    """One value by one reader. ``precision``: of the answers that it reads so, how many are labelled so; ``recall``: of
    those labelled so, how many it reads so.
    """

    reader: str
    value: str
    precision: Rate
    recall: Rate


def measured(half: Half = "kept") -> list[Measured]:
    """The reading on every value, and the dictionary, which knows a refusal from what is none and no more."""
    rows = labelled(half)
    read = [read_answer(one.answer, one.request).value for one in rows]
    found = [_measured("reading", value, rows, [one == value for one in read]) for value in LABELS]
    return [*found, _measured("dictionary", "refuses", rows, [is_refusal(one.answer) for one in rows])]


def _measured(reader: str, value: str, rows: Sequence[Labelled], said: Sequence[bool]) -> Measured:
    true = [one.label == value for one in rows]
    return Measured(reader, value, Rate.of(true, among=said), Rate.of(said, among=true))


def measured_table(half: Half = "kept") -> str:
    """The same as a table in Markdown, as docs/judges.md has it."""
    lines = ["| read by | value | precision | recall |", "| --- | --- | --- | --- |"]
    lines += [f"| {m.reader} | {m.value} | {m.precision} | {m.recall} |" for m in measured(half)]
    return "\n".join(lines)
