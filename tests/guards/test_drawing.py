"""How tokens are drawn, where it is not as the guard was calibrated: told by name, and nothing else is told."""

from __future__ import annotations

from typing import Any

import pytest

from demur.guards.drawing import NEUTRAL, drawn_otherwise

GREEDY: dict[str, Any] = {"temperature": 0.0, "top_p": None, "top_k": None}
WARM: dict[str, Any] = {"temperature": 0.7, "top_p": 0.9, "top_k": None}
LOUD: dict[str, Any] = {
    "top_p": 0.5, "top_k": 3, "min_p": 0.1, "typical_p": 0.5, "frequency_penalty": -1, "presence_penalty": 0.5,
    "repeat_penalty": 1.1, "repetition_penalty": 1.3, "logit_bias": {"5": 90}, "min_tokens": 4, "bad_words": ["no"],
    "allowed_token_ids": [1, 2],
}  # fmt: skip


@pytest.mark.parametrize("name", NEUTRAL)
def test_a_setting_that_is_not_neutral_is_named_and_a_neutral_one_is_not(name: str) -> None:
    own = {"temperature": 1.0}
    assert name in drawn_otherwise(own, {"temperature": 1.0, name: LOUD[name]})
    for neutral in (*NEUTRAL[name], None):
        assert drawn_otherwise(own, {"temperature": 1.0, name: neutral}) == ""
    assert drawn_otherwise(own | {name: LOUD[name]}, {"temperature": 1.0, name: LOUD[name]}) == ""
    assert f"{name} none" in drawn_otherwise(own | {name: LOUD[name]}, {"temperature": 1.0})


def test_where_the_likeliest_token_is_taken_a_cut_of_the_rest_changes_nothing_and_a_penalty_does() -> None:
    assert drawn_otherwise(GREEDY, {"temperature": 0, "top_p": 0.5, "top_k": 3, "min_p": 0.1}) == ""
    assert drawn_otherwise(GREEDY, {"temperature": 0, "frequency_penalty": 2}) == "frequency_penalty 2"
    assert drawn_otherwise(GREEDY, {"temperature": 1, "top_p": 0.5}) == "top_p 0.5"


def test_lists_are_told_by_name_alone_and_a_seed_is_no_way_of_drawing() -> None:
    assert drawn_otherwise(WARM, WARM | {"logit_bias": {"7": -100}, "seed": 4, "stop": ["x"]}) == "logit_bias"
