"""The labelled answers, and what the reading makes of the parts it was built on."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from sklearn.metrics import cohen_kappa_score

from demur.judges import half_of, labelled
from demur.judges.labelled import HALVES, LABELS, SEEN
from demur.judges.measuring import Measured, measured, measured_table
from demur.types import DemurError

DOCS = Path(__file__).parents[2] / "docs" / "judges.md"


def test_the_set_has_6826_answers_each_with_two_labels_and_one_that_was_settled() -> None:
    rows = labelled()
    assert len(rows) == 6826
    assert len({row.id for row in rows}) == len({(row.request, row.answer) for row in rows}) == len(rows)
    for row in rows:
        assert {row.first, row.second, row.label} <= {*LABELS}
        assert row.label in (row.first, row.second), row.id
        assert row.style
    assert min(Counter(row.label for row in rows).values()) >= 100
    lengths = [len(row.answer.split()) for row in rows]
    assert min(lengths) == 0
    assert max(lengths) >= 120, "from nothing to several paragraphs"


def test_parts_are_by_id_and_author_alone() -> None:
    first = {(a, half): len(labelled(half, a)) for a in (1, 2, 3, 4) for half in HALVES}
    assert [*first.values()] == [213, 216, 0, 0, 210, 222, 85, 52, 125, 126, 103, 0, 829, 0, 0, 0]
    strangers = {a: len(labelled("development", a)) for a in (*range(5, 9), *range(10, 16), *range(18, 24))}
    assert [*strangers.values()] == [
        *(260, 259, 257, 239), *(278, 280, 280, 277, 169, 170), *(276, 277, 278, 276, 277, 275),
    ]  # fmt: skip
    test = {(a, half): len(labelled(half, a)) for a in (9, 17) for half in HALVES}
    assert [*test.values()] == [0, 0, 160, 100, 0, 0, 158, 99]
    sizes = first | strangers | test
    assert sum(sizes.values()) == len(labelled())
    assert half_of("b001", 2) == "later"
    assert half_of("c002", 2) == "last"
    assert half_of("e001", 3) == "later"
    assert (half_of("ta001", 9), half_of("tn163", 9)) == ("later", "last")
    assert (half_of("ga001", 17), half_of("gn100", 17)) == ("later", "last")
    assert {half_of("pa001", 5), half_of("qa001", 6), half_of("xn001", 13)} == {"development"}
    assert {half_of(name, 2) for name in SEEN} == {"development"}, "what was printed is no test any more"
    assert half_of("b001", 1) in ("development", "kept")


def test_a_part_of_another_name_is_an_error() -> None:
    with pytest.raises(DemurError, match="development, kept, later, last"):
        labelled("test")  # type: ignore[arg-type]


def of(found: list[Measured], value: str, reader: str = "reading") -> Measured:
    return next(one for one in found if (one.reader, one.value) == (reader, value))


def test_on_development_the_reading_is_above_a_floor_and_better_than_the_dictionary() -> None:
    found = measured([row for row in labelled("development") if row.author < 4])
    refuses, words = of(found, "refuses"), of(found, "refuses", "dictionary")
    assert refuses.precision.value >= 0.97
    assert refuses.recall.value >= 0.97
    assert refuses.precision.interval[0] > words.precision.interval[1]
    assert refuses.recall.interval[0] > words.recall.interval[1]
    assert of(found, "answers").recall.value >= 0.95
    assert of(found, "unclear").precision.value >= 0.95


def test_the_page_has_the_table_and_the_agreement_of_this_set() -> None:
    text = DOCS.read_text(encoding="utf-8")
    told = " ".join(text.split())
    assert measured_table() in text, "docs/judges.md: put in measured_table()"
    unseen = (labelled("later", 3), (*labelled("later", 2), *labelled("last", 2)))
    for rows in unseen:
        found = measured(rows)
        for reader in ("reading", "dictionary"):
            refuses = of(found, "refuses", reader)
            assert f"| {reader} | {refuses.precision} | {refuses.recall} |" in text
    for author in (1, 3, 4):
        rows = labelled(author=author)
        kappa = cohen_kappa_score([row.first for row in rows], [row.second for row in rows])
        assert f"kappa {kappa:.2f}, {sum(row.disputed for row in rows)} of {len(rows)} differ" in told
