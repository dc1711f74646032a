"""Signs that a tokenizer has no token for are no part of what a model reads: said, and an error where none is left."""

from __future__ import annotations

import warnings
from dataclasses import replace
from typing import Any

import pytest
import small
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from demur.models.chat import Chat
from demur.models.lost import lost_in
from demur.traces import teacher_forced
from demur.types import DemurError, DemurWarning, Message, Prompt

TEMPLATE = "{% for m in messages %}{{ 'A' if m['role'] == 'assistant' else 'U' }} {{ m['content'] }} {% endfor %}A"


def of_words(unknown: bool) -> Any:
    """A tokenizer of a few words, with a token for all others, or with none, so that they are passed over."""
    names = ["<unk>", "hello", "you", "U", "A"]
    backend = Tokenizer(models.WordLevel(vocab={n: i for i, n in enumerate(names)}, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.Whitespace()
    if not unknown:
        letters = {sign: i for i, sign in enumerate("abcdefghijklmnopqrstuvwxyz UA")}
        backend = Tokenizer(models.BPE(vocab=letters, merges=[]))
        backend.decoder = decoders.Fuse()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="<unk>" if unknown else None)
    tokenizer.chat_template = TEMPLATE
    return tokenizer


@pytest.mark.parametrize("unknown", [True, False])
def test_a_request_of_which_nothing_is_written_is_one_line(unknown: bool) -> None:
    chat = Chat(of_words(unknown))
    with pytest.raises(DemurError, match="without a token for any of the 5 signs of prompt 'a'") as caught:
        chat.encode([Prompt("a", "日本 語です")], length=2, context=None)
    assert "日" not in str(caught.value)


@pytest.mark.parametrize("unknown", [True, False])
def test_what_is_not_written_of_a_request_is_said_once(unknown: bool) -> None:
    chat = Chat(of_words(unknown))
    asked = [Prompt(name, "hello 日本 you", harmful=True) for name in "abc"]
    with pytest.warns(DemurWarning) as caught:
        chat.encode(asked, length=2, context=None)
    (said,) = [str(one.message) for one in caught]
    assert "no token for 2 signs of prompt 'a', nor for some of 2 other prompts" in said
    earlier = (Message("user", "日本"), Message("assistant", "hello"))
    with pytest.warns(DemurWarning, match="no token for 2 signs"):
        chat.encode([Prompt("a", "hello", messages=earlier)], length=2, context=None)
    with pytest.warns(DemurWarning, match="no token for 2 signs"):
        Chat(of_words(unknown), "日本 you").encode([Prompt("a", "hello")], length=2, context=None)


def test_a_normalizer_that_takes_words_away_is_said() -> None:
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=Tokenizer.from_str(small.byte_level()._tokenizer.to_str()))
    tokenizer.backend_tokenizer.normalizer = normalizers.Replace("not", "")
    assert lost_in(tokenizer, "do not go") == (3, 7)


@pytest.mark.parametrize(
    "text", ["Hi 🙂 é", "It's “naïve” - 5 °C… ﬁne ½ ™", "  two  blanks\n\ttab\u200bz", "नमस्ते", "한국어"]
)
def test_vocabularies_of_bytes_lose_nothing(text: str) -> None:
    for tokenizer in (small.byte_level(), small.sentencepiece_like(True), small.sentencepiece_like(False)):
        assert lost_in(tokenizer, text)[0] == 0
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            Chat(tokenizer).encode([Prompt("a", text)], length=2, context=None)


def test_case_accents_and_blanks_may_be_written_otherwise() -> None:
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=Tokenizer.from_str(small.byte_level()._tokenizer.to_str()))
    tokenizer.backend_tokenizer.normalizer = normalizers.Sequence(
        [normalizers.NFD(), normalizers.StripAccents(), normalizers.Lowercase()]
    )
    assert lost_in(tokenizer, "Où est LE café ?") == (0, 12)


def test_an_answer_that_loses_signs_is_said_and_one_of_which_nothing_is_written_is_an_error(llama: Any) -> None:
    model = replace(llama, tokenizer=of_words(True))
    asked = Prompt("a", "hello you", harmful=False)
    with pytest.warns(DemurWarning, match="some signs of an answer"):
        teacher_forced(model, [asked], ["hello 日本 you"], steps=2)
    with pytest.raises(DemurError, match="without a token for any of the 2 signs of an answer"):
        teacher_forced(model, [asked], ["日本"], steps=2)
