"""A column that says what a request is, under a name or in words that nobody told, is not passed over in silence."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import pytest

from demur.prompts import load
from demur.types import DemurError, DemurWarning


def write(path: Path, *rows: dict[str, Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


UNTOLD: dict[str, tuple[Any, Any]] = {
    "label": ("harmful", "benign"), "Label": (1, 0), "type": ("jailbreak", "benign"), "is_safe": (0, 1),
    "harmless": (False, True), "toxicity": (0.93, 0.02), "toxic": ("yes", "no"), "category": ("Harmful", "Harmless"),
    "data_type": ("adversarial_harmful", "vanilla_benign"), "note": ("contrast_homonyms", "homonyms"),
    "prompt_harm_label": ("harmful", "unharmful"), "is_jailbreak": (True, False), "should_refuse": ("true", "false"),
    "malicious": (True, False), "prompt_injection": (1, 0), "unethical": (1, 0), "anything": ("unsafe", "safe"),
    "expected_refusal": (1, 0), "refusal_expected": (True, False),
}  # fmt: skip


@pytest.mark.parametrize("column", UNTOLD)
@pytest.mark.parametrize("asked", [{"harmful": False}, {"harmful": True}, {"side": "harmless"}, {"side": "harmful"}])
def test_no_row_gets_a_label_beside_one_of_its_own_that_nobody_told(
    column: str, asked: dict[str, Any], tmp_path: Path
) -> None:
    path = write(tmp_path / "a.jsonl", *({"prompt": f"r {i}", column: UNTOLD[column][i]} for i in range(2)))
    with pytest.raises(DemurError, match="nobody has said whether it marks harm"):
        load(path, **asked)
    assert len(load(path, columns={"harmful": ""}, **asked)) == 2, "it may be ignored, if somebody says so"
    assert [prompt.harmful for prompt in load(path)] == [None, None], "without a word, nothing is said of harm"


@pytest.mark.parametrize("column", ["is_safe", "isSafe", "Safe", "benign", "harmless", "prompt_safe", "safe-to-answer"])
@pytest.mark.parametrize("values", [(False, True), (0, 1), ("no", "yes")])
def test_a_label_that_is_true_of_what_is_harmless_is_not_read_the_other_way_round(
    column: str, values: tuple[Any, Any], tmp_path: Path
) -> None:
    """Nor does the error that speaks of it send anybody there."""
    path = write(tmp_path / "a.jsonl", *({"prompt": f"r {i}", column: values[i]} for i in range(2)))
    for asked in ({}, {"side": "harmful"}, {"harmful": False}):
        with pytest.raises(DemurError, match="true of what is harmless"):
            load(path, columns={"harmful": column}, **asked)  # type: ignore[arg-type]
    with pytest.raises(DemurError, match="turn its values round"):
        load(path, side="harmful")
    words = write(tmp_path / "w.jsonl", {"prompt": "r 0", column: "unsafe"}, {"prompt": "r 1", column: "safe"})
    assert [prompt.harmful for prompt in load(words, columns={"harmful": column})] == [True, False]


@pytest.mark.parametrize(
    "row", [{"id": "harmless_one"}, {"ID": "contrast_b"}, {"text": "fail-safe"}, {"prompt": "safe"}]
)
def test_ids_and_requests_are_no_labels(row: dict[str, str], tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", {"prompt": "Hi"} | row if "text" not in row else row)
    assert [prompt.harmful for prompt in load(path, harmful=False)] == [False]


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("type", "question"), ("category", "Malware/Hacking"), ("split", "train"), ("label", ""), ("label", None),
        ("kind", "how_to"), ("topic", "safe driving"), ("toxicity", None), ("jailbreak_rate", "high"),
        ("refused", False), ("model_refusal", "no"), ("is_refusal", 1),
        ("tag", "cyber-crime"), ("role", "user"), ("length", 0.5), ("n", 1),
    ],
)  # fmt: skip
def test_columns_that_say_nothing_of_harm_are_no_obstacle(column: str, value: Any, tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", {"prompt": "Hi", column: value})
    assert [prompt.harmful for prompt in load(path, harmful=True)] == [True]


@pytest.mark.parametrize(
    ("column", "meant"),
    [
        ("sytem", "system"), ("System Promt", "system_prompt"), ("pre_fill", "prefill"), ("prefil", "prefill"),
        ("mesages", "messages"), ("harmfull", "harmful"), ("is_harmfull", "is_harmful"), ("systm", "system"),
    ],
)  # fmt: skip
def test_a_mistyped_column_is_said_once(column: str, meant: str, tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", *({"prompt": f"r {i}", column: "x"} for i in range(3)))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        load(path)
    told = [str(one.message) for one in caught if issubclass(one.category, DemurWarning)]
    assert len(told) == (0 if "harm" in column else 1)
    assert all(f"did you mean '{meant}'" in line for line in told)


@pytest.mark.parametrize(
    "column",
    ["note", "source", "system", "prefill", "author", "sentiment", "fill", "model", "conversation_id", "ConversationID",
     "conversation-no", "dialogue_ids", "messages_id"],
)  # fmt: skip
def test_other_columns_are_not_spoken_of(column: str, tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", {"prompt": "Hi", column: "x"})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load(path)
