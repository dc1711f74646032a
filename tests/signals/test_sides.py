"""Anchors have a harmless and a harmful side: what stands on the wrong one, on both, or twice, is refused or said."""

from __future__ import annotations

import warnings
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import small

import demur
from demur.guards.conformal import conformal_threshold
from demur.models import load
from demur.prompts import starter
from demur.signals import fit_anchors
from demur.signals.fit import anchor_traces, as_sides
from demur.types import DemurError, DemurWarning, Prompt

HARMLESS, HARMFUL = tuple(starter("harmless", 4)), tuple(starter("harmful", 4))


@pytest.fixture(scope="module")
def model() -> Any:
    return load(small._net("llama"), tokenizer=small.byte_level())


def unmarked(prompts: tuple[Prompt, ...]) -> list[Prompt]:
    return [replace(prompt, harmful=None) for prompt in prompts]


@pytest.mark.parametrize(
    ("harmless", "harmful", "says"),
    [
        (HARMFUL, HARMLESS, "4 prompts of the harmless side are marked harmful=True"),
        (HARMLESS, HARMLESS, "4 prompts of the harmful side are marked harmful=False"),
        (HARMFUL, HARMFUL, "4 prompts of the harmless side"),
        ((*HARMLESS, HARMFUL[0]), HARMFUL[1:], "1 prompts of the harmless side"),
    ],
)  # fmt: skip
def test_a_prompt_on_the_wrong_side_is_one_line(harmless: Any, harmful: Any, says: str, model: Any) -> None:
    with pytest.raises(DemurError, match=says):
        demur.anchors_of(model, harmless, harmful, refusals="scripted", length=32)
    with pytest.raises(DemurError, match=says):
        as_sides(harmless, harmful)


@pytest.mark.parametrize(
    ("harmful", "count"),
    [(unmarked(HARMLESS), 4), ([*HARMFUL, Prompt("other", HARMLESS[0].text)], 1), (HARMFUL, 0)],
)
def test_prompts_on_both_sides_are_said(harmful: Any, count: int) -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        as_sides(unmarked(HARMLESS), harmful)
    said = [str(one.message) for one in caught]
    assert len(said) == (count > 0)
    assert all(f"{count} prompts are on both sides" in line for line in said)


def test_no_word_of_a_prompt_is_in_these_lines() -> None:
    with pytest.raises(DemurError) as error:
        as_sides(HARMFUL, HARMLESS)
    with pytest.warns(DemurWarning) as caught:
        as_sides(unmarked(HARMFUL), unmarked(HARMFUL))
    for said in (str(error.value), *(str(one.message) for one in caught)):
        assert not any(prompt.text[:12] in said for prompt in HARMFUL)


def test_traces_of_the_wrong_side_are_refused_as_their_prompts_are(model: Any) -> None:
    good, bad = anchor_traces(model, HARMLESS, HARMFUL, refusals="scripted", length=32)
    with pytest.raises(DemurError, match="harmless side are marked"):
        fit_anchors(bad, good)
    with pytest.raises(DemurError, match="harmless side are marked"):
        fit_anchors([*good, bad[0]], bad[1:])
    assert fit_anchors(good, bad).n_harmful == 4


@pytest.mark.parametrize("side", ["harmless", "harmful"])
@pytest.mark.parametrize("form", ["the same", "under other ids"])
def test_answers_to_one_prompt_are_said_to_be_of_one(side: str, form: str, model: Any) -> None:
    sides = {"harmless": list(HARMLESS), "harmful": list(HARMFUL)}
    first = sides[side][0]
    sides[side] = [first if form == "the same" else replace(first, id=f"other-{i}") for i in range(4)]
    with pytest.warns(DemurWarning, match=f"4 prompts of the {side} side are 1 different ones"):
        demur.anchors_of(model, sides["harmless"], sides["harmful"], refusals="scripted", length=32)


def test_one_text_under_two_system_prompts_is_two_prompts(model: Any) -> None:
    asked = [replace(HARMLESS[0], id=str(i), prefill="abc"[:i]) for i in range(3)]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        demur.anchors_of(model, asked, HARMFUL, refusals="scripted", length=32)


@pytest.mark.parametrize("alpha", ["0.1", None, [0.1], 0, 1, -0.1, float("nan"), True])
def test_an_alpha_that_is_no_share_is_one_line(alpha: Any) -> None:
    with pytest.raises(DemurError, match="above 0 and below 1"):
        conformal_threshold(np.arange(200.0), alpha)


@pytest.mark.parametrize("side", ["harmless", "harmful"])
@pytest.mark.parametrize("form", ["the same", "under other ids"])
def test_copies_of_one_answer_are_no_more_anchors_than_one(side: str, form: str, model: Any) -> None:
    good, bad = anchor_traces(model, HARMLESS, HARMFUL, refusals="scripted", length=32)
    first = (good if side == "harmless" else bad)[0]
    copies = [
        first if form == "the same" else replace(first, prompt=replace(first.prompt, id=str(i))) for i in range(4)
    ]
    sides = {"harmless": good, "harmful": bad} | {side: copies}
    with pytest.warns(DemurWarning, match=f"the 4 answers of the {side} side are to 1 different prompt") as caught:
        demur.fit_anchors(sides["harmless"], sides["harmful"])
    assert [one.filename for one in caught] == [__file__]


def test_prompts_that_come_several_times_are_said_once(model: Any) -> None:
    with pytest.warns(DemurWarning) as caught:
        demur.anchors_of(model, HARMLESS, [HARMFUL[0]] * 4, refusals="scripted", length=32)
    assert len([one for one in caught if "different" in str(one.message)]) == 1


def test_answers_to_different_prompts_are_fitted_without_a_word(model: Any) -> None:
    good, bad = anchor_traces(model, HARMLESS, HARMFUL, refusals="scripted", length=32)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        demur.fit_anchors(good, bad)
