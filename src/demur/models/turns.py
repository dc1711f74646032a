"""Whether a chat template tells who said what: turns of different roles stand behind different marks.

A template that loses a turn is seen by what it writes (:mod:`demur.models.chat`). One that writes every turn as the
user's, or runs several together, loses none, and the model reads another conversation all the same.
"""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Sequence

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


_END = re.compile(r"<\|?(?:/s|eos|sep|end\w*|im_end|eot\w*|eom\w*|turn)\|?>", re.IGNORECASE)
"""Marks that end a turn, whoever spoke."""


def _words(text: str) -> set[str]:
    return {*re.findall(r"[^\W\d_]+", text)}


def _warn(what: str) -> None:
    warnings.warn(f"{what}: look at the tokenizer's chat_template", DemurWarning, stacklevel=4)
