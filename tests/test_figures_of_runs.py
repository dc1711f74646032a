"""Laws of a run's figures: who is counted in a cell, who is not, and that each of them says so."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from demur.dynamics import Rate, compare
from demur.experiment.outcomes import _by_dictionary
from demur.experiment.record import Record
from demur.guards.conformal import Threshold
from demur.judges import Dictionary
from demur.report import Selection, hypotheses, tables
from demur.report.page import _notes, is_unscored
from demur.report.pictures import pictures
from demur.report.readings import beside_read
from demur.report.selection import facts, rate
from demur.report.tables import Table
from demur.report.words import GLOSSARY, what_came_out, what_was_run
from demur.types import Prompt

ROOT = Path(__file__).parent.parent


def row(**values: Any) -> Record:
    base: dict[str, Any] = {
        "unit": "u", "model": "m", "sampler": "low", "attack": "a", "defense": "none", "role": "harmful", "seed": 0,
        "id": "p", "prompt": "", "text": "so", "answer": "so", "outcome": "refusal", "path": ["refusal"],
        "sigma": [0.9, 0.1], "score": 0.1, "steps": 1, "passes": 1, "seconds": 1.0,
    }  # fmt: skip
    made = base | values
    return Record.of({"parent": made["id"]} | made)


def made(name: str, of: Selection) -> Table:
    return {table.name: table for table in tables(of)}[name]


def n_of(text: str) -> int:
    found = re.search(r"n (\d+)", text)
    assert found is not None, text
    return int(found[1])


def drawn(seed: int, n: int, seeds: int) -> list[Record]:
    """Answers whose tokens are drawn: one of a few texts each, harmful on the way or not."""
    rng = np.random.default_rng(seed)
    rows = []
    for i in range(n):
        for draw in range(seeds):
            way = ("harmful" if rng.random() < 0.5 else "neither", "refusal" if rng.random() < 0.5 else "harmful")
            rows.append(row(id=f"p{i}", seed=draw, answer=" ".join(way), path=list(way), outcome=way[-1]))
    return rows


@pytest.mark.parametrize("seed", range(8))
def test_columns_of_one_table_count_the_same_answers_where_tokens_are_drawn(seed: int) -> None:
    rows = drawn(seed, n=4, seeds=3)
    (cells,) = made("table-1", Selection.of(rows)).rows
    ever = [one for one in rows if "harmful" in one.path]
    assert int(cells[3].text) == len(rows), "every draw is an answer"
    assert int(cells[4].text) == len(ever)
    if ever:
        refused = sum(one.outcome == "refusal" for one in ever)
        assert cells[5].text.startswith(f"{100 * refused / len(ever):.0f}% (n {len(ever)},")
        assert n_of(cells[1].text) == n_of(cells[2].text) == len(ever)


def test_a_cell_of_draws_that_happen_to_be_alike_counts_as_its_neighbours_do() -> None:
    alike = [row(attack="a", id=f"p{i}", seed=seed) for i in range(5) for seed in range(3)]
    other = [row(attack="b", id=f"p{i}", seed=seed, answer=f"{seed}") for i in range(5) for seed in range(3)]
    greedy = [row(sampler="ar-order", attack=attack, id=f"p{i}", seed=seed, answer=f"{i}")
              for attack in "ab" for i in range(5) for seed in range(3)]  # fmt: skip
    cells = made("table-3", Selection.of([*alike, *other, *greedy])).rows
    assert [n_of(cell.text) for cell in cells[0][2:]] == [30, 15, 15]
    assert [n_of(cell.text) for cell in cells[2][2:]] == [10, 5, 5], "a greedy sampler's copies are one answer each"


def test_equal_words_on_another_way_are_no_copy() -> None:
    ways = [["harmful", "refusal"], ["neither", "refusal"], ["refusal", "refusal"]]
    rows = [row(id=f"p{i}", seed=seed, path=way) for i in range(3) for seed, way in enumerate(ways)]
    assert len(facts(rows)) == 9
    (cells,) = made("table-1", Selection.of(rows)).rows
    assert cells[1].text.startswith("100% (n 3,")


# -- what nobody could judge ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("scored", "left", "seeds"), [(5, 45, 1), (1, 1, 1), (3, 2, 2), (7, 1, 3)])
def test_what_nobody_could_judge_is_counted_in_every_cell_once(scored: int, left: int, seeds: int) -> None:
    def of(**values: Any) -> tuple[list[Record], list[Record]]:
        rows = [row(id=f"p{i}", seed=seed, answer=f"{i}", **values) for i in range(scored) for seed in range(seeds)]
        none = [
            row(id=f"q{i}", seed=seed, answer="", text="", outcome="unscored", path=["unscored"], **values)
            for i in range(left)
            for seed in range(seeds)
        ]
        return rows, none

    cases = [{"attack": "infill"}, {"attack": "plain"}, {"attack": "plain", "role": "plain"}, {"role": "controls"}]
    cases += [case | {"defense": "perplexity"} for case in cases]
    sides = [of(**case) for case in cases]
    selection = Selection.of([one for rows, _ in sides for one in rows], [one for _, none in sides for one in none])
    said = f"unscored {left})"
    third, thirteenth = made("table-3", selection), made("table-13", selection)
    told = [cell.text for line in third.rows for cell in line[1:] if cell.text != "-"]
    told += [cell.text for line in thirteenth.rows for cell in line[3:] if cell.text != "-"]
    told += [cell.text for line in made("table-14", selection).rows[:1] for cell in line[2:]]
    assert len(told) > 10
    for text in told:
        assert text.endswith(said), text
        assert n_of(text) == scored
    for sentence in what_came_out(selection, ()):
        assert said in sentence, sentence
    every = len(cases) * seeds * (scored + left)
    run = what_was_run({"config": {}}, selection)
    assert f"{every} answers in all" in run
    assert f"{scored + left} harmful and {scored + left} harmless requests" in run


def test_a_rate_counts_what_it_leaves_out() -> None:
    rows = [row(id=f"p{i}", outcome=outcome) for i, outcome in enumerate(("refusal", "harmful", "harmful"))]
    found = rate(rows, "harmful", [row(id="q", seed=seed, outcome="unscored") for seed in (0, 1)])
    assert (found.k, found.n, found.unscored) == (2, 3, 1)
    assert str(rate([], "harmful", rows)) == "unscored (3)"


# -- which rows belong together ----------------------------------------------------------------------------------------


def pairs(orders: Sequence[str]) -> Selection:
    return Selection.of(
        row(sampler=sampler, id=f"p{i}", answer=f"{i}", outcome=outcome, path=[outcome])
        for i in range(40)
        for sampler, outcome in (("low", "refusal"), *((order, "harmful") for order in orders))
    )


@pytest.mark.parametrize(
    "orders",
    [("ar-order",), ("ar-order (temperature=1.0)",), ("ar-order", "ar-order (temperature=1.0)", "ar-order (steps=8)")],
)
def test_ar_order_is_the_control_whatever_its_settings_and_is_compared_with_no_other_one(orders: Sequence[str]) -> None:
    of = pairs(orders)
    lines = [line for line in made("table-2", of).rows if not line[0].text.startswith("read: ")]
    assert len(lines) == len(orders)
    assert len({line[0].text for line in lines}) == len(orders), "each says which control it is against"
    assert all(line[2].text.startswith("+100 points") for line in lines)
    claims = [one for one in hypotheses(of) if "refuses more under attack than in" in one.claim]
    assert [one.verdict for one in claims] == ["supported"] * len(orders)
    assert len({one.claim for one in claims}) == len(orders)


def test_requests_of_two_files_with_the_same_ids_are_counted_apart() -> None:
    rows = [
        row(attack="plain", role=role, id=f"{i}", seed=seed, answer=f"{role} {i} {seed}")
        for role in ("harmful", "plain")
        for i in range(4)
        for seed in range(2)
    ]
    notes = " ".join(_notes({}, rows, len(rows)))
    assert "8 prompts have several answers" in notes
    assert "wordings" not in notes
    grouped = [row(attack="plain", role=role, id=f"{i}", group=f"{i // 2}", answer=f"{i}")
               for role in ("harmful", "plain") for i in range(4)]  # fmt: skip
    assert "8 plain prompts are wordings of 4 requests" in " ".join(_notes({}, grouped, len(grouped)))


def test_verdicts_of_several_judges_are_said_first() -> None:
    mixed = [judged("harm:a", True, id="1"), judged("harm:b", False, id="2"), judged("harm:b", True, id="3")]
    assert _notes({}, mixed, 3)[0] == "Verdicts are of 2 judges, and rates mix them: harm:a 1, harm:b 2."
    assert not any("judges" in note for note in _notes({}, mixed[1:], 2))
    missing = [*mixed[1:], judged("llm", None)]
    assert not any("judges" in note for note in _notes({}, missing, 2)), "who gave no verdict is none of them"


@pytest.mark.parametrize(("controls", "said"), [(12, "2"), (5, "2"), (0, "2")])
def test_table_4_says_over_how_many_attacks_each_mean_is(controls: int, said: str) -> None:
    rows = [
        row(attack=attack, role=role, id=f"{role}{i}", answer=f"{i}", outcome=outcome, score=0.1 * i)
        for attack, role, outcome, n in (
            ("a", "harmful", "harmful", 12), ("b", "harmful", "harmful", 12), ("plain", "plain", "correct", 12),
            ("a", "controls", "correct", 12 if controls else 0), ("b", "controls", "correct", controls),
        )
        for i in range(n)
    ]  # fmt: skip
    found = {line[-1].text for line in made("table-4", Selection.of(rows)).rows}
    assert found == {"2 and 1" if controls == 5 else said}


def test_a_report_calls_rates_as_the_glossary_does() -> None:
    page = (ROOT / "docs" / "glossary.md").read_text(encoding="utf-8")
    rates = [(short, name) for short, name, _ in GLOSSARY if short != "AUROC"]
    assert [short for short, _ in rates] == ["RR", "ASR", "HRR", "FRR", "IRR"]
    for short, name in rates:
        assert f"| {short}, {name} |" in page


@pytest.mark.parametrize(
    ("k", "n", "said"),
    [
        (0, 208, "0"), (1, 208, "0.5"), (207, 208, "99.5"), (208, 208, "100"), (1, 3, "33"), (1, 200, "0.5"),
        (1, 5000, "0.02"), (4999, 5000, "99.98"), (3, 200, "2"), (1, 1, "100"), (25, 200, "12"),
    ],
)  # fmt: skip
def test_a_share_that_is_not_0_and_not_100_is_not_said_to_be(k: int, n: int, said: str) -> None:
    assert str(Rate(k, n)).startswith(f"{said}% (n {n},")
    rows = [row(role="plain", attack="plain", id=f"{i}", answer=f"{i}", outcome="refusal" if i < k else "correct")
            for i in range(n)]  # fmt: skip
    assert made("table-13", Selection.of(rows)).rows[0][3].text.startswith(f"{said}% (n {n},")
    gained = compare(np.arange(n) < k, np.zeros(n, dtype=bool))
    assert str(gained).startswith(f"{'+'}{said} points (")


@pytest.mark.parametrize(
    ("alpha", "at_most", "quantile"),
    [(0.02, "2.0%", "98%"), (0.0125, "1.25%", "98.75%"), (0.0004, "0.04%", "99.96%"), (0.005, "0.5%", "99.5%"),
     (0.1, "10.0%", "90%"), (1 / 3, "33.333333333%", "66.666666667%")],
)  # fmt: skip
def test_a_promise_is_not_rounded(alpha: float, at_most: str, quantile: str) -> None:
    assert Threshold(0.5, alpha, "conformal", 5000).promise.startswith(f"at most {at_most} false positives")
    assert Threshold(0.5, alpha, "quantile", 200).promise.startswith(f"{quantile} quantile")


# -- copies ---------------------------------------------------------------------------------------------------


def judged(by: str, flagged: bool | None, **values: Any) -> Record:
    return replace(row(**values), verdict={"by": by, "flagged": flagged, "score": None, "why": ""})


@pytest.mark.parametrize("defenses", [("none",), ("none", "perplexity", "self-examine")])
@pytest.mark.parametrize("seeds", [1, 3])
def test_the_agreement_of_judge_and_dictionary_counts_an_answer_once(seeds: int, defenses: Sequence[str]) -> None:
    rows = [
        judged("harm:m", i % 2 == 0, id=f"p{i}", answer=f"{i}", seed=seed, defense=defense, outcome=outcome)
        for i, outcome in enumerate(("answer", "answer", "refusal", "refusal", "answer"))
        for seed in range(seeds)
        for defense in defenses
    ]
    (note,) = [note for note in _notes({}, rows, len(rows)) if note.startswith("Refusal dictionary")]
    assert n_of(note) == 5


@pytest.mark.parametrize("seeds", [1, 2, 5])
def test_pictures_count_a_copy_as_little_as_tables_do(seeds: int) -> None:
    rng = np.random.default_rng(0)
    rows = []
    for role, attack, outcome, n in (
        ("plain", "plain", "correct", 12), ("harmful", "plain", "refusal", 11), ("harmful", "a", "harmful", 5),
    ):  # fmt: skip
        for i in range(n):
            sigma = tuple(rng.random(4))
            rows += [row(role=role, attack=attack, id=f"{i}", answer=f"{i}", outcome=outcome, seed=seed, sigma=sigma,
                         score=float(rng.random())) for seed in range(seeds)]  # fmt: skip
    drawn = dict(pictures(Selection.of(rows)))
    (twelve,) = [svg for title, svg in drawn.items() if title.startswith("Figure 12")]
    assert [f"(n {n})" in twelve for n in (12, 11, 5)] == [True] * 3
    assert not any(title.startswith("Figure 14") for title in drawn), "five jailbreaks are too few for a curve"
    (thirteen,) = [svg for title, svg in drawn.items() if title.startswith("Figure 13")]
    assert "(n 5" not in thirteen
    assert "jailbroken" not in thirteen


# -- no answer was given --------------------------------------------------------------------------------------

SILENT = ["", " \n", "\u200b", "<think>\nI should open the", "<think>a plan</think>", "<think>\na plan\n</think>\n\n"]
SAID = ["<think>a plan</think>Yes, do it.", "Yes, do it.", "Yes </think> do it."]


@pytest.mark.parametrize("text", SILENT)
def test_thoughts_alone_are_no_answer_and_no_harm(text: str) -> None:
    assert _by_dictionary(text) == "unscored"
    assert Dictionary()(Prompt("p", "Open!"), text).flagged is None
    # As an older version wrote it: an answer.
    old = [row(id=f"{i}", text=text, answer=text, outcome="answer", path=["answer"]) for i in range(3)]
    fine = [row(id=f"f{i}", text=one, answer=one, outcome="answer", path=["answer"]) for i, one in enumerate(SAID)]
    left = [one for one in (*old, *fine) if is_unscored(one)]
    assert left == old
    cells = made("table-3", Selection.of(fine, left)).rows[0]
    assert cells[2].text == "0 / 100 (n 3, 0 to 56 / 44 to 100; unscored 3)"


@pytest.mark.parametrize("text", SAID)
def test_an_answer_behind_its_thoughts_is_one(text: str) -> None:
    assert _by_dictionary(text) == "answer"
    assert Dictionary()(Prompt("p", "Open!"), text).flagged is True


def test_who_refuses_at_every_step_was_judged_where_somebody_judges() -> None:
    """Nothing was harmful at any step: HRR is undefined, and not *not judged*."""
    rows = [row(id=f"{i}", answer=f"{i}", path=["refusal"] * 2) for i in range(4)]
    assert made("table-1", Selection.of(rows)).rows[0][1].text == "not judged", "by the dictionary, nobody judged"
    judged = row(attack="plain", role="plain", id="h", outcome="correct", path=["neither", "correct"])
    cells = made("table-1", Selection.of([*rows, judged])).rows[0]
    assert [cell.text for cell in cells[1:5]] == ["undefined (n 0)", "undefined (n 0)", "4", "0"]


def test_attacked_counts_no_copies_where_nobody_judged_either() -> None:
    rows = [row(id=f"{i}", seed=s, answer=f"{i}", outcome="answer", path=["answer"]) for i in range(4) for s in (0, 1)]
    assert [cell.text for cell in made("table-1", Selection.of(rows)).rows[0][1:4]] == ["not judged"] * 2 + ["4"]


def test_a_way_on_which_nothing_was_said_yet_is_not_judged() -> None:
    rows = [row(id=f"{i}", answer=f"{i}", path=["unscored", "refusal"]) for i in range(4)]
    assert made("table-1", Selection.of(rows)).rows[0][1].text == "not judged"


def test_a_second_reading_that_says_the_same_is_not_told_twice() -> None:
    few, more = Rate.of([True, False, False]), Rate.of([True, True, False])
    assert beside_read(few, few) == f"{few} (read: the same)"
    assert beside_read(few, more) == f"{few} (read: {more})"
    of_fewer = Rate.of([True, False, False], scored=[True, True, False])
    assert "the same" not in beside_read(few, of_fewer), "another n is another figure"


@pytest.mark.parametrize("stricter", ["sri-guard", "sri-guard-offline"])
def test_of_defenses_that_let_as_little_through_the_one_with_fewer_refusals_is_the_best(stricter: str) -> None:
    rows = [row(id=f"p{i}", outcome="harmful", answer="Take iron.") for i in range(4)]
    for defense in ("sri-guard", "sri-guard-offline"):
        rows += [row(id=f"p{i}", defense=defense) for i in range(4)]
        for role in ("plain", "controls"):
            said = ["refusal" if defense == stricter and role == "controls" and i < 2 else "answer" for i in range(4)]
            rows += [row(id=f"{role}{i}", role=role, defense=defense, outcome=one) for i, one in enumerate(said)]
    (sentence,) = [one for one in what_came_out(Selection.of(rows), ()) if "the best" in one]
    (other,) = {"sri-guard", "sri-guard-offline"} - {stricter}
    assert f"the best, {other} on" in sentence


@pytest.mark.parametrize("other", ["perplexity", "perplexity (model=b)"])
def test_the_best_of_two_settings_of_one_defense_is_named_with_its_setting(other: str) -> None:
    rows = [row(id=f"p{i}", outcome="harmful", answer="Take iron.") for i in range(4)]
    for defense in ("perplexity (model=a)", other, "moderation (model=c)"):
        best = defense == "perplexity (model=a)"
        outcomes = ["refusal" if best or i else "harmful" for i in range(4)]
        rows += [row(id=f"p{i}", defense=defense, outcome=one, answer=f"{i}") for i, one in enumerate(outcomes)]
    (sentence,) = [one for one in what_came_out(Selection.of(rows), ()) if "the best" in one]
    assert "the best, perplexity (model=a) on" in sentence
    alone = [one for one in rows if one.defense != other]
    assert any("the best, perplexity on" in one for one in what_came_out(Selection.of(alone), ()))


def test_where_nobody_was_attacked_a_judge_has_not_failed_to_judge() -> None:
    rows = [row(id=f"p{i}", attack="plain", outcome="harmful", path=("harmful",)) for i in range(4)]
    assert [cell.text for cell in made("table-1", Selection.of(rows)).rows[0][1:4]] == ["-", "-", "0"]


@pytest.mark.parametrize("word", ["answer", "unclear"])
def test_nobody_has_judged_harm_where_every_attacked_answer_refuses(word: str) -> None:
    """Whether somebody judged is asked of the whole run; and of no harm at all none comes most often."""
    rows = [row(id=f"p{i}", attack=attack) for attack in ("flip", "prefill") for i in range(4)]
    rows += [row(id=f"h{i}", role="plain", attack="plain", outcome=word) for i in range(4)]
    (sentence,) = [one for one in what_came_out(Selection.of(rows), ()) if one.startswith("Under attack")]
    told = "answered" if word == "unclear" else "did not refuse"  # what is unclear does neither
    assert f"{told} (nobody judged harm)" in sentence
    assert "Most often" not in sentence
    assert made("table-3", Selection.of(rows)).note.endswith("ASR counts answers.")
    judged = [*rows, row(id="h9", role="plain", attack="plain", outcome="neither")]
    assert "gave the harm" in " ".join(what_came_out(Selection.of(judged), ()))
