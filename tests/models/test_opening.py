"""What a chat template writes behind a request opens an answer; its marks are read as marks."""

from __future__ import annotations

import copy
import json
import warnings
from pathlib import Path
from typing import Any

import pytest
import small
from tokenizers import AddedToken

from demur.models.chat import Chat
from demur.types import DemurError, DemurWarning, Message, Prompt

TURNS = "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
OPENS = "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
CHATML = TURNS + OPENS


def tokenizer_of(template: str, *added: Any) -> Any:
    tokenizer = copy.deepcopy(small.byte_level())
    tokenizer.add_special_tokens({"additional_special_tokens": list(added)})
    tokenizer.chat_template = template
    return tokenizer


def said(tokenizer: Any) -> list[str]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        Chat(tokenizer).described()
    return [str(one.message) for one in caught if issubclass(one.category, DemurWarning)]


ODD = {
    "where none is asked for": CHATML.replace("if add", "if not add"),
    "never": TURNS,
    "twice": CHATML + "<|im_start|>assistant\n",
    "as the user": CHATML.replace("<|im_start|>assistant", "<|im_start|>user"),
    "under another name": CHATML.replace("<|im_start|>assistant", "<|im_start|>bot"),
    "with a user's turn behind it": CHATML + "{% if add_generation_prompt %}<|im_end|>\n<|im_start|>user\n{% endif %}",
}


@pytest.mark.parametrize("how", ODD)
def test_an_answer_that_is_opened_otherwise_than_earlier_ones_is_said(how: str) -> None:
    assert any("opens an answer by" in line for line in said(tokenizer_of(ODD[how], "<|im_start|>", "<|im_end|>")))


USED = {
    "ChatML": CHATML,
    "a thought opened": CHATML.replace("assistant\n{% endif", "assistant\n<think>\n{% endif"),
    "no thought": CHATML.replace("assistant\n{% endif", "assistant\n<think>\n\n</think>\n\n{% endif"),
    "Mistral": "{% for m in messages %}{% if m.role == 'user' %}[INST] {{ m.content }} [/INST]{% else %}"
    " {{ m.content }}</s>{% endif %}{% endfor %}",
    "Gemma": "{% for m in messages %}<start_of_turn>{{ 'model' if m.role == 'assistant' else m.role }}\n{{ m.content }}"
    "<end_of_turn>\n{% endfor %}{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}",
    "channels": "{% for m in messages %}<|start|>{{ m.role }}{{ '<|channel|>final' if m.role == 'assistant' }}"
    "<|message|>{{ m.content }}<|end|>{% endfor %}<|start|>assistant",
    "Vicuna": "{% for m in messages %}{{ 'USER: ' if m.role == 'user' else 'ASSISTANT: ' }}{{ m.content }} {% endfor %}"
    "{% if add_generation_prompt %}ASSISTANT:{% endif %}",
    "Alpaca": "{% for m in messages %}### {{ 'Instruction' if m.role == 'user' else 'Response' }}:\n{{ m.content }}\n\n"
    "{% endfor %}{% if add_generation_prompt %}### Response:\n{% endif %}",
    "Zephyr, whose marks are letters": "{% for m in messages %}<|{{ m.role }}|>\n{{ m.content }}</s>\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>\n{% endif %}",
    "one that asks for a verdict": "User: {{ messages[-1].content }}\n" + "Is the user's message safe? Say why. " * 9,
}


@pytest.mark.parametrize("which", USED)
def test_templates_in_use_are_not_spoken_of(which: str) -> None:
    assert said(tokenizer_of(USED[which])) == []


def test_a_request_that_is_written_twice_is_said() -> None:
    twice = CHATML.replace("{{ m.content }}", "{{ m.content }} {{ m.content }}")
    assert any("a request more than once" in line for line in said(tokenizer_of(twice)))


@pytest.mark.parametrize("how", ["split", "single", "not at all"])
def test_a_mark_that_is_split_into_letters_is_said(how: str, tmp_path: Path) -> None:
    marks = [AddedToken(one, special=True, single_word=how == "single") for one in ("<|im_start|>", "<|im_end|>")]
    tokenizer = tokenizer_of(CHATML, *marks)
    tokenizer.split_special_tokens = how == "split"
    assert any("splits it into letters" in line for line in said(tokenizer)) is (how != "not at all")


@pytest.mark.parametrize(
    ("marks", "odd"),
    [
        (["<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"], True),
        (["<|im_start|>", "<|im_end|>"], False),
        (["<|im_start|>", "<|im_end|>", "<|start_header_id|>", "<|eot_id|>"], False),
        (["<|fim_prefix|>", "<|fim_suffix|>"], False),
        ([], False),
    ],
)
def test_a_template_of_another_tokenizer_is_said(marks: list[str], odd: bool) -> None:
    assert any("may be another model's" in line for line in said(tokenizer_of(CHATML, *marks))) is odd


@pytest.mark.parametrize(
    "marks", [["<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"], ["<|im_start|>", "<|im_end|>"]]
)
def test_marks_that_are_learnt_as_letters_are_no_other_models(marks: list[str]) -> None:
    """Tulu's template on the tokenizer of Llama 3, and OLMo's on its own; with a foreign end it is another one's."""
    zephyr = USED["Zephyr, whose marks are letters"]
    assert said(tokenizer_of(zephyr, *marks)) == []
    assert any(
        "may be another model's" in line for line in said(tokenizer_of(zephyr.replace("</s>", "<|end|>"), *marks))
    )


@pytest.mark.parametrize(
    "asked",
    [
        Prompt("p", "abc\ud83d"), Prompt("p", "\ude00abc"), Prompt("p", "hi", system="\ud800"),
        Prompt("p", "hi", prefill="\udfff"), Prompt("p", json.loads('"\\ud83d tail"')),
        Prompt("p", "hi", messages=[Message("user", "a\ud83d"), Message("assistant", "b")]),  # type: ignore[arg-type]
    ],
)  # fmt: skip
@pytest.mark.parametrize("template", [CHATML, None])
def test_half_a_sign_is_one_line(asked: Prompt, template: str | None) -> None:
    if template is None and (asked.system or asked.messages):
        return
    tokenizer = tokenizer_of(template or "")
    tokenizer.chat_template = template
    with pytest.raises(DemurError, match="half a sign"):
        Chat(tokenizer).encode([asked], length=1, context=None)
