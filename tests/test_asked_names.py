"""A name is never asked as a text: what is copied with it, a line's number, a dash, a variable the shell has left."""

from __future__ import annotations

import time

import pytest
from small import one_line

from demur.cli.asked import asked
from demur.prompts import packaged
from demur.types import DemurError


@pytest.mark.parametrize(
    ("argument", "said"),
    [
        ("-", "which no command reads prompts from"),
        (" - ", "which no command reads prompts from"),
        ("prompts.jsonl:3", "no file"),
        ("prompts.csv:3-9", "no file"),
        ("prompts.json,", "no file"),
        ("'prompts.jsonl'", "no file"),
        ('"notes.txt"', "no file"),
        ("(prompts.parquet)", "no file"),
        ("$PROMPT", "variable"),
        ("${PROMPTS}", "variable"),
        ("%PROMPT%", "variable"),
        ("demur-blunt-999", "no prompt has the id"),
        ("matched/harmful/1", "no prompt has the id"),
        ("everyday/9999", "no prompt has the id"),
        ("'demur-harmful-0001'", "no prompt has the id"),
    ],
)
def test_what_is_the_name_of_nothing_is_refused(argument: str, said: str) -> None:
    with pytest.raises(DemurError, match=said) as caught:
        asked([argument])
    assert "--text" in one_line(caught.value)


@pytest.mark.parametrize("side", ["harmless", "harmful"])
def test_every_packaged_prompt_is_found_by_its_id(side: str) -> None:
    for prompt in packaged(side)[::37]:  # type: ignore[arg-type]
        for written in (prompt.id, f" {prompt.id} ", f"'{prompt.id}'", f"{prompt.id},"):
            assert asked([written]) == [prompt]


@pytest.mark.parametrize(
    "text", ["Is it 3:45?", "Why (not)", "'How do I bake?'", "5 - 3", "Say: $5", "$100", "null", "a-b"]
)
def test_a_text_is_asked_as_it_stands(text: str) -> None:
    assert [prompt.text for prompt in asked([text])] == [text]
    assert [prompt.text for prompt in asked(None, ["-", "$PROMPT", "x.txt:3"])] == ["-", "$PROMPT", "x.txt:3"]


@pytest.mark.parametrize("piece", [" ", "!", "'", "\n", ":1"])
def test_no_text_takes_long(piece: str) -> None:
    """Processor time, a hundred times what it takes: it had grown with the square of the length."""
    text = f"Write {piece * (40_000 // len(piece))} down"
    began = time.process_time()
    assert [prompt.text for prompt in asked([text])] == [text]
    assert time.process_time() - began < 5


@pytest.mark.parametrize(
    ("text", "noted"),
    [
        ("mine-3", True),
        ("set/12", True),
        ("req_0", True),
        ("talk#4", True),
        ("42", False),
        ("5-3", False),
        ("Hi", False),
        ("How is covid-19 treated?", False),
        ("two words-2", False),
    ],
)
def test_a_word_that_may_be_an_id_is_asked_as_a_text_and_that_is_told(
    text: str, noted: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    assert [prompt.text for prompt in asked([text])] == [text]
    told = capsys.readouterr().err
    assert ("no prompt has this id" in told) == noted
    assert text not in told  # it may be a request, and nobody has said of what kind
