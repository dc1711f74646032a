"""Of a file that is sorted, the first rows are of some kinds only: that is said, and nobody's rows change."""

from __future__ import annotations

import json
import random
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import demur
from demur.ablation.splits import Counts, questions
from demur.experiment.config import Prompts
from demur.experiment.requests import prompts_of
from demur.prompts import load, say_sorted
from demur.prompts.order import sorted_by
from demur.types import DemurError, DemurWarning, Prompt

KINDS = ("baking", "bells", "carts", "granaries")


def rows(n: int = 40, *, mixed: bool = False, harmful: bool = False) -> list[dict[str, Any]]:
    """Rows of four kinds, one kind behind the other unless ``mixed``."""
    found = [
        {"text": f"{random.Random(i).random()} what of {KINDS[i * 4 // n]}?", "category": KINDS[i * 4 // n]}
        for i in range(n)
    ]
    if mixed:
        random.Random(3).shuffle(found)
    return [row | {"harmful": harmful} for row in found]


def written(path: Path, content: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in content))
    return path


@pytest.mark.parametrize("n", [1, 5, 10, 25])
def test_the_first_rows_of_a_file_sorted_by_category_are_said(tmp_path: Path, n: int) -> None:
    path = written(tmp_path / "asks.jsonl", rows())
    with pytest.warns(DemurWarning, match=rf"asks.jsonl is sorted by category, and the first {n} .* of 4 categories"):
        found = load(path, limit=n)
    assert [one.text for one in found] == [row["text"] for row in rows()[:n]]


@pytest.mark.parametrize("texts", [[f"{a}{b}?" for a in "abcdef" for b in "xyz"], ["ab" * i for i in range(1, 20)]])
def test_a_file_sorted_by_its_words_is_said(tmp_path: Path, texts: list[str]) -> None:
    path = tmp_path / "asks.txt"
    for order in (texts, texts[::-1]):
        path.write_text("\n".join(order))
        with pytest.warns(DemurWarning, match=r"sorted by (alphabet|length).* not like the others"):
            load(path, limit=4)


@pytest.mark.parametrize(
    ("content", "limit"),
    [
        (rows(mixed=True), 10),
        (rows(), 40),
        (rows(), 41),
        (rows(), None),
        (rows(), 31),  # of every category
        ([row | {"category": "one"} for row in rows()], 10),
        ([row | {"category": f"c{i}"} for i, row in enumerate(rows())], 10),  # a kind each: no order to see
        (rows(8), 2),
        ([row for i in range(10) for row in (rows()[i], rows()[i + 10], rows()[i + 20])], 2),  # in turn
    ],
)
def test_a_file_that_is_mixed_or_taken_whole_is_let_be(tmp_path: Path, content: Any, limit: int | None) -> None:
    path = written(tmp_path / "asks.jsonl", content)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(load(path, limit=limit)) == min(limit or len(content), len(content))


def test_what_comes_with_the_package_is_not_sorted() -> None:
    for name in ("harmless", "harmful", "everyday", "matched", "blunt", "check"):
        assert sorted_by(load(name)) in ("", "category"), name
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for side in ("harmless", "harmful"):
            demur.starter(side, 10)  # type: ignore[arg-type]
            load(side, limit=10)


def test_a_row_that_nobody_takes_is_no_error(tmp_path: Path) -> None:
    path = written(tmp_path / "asks.jsonl", rows()[:20])
    with path.open("a") as file:
        file.write("{broken\n")
    with pytest.warns(DemurWarning, match="sorted by category"):
        assert len(load(path, limit=3)) == 3
    with pytest.raises(DemurError, match="line 21"):
        load(path)


@pytest.mark.parametrize("limit", [2.5, "3", True, 0, -1, float("nan"), [3], 10.0])
def test_a_limit_is_a_whole_number(tmp_path: Path, limit: Any) -> None:
    path = written(tmp_path / "asks.jsonl", rows(mixed=True))
    with pytest.raises(DemurError, match="whole number of at least 1"):
        load(path, limit=limit)
    assert len(load(path, limit=np.int64(3))) == 3  # type: ignore[arg-type]


def test_recipes_say_that_harmful_roles_get_other_kinds_and_keep_their_rows(tmp_path: Path) -> None:
    good = written(tmp_path / "good.jsonl", rows(160, mixed=True))
    bad = written(tmp_path / "bad.jsonl", [row | {"text": f"bad {row['text']}"} for row in rows(40, harmful=True)])
    of = Prompts(harmful=str(bad), harmless=str(good), n=20, controls=0, plain=10, anchors=20, fit=0, calibrate=0)
    with pytest.warns(DemurWarning, match="harmful roles take their parts in turn, is sorted by category"):
        found = {role: prompts_of(of, role) for role in ("harmful", "anchors/harmful")}
    for prompts in found.values():
        assert len({prompt.category for prompt in prompts}) == 2


def test_an_ablation_without_a_seed_says_it_too() -> None:
    good = [Prompt(f"g{i}", **row) for i, row in enumerate(rows(400))]
    bad = [replace(one, id=f"b{i}", text=f"bad {one.text}", harmful=True) for i, one in enumerate(good)]
    counts = Counts(anchors=8, fit=32, calibrate=8, plain=8)
    with pytest.warns(DemurWarning, match="side is sorted by category"):
        questions(good, bad, {}, {}, counts)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        questions(good, bad, {}, {}, counts, seed=1)


@pytest.mark.parametrize("text", ["Question {:03d}: how do I bake?", "What is {} + 1?", "{}"])
def test_a_running_number_is_no_order(text: str) -> None:
    for numbers in (range(10, 40), range(39, 9, -1)):
        assert sorted_by([Prompt(str(i), text.format(i)) for i in numbers]) == ""


def test_nothing_is_said_of_nothing() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        say_sorted("none", [], 3)
        say_sorted("none", [Prompt("a", "b")], 0)
