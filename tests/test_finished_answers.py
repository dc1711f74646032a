"""What stands in a transcript's answer and is none of it, or is none at all, is said once."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import pytest

from demur.cli.console import _warnings_in_one_line
from demur.prompts import transcripts
from demur.types import DemurWarning

ASKED = "How do I bake a loaf of bread?"


def read(path: Path, *rows: dict[str, Any]) -> tuple[list[str], list[str]]:
    """Answers, and what was said."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        answers = [transcript.response for transcript in transcripts(path)]
    return answers, [str(one.message) for one in caught if issubclass(one.category, DemurWarning)]


@pytest.mark.parametrize("missing", ["nan", "NaN", "N/A", "null", "None", "<NA>", "#N/A", " na "])
def test_the_mark_of_a_missing_value_is_no_answer(missing: str, tmp_path: Path) -> None:
    rows = [{"prompt": ASKED, "response": answer} for answer in (missing, "Mix flour.", missing)]
    answers, said = read(tmp_path / "a.jsonl", *rows)
    assert answers == ["", "Mix flour.", ""]
    assert ["stands for a missing value" in line for line in said] == [True]


@pytest.mark.parametrize("answer", ["None of these.", "nan is not a number", "0", "No.", "Null and void."])
def test_words_that_begin_alike_are_answers(answer: str, tmp_path: Path) -> None:
    assert read(tmp_path / "a.jsonl", {"prompt": ASKED, "response": answer}) == ([answer], [])


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (f"{ASKED} Mix flour.", "begins with its request"),
        (f"\n{ASKED}\n\nMix flour.", "begins with its request"),
        ("<|im_start|>assistant\nMix flour.", "a mark of a chat template"),
        ("<|start_header_id|>assistant<|end_header_id|>\n\nMix flour.", "a mark of a chat template"),
        ("<start_of_turn>model\nMix flour.", "a mark of a chat template"),
        ("<|assistant|>\nMix flour.", "a mark of a chat template"),
        ("<｜Assistant｜>Mix flour.", "a mark of a chat template"),
        ("[/INST] Mix flour.", "a mark of a chat template"),
        ("Assistant: Mix flour.", "a mark of a chat template"),
    ],
)
def test_an_answer_that_holds_more_is_said_once_and_read_as_it_stands(answer: str, says: str, tmp_path: Path) -> None:
    row = {"prompt": ASKED, "response": answer}
    answers, said = read(tmp_path / "a.jsonl", row, row)
    assert answers == [answer, answer]
    assert [says in line for line in said] == [True]


@pytest.mark.parametrize(
    "answer",
    ["<b>Mix</b> flour.", "Model cars: glue them.", "Assistants help.", "[1] Mix flour.", "<think>Hm.</think>Mix.",
     ": x", "How do I bake? Mix flour.", "\n<svg width='1'></svg>", "\n\n<!DOCTYPE html>", " \n[/b] Mix.", "\n: x"],
)  # fmt: skip
def test_other_beginnings_are_not_spoken_of(answer: str, tmp_path: Path) -> None:
    assert read(tmp_path / "a.jsonl", {"prompt": ASKED, "response": answer}) == ([answer], [])


@pytest.mark.parametrize("name", ["reasoning", "reasoning_content", "thinking", "chain_of_thought", "Thoughts"])
@pytest.mark.parametrize("turn", [False, True])
def test_a_thought_beside_an_answer_is_said(name: str, turn: bool, tmp_path: Path) -> None:
    last = {"role": "assistant", "content": "Mix flour.", name: "Flour first."}
    row: dict[str, Any] = {"messages": [{"role": "user", "content": ASKED}, last]}
    answers, said = read(
        tmp_path / "a.jsonl", row if turn else {"prompt": ASKED, "response": "Mix flour.", name: "Flour first."}
    )
    assert answers == ["Mix flour."]
    assert ["without its thought" in line for line in said] == [True]
    assert read(tmp_path / "a.jsonl", {"prompt": ASKED, "response": "Mix flour.", name: ""})[1] == []


def test_a_command_says_a_thing_once_although_it_reads_a_file_twice() -> None:
    for _ in range(2):  # a second command says it again
        with _warnings_in_one_line():
            lines = [warnings.formatwarning(DemurWarning(what), DemurWarning, "f.py", 1) for what in ("a", "b", "a")]
        assert lines == ["demur: a\n", "demur: b\n", ""]
