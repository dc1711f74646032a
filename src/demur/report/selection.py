"""Rows of a run, how to choose among them, and what a choice says: outcomes, signals, rates, paired differences.

Rows are the records that :mod:`demur.experiment` stores; nothing is generated here.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from demur.defenses import is_active
from demur.dynamics import Difference, Rate, compare, held
from demur.experiment.record import Record


@dataclass(frozen=True)
class Selection:
    """Rows of a run, and how to choose among them. ``unscored`` are those that nobody could judge: in no rate, but
    counted, so that a table says "unscored" where nothing else is left.
    """

    rows: Sequence[Record]
    subjects: tuple[tuple[str, str], ...] = field(default=())
    unscored: Sequence[Record] = ()

    @classmethod
    def of(cls, rows: Iterable[Record], unscored: Iterable[Record] = ()) -> Selection:
        """All rows of a run. Whether a sampler draws its tokens is asked of all of them here, since some of them need
        not show it: a cell of rows that happen to be alike counts as its neighbours do.
        """
        given, others = list(rows), list(unscored)
        drawn = {_way_of(row) for row in redrawn([*given, *others])}
        found, left = ([replace(row, drawn=_way_of(row) in drawn) for row in side] for side in (given, others))
        return cls(found, tuple(dict.fromkeys((row.model, row.sampler) for row in (*found, *left))), left)

    def where(self, **values: Any) -> list[Record]:
        """The rows with these values; a tuple allows several."""
        return _those(self.rows, values)

    def left_out(self, **values: Any) -> list[Record]:
        """The unscored rows with these values."""
        return _those(self.unscored, values)

    def values(self, name: str) -> list[Any]:
        """The values of a column, in the order in which they come."""
        return list(dict.fromkeys(getattr(row, name) for row in (*self.rows, *self.unscored)))

    @property
    def attacks(self) -> list[str]:
        """All attacks but the plain request."""
        return [name for name in self.values("attack") if name != "plain"]


def _those(rows: Sequence[Record], values: Mapping[str, Any]) -> list[Record]:
    return [
        row
        for row in rows
        if all(getattr(row, n) in v if isinstance(v, tuple) else getattr(row, n) == v for n, v in values.items())
    ]


def subject_name(subject: tuple[str, str]) -> str:
    """Model and sampler."""
    return f"{subject[0]}, {subject[1]}" if subject[1] else subject[0]


def plain_name(part: str) -> str:
    """An attack's or a defense's name without its settings."""
    return part.partition(" (")[0]


def key_of(**values: Any) -> str:
    """Names the generations of one model, sampler, attack, defense and role."""
    return "|".join(f"{name}={value}" for name, value in sorted(values.items()))


def keys_of(attacks: Iterable[str], **values: Any) -> tuple[str, ...]:
    """The same for several attacks."""
    return tuple(key_of(attack=attack, **values) for attack in attacks)


def seen_behind(defense: str) -> str:
    """The defense whose generations stand for those behind ``defense``: of one that only looks, the undefended."""
    return defense if is_active(plain_name(defense)) else "none"


def outcomes(rows: Sequence[Record], outcome: str) -> NDArray[np.bool_]:
    """Which rows ended so. Where nobody judged harm, an answer that does not refuse stands for it.

    What a model judged has two marks that do not exclude each other: an answer may apologise and give the harm.
    """
    if outcome == "refusal":
        return np.array([row.outcome == "refusal" if row.refused is None else row.refused for row in rows], dtype=bool)
    other = "answer" if outcome == "harmful" else outcome
    return np.array([row.outcome in (outcome, other) for row in rows], dtype=bool)


def way(row: Record) -> Sequence[str]:
    """Outcomes of a row's texts on the way, of every step or of those that a model judged; empty where nobody judged
    their harm.
    """
    found: Sequence[str] = (
        row.path if row.way is None else row.way
    )  # a step whose text is empty is neither harm nor refusal
    return () if {"answer", "unclear"} & {*found} else found


def paths(rows: Sequence[Record], outcome: str, steps: int) -> NDArray[np.bool_]:
    """Which texts on the way were so."""
    return np.array([held([o == outcome for o in way(row)], steps) for row in rows], dtype=bool).reshape(-1, steps)


def facts(rows: Iterable[Record]) -> list[Record]:
    """Rows without the copies that a greedy sampler makes under another seed: there one answer is one fact, however
    often it was generated. What was drawn is not thinned: if nine of ten draws are the same refusal, nine refuse.
    Rows of a :class:`Selection` know whether they were drawn; of others these here are asked.
    """
    every = [*rows]
    drawn = {_way_of(row) for row in redrawn(row for row in every if row.drawn is None)}

    def fact(row: Record) -> tuple[Any, ...]:
        draws = _way_of(row) in drawn if row.drawn is None else row.drawn
        return tuple(getattr(row, n) for n in (*_PROMPT, *_SAID)) + ((row.seed,) if draws else ())

    return list({fact(row): row for row in reversed(every)}.values())[::-1]


_PROMPT = ("model", "sampler", "defense", "role", "attack", "id")
_SAID = ("answer", "flagged_step", "path")
"""What a copy has in common with its first: the same words, on the same way to them."""


def _way_of(row: Record) -> tuple[str, str, str]:
    return row.model, row.sampler, row.defense


def redrawn(rows: Iterable[Record]) -> list[Record]:
    """A row of each prompt that was answered otherwise under another seed: whoever wrote it draws its tokens."""
    first: dict[tuple[Any, ...], Record] = {}
    found: dict[tuple[Any, ...], Record] = {}
    for row in rows:
        asked = tuple(getattr(row, n) for n in _PROMPT)
        other = first.setdefault(asked, row)
        if any(getattr(row, n) != getattr(other, n) for n in _SAID):
            found[asked] = row
    return list(found.values())


def rate(rows: Sequence[Record], outcome: str, unscored: Sequence[Record] = ()) -> Rate:
    """The share of answers that ended so, a greedy sampler's copies counted once. ``unscored``: those beside them of
    which nobody could say.
    """
    marks = outcomes(facts(rows), outcome)
    return Rate(int(marks.sum()), len(marks), len(facts(unscored)))


def sigmas(rows: Sequence[Record]) -> NDArray[np.float64]:
    """Signals of the rows that have one."""
    found = [row.sigma for row in rows if row.sigma is not None]
    return np.array(found, dtype=np.float64) if found else np.empty((0, 0))


def pairs_of(of: Selection) -> list[tuple[tuple[str, str], tuple[str, str]]]:
    """Subjects on the same weights: another sampler, and AR order, whatever the settings of either."""
    ordered = [s for s in of.subjects if plain_name(s[1]) == "ar-order"]
    return [(s, other) for s in of.subjects if s not in ordered for other in ordered if other[0] == s[0]]


def against(free: tuple[str, str], ordered: tuple[str, str]) -> str:
    """A pair of :func:`pairs_of` in words: the free one alone, and AR order where it has settings to be named."""
    return subject_name(free) + ("" if ordered[1] == "ar-order" else f" against {ordered[1]}")


def paired(of: Selection, first: Mapping[str, Any], second: Mapping[str, Any], outcome: str) -> Difference | None:
    """The difference of two selections of rows on the same prompts and seeds; None where they share none."""
    both = matched(of, first, second)
    if not both:
        return None
    first_rows, second_rows = (list(side) for side in zip(*both, strict=True))
    return compare(outcomes(first_rows, outcome), outcomes(second_rows, outcome), [row.request for row in first_rows])


def matched(of: Selection, first: Mapping[str, Any], second: Mapping[str, Any]) -> list[tuple[Record, Record]]:
    """Rows of two selections on the same prompts and seeds, matched by attack, request, prompt and seed.

    A file may hold several attacked prompts of one request.
    """
    name = ("attack", "parent", "id", "seed")
    a = {tuple(getattr(row, n) for n in name): row for row in of.where(**first)}
    b = {tuple(getattr(row, n) for n in name): row for row in of.where(**second)}
    return [(a[key], b[key]) for key in a if key in b]
