"""How well refusals are read on the labelled answers: precision and recall of each value, the dictionary beside it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

from demur.dynamics import Rate
from demur.judges.labelled import HALVES, LABELS, UNSEEN, Half, Labelled, labelled
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


def measured(rows: Sequence[Labelled]) -> list[Measured]:
    """The reading on every value, and the dictionary, which knows a refusal from what is none and no more."""
    read = [_read(one) for one in rows]
    found = [_measured("reading", value, rows, [one == value for one in read]) for value in LABELS]
    return [*found, _measured("dictionary", "refuses", rows, [is_refusal(one.answer) for one in rows])]


@cache
def _read(one: Labelled) -> str:
    return read_answer(one.answer, one.request).value


def _measured(reader: str, value: str, rows: Sequence[Labelled], said: Sequence[bool]) -> Measured:
    true = [one.label == value for one in rows]
    return Measured(reader, value, Rate.of(true, among=said), Rate.of(said, among=true))


def measured_table() -> str:
    """The same as a table in Markdown, one part after the other, unseen ones first, as docs/judges.md has it."""
    lines = ["| author, part | read by | value | precision | recall |", "| --- | --- | --- | --- | --- |"]
    parts: list[tuple[int, Half]] = [*UNSEEN]  # then those seen
    authors = sorted({one.author for one in labelled()}, reverse=True)
    parts += [(a, half) for a in authors for half in HALVES if (a, half) not in parts]
    for author, half in parts:
        if rows := labelled(half, author):
            lines += [
                f"| {author}, {half} ({len(rows)}) | {m.reader} | {m.value} | {m.precision} | {m.recall} |"
                for m in measured(rows)
            ]
    return "\n".join(lines)
