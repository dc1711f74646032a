"""Whether a chat template tells who said what: turns of different roles stand behind different marks.

A template that loses a turn is seen by what it writes (:mod:`demur.models.chat`). One that writes every turn as the
user's, or runs several together, loses none, and the model reads another conversation all the same.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Sequence
from typing import Any

from demur.types import DemurError, DemurWarning, Message

PROBE = "Qzx{}vwj probe"
"""A turn's text that no template holds."""


def check_told_apart(
    turns: Sequence[Message], render: Callable[[Sequence[Message]], str], label: str, answered: bool = True
) -> None:
    """Raises where earlier turns of the assistant stand behind what the user's stand behind, although the template has
    a mark for answers; warns where it has none, where answers are opened by another mark than earlier ones have, and
    where a turn is written twice.

    ``render`` writes turns, and opens an answer behind them. ``answered``: the answer is that of the assistant
    who spoke before; a moderation model answers in a voice of its own.
    """
    if not any(turn.role == "assistant" for turn in turns):
        return
    talk = [Message(turn.role, PROBE.format(i)) for i, turn in enumerate(turns)]
    if talk[-1].role == "assistant":  # what stands before a later request tells more than what stands before the first
        talk.append(Message("user", PROBE.format(len(talk))))
    try:
        text = render(talk)
    except Exception:  # it does not take these words, or another turn
        return
    if any(text.count(turn.content) != 1 for turn in talk):
        if all(turn.content in text for turn in talk):
            _warn(f"the chat template writes a turn of prompt {label!r} more than once")
        return
    opening = text[text.index(talk[-1].content) + len(talk[-1].content) :].strip()
    before: dict[str, list[str]] = {"user": [], "assistant": []}
    for i, turn in enumerate(talk):
        if turn.role in before and i:
            end = text.index(talk[i - 1].content) + len(talk[i - 1].content)
            before[turn.role].append(text[end : text.index(turn.content)].strip())
    if alike := {*before["user"]} & {*before["assistant"]}:
        if opening not in alike or any(_words(_END.sub("", mark)) for mark in alike):
            raise DemurError(
                f"the chat template writes the assistant's turns of prompt {label!r} as it writes the user's",
                "a mark of its own for each role",
                "mend the tokenizer's chat_template, or leave the earlier turns out",
            )
        _warn(f"the chat template has no mark that tells the user's turns of prompt {label!r} from the assistant's")
        return
    own = _words(opening) - _words(" ".join(before["user"]))
    if answered and own and not own & _words(" ".join(before["assistant"])):
        _warn(
            f"the chat template opens an answer by {opening[:40]!r}, and writes earlier answers of prompt {label!r} "
            "behind another mark"
        )


def say_unopened(render: Callable[[Sequence[Message]], str]) -> None:
    """Warns where a chat template marks turns, and writes nothing behind a request: neither an end of it nor the
    opening of an answer, so that the model writes on at the request.
    """
    request = PROBE.format(0)
    try:
        text = render([Message("user", request)])
    except Exception:  # what it does not take is told when it is asked
        return
    if text.rstrip().endswith(request) and text.strip() != request and _words(text[: text.index(request)]):
        _warn("the chat template writes nothing behind a request: the model goes on with it instead of answering")


def say_opened(render: Callable[[Sequence[Message], bool], str]) -> None:
    """Warns where what a chat template writes behind a request is not how it begins the assistant's turns: it opens
    none, opens it twice or in another's name. And where it writes the request more than once.

    ``render`` writes turns, with what opens an answer behind them where that is asked for.
    """
    asked = [Message("user", PROBE.format(0)), Message("assistant", PROBE.format(1))]
    try:
        open_, told = render(asked[:1], True), render(asked, False)
    except Exception:  # what it does not take is told when it is asked
        return
    if open_.count(asked[0].content) > 1:
        _warn("the chat template writes a request more than once")
    if not all(told.count(turn.content) == 1 for turn in asked) or open_.count(asked[0].content) != 1:
        return
    opening = open_[open_.index(asked[0].content) + len(asked[0].content) :]
    earlier = told[told.index(asked[0].content) + len(asked[0].content) : told.index(asked[1].content)]
    same = next(
        (i for i, (a, b) in enumerate(zip(opening, earlier, strict=False)) if a != b), min(len(opening), len(earlier))
    )
    names = [sorted(_SPEAKERS.findall(text[same:])) for text in (opening, earlier)]
    if names[0] != names[1] and len(opening) < _QUESTION:
        came = f"by {opening.strip()[:60]!r}" if opening.strip() else "by nothing"
        _warn(f"the chat template opens an answer {came}, and earlier answers by {earlier.strip()[:60]!r}")


_QUESTION = 200
"""So long a text behind a request asks something of it, as templates of moderation models do."""
_SPEAKERS = re.compile(r"(?<![^\W_])(?:assistant|chatbot|bot|gpt|user|human)(?![^\W_])", re.IGNORECASE)
_MARKED = re.compile(r"<\|[^|<>\s]{1,40}\|>")
_IN_LETTERS = ("<|user|>", "<|assistant|>", "<|system|>")
"""Marks that some models learn as letters (Zephyr, Tulu, OLMo), whatever marks their tokenizers have."""
_OF_TURNS = re.compile(r"start|im_end|eot|end_of|user|assistant|system|header|turn|message|role", re.IGNORECASE)


def say_letters(tokenizer: Any, text: str, row: Sequence[int]) -> None:
    """Warns where marks in what a chat template writes are not read as marks: tokens of the tokenizer that are split
    into letters, or marks that are none of its tokens while it has other ones for turns, which the template never
    writes. ``row`` is the text as it is read.
    """
    added = {str(token.content): i for i, token in getattr(tokenizer, "added_tokens_decoder", {}).items()}
    found = [content for content in added if len(content) > 2 and content in text]
    split = [
        content
        for content in found
        if added[content] not in row and not any(content != other and content in other for other in found)
    ]
    vocabulary = tokenizer.get_vocab()
    split += [m for m in _MARKED.findall(text) if m not in added and m in vocabulary and vocabulary[m] not in row]
    if split:
        _warn(
            f"the chat template writes {split[0]!r}, a token of the tokenizer, which splits it into letters "
            "(split_special_tokens, single_word or a missing mark as special in its files)"
        )
    foreign = [mark for mark in dict.fromkeys(_MARKED.findall(text)) if mark not in (*vocabulary, *_IN_LETTERS)]
    unused = [c for c in added if _MARKED.fullmatch(c) and _OF_TURNS.search(c) and c not in text]
    written = [c for c in found if _MARKED.fullmatch(c) and _OF_TURNS.search(c)]
    if foreign and len(unused) > 1 and not written:
        _warn(
            f"the chat template writes {foreign[0]!r}, which is no token of the tokenizer, and never {unused[0]!r}, "
            "which is one: it may be another model's"
        )


_END = re.compile(r"<\|?(?:/s|eos|sep|end\w*|im_end|eot\w*|eom\w*|turn)\|?>", re.IGNORECASE)
"""Marks that end a turn, whoever spoke."""


def _words(text: str) -> set[str]:
    return {*re.findall(r"[^\W\d_]+", text)}


def _warn(what: str) -> None:
    warnings.warn(f"{what}: look at the tokenizer's chat_template", DemurWarning, stacklevel=4)
