"""Conversations in files: OpenAI's ``role`` and ``content``, ShareGPT's ``from`` and ``value``, as lists or as text."""

from __future__ import annotations

import ast
import json
from collections.abc import Mapping, Sequence
from typing import Any

from demur.prompts.rows import Unreadable, is_unicode, kind_of, plain
from demur.types import DemurError, Message

ROLES: Mapping[str, str] = {
    "system": "system", "developer": "system",
    "user": "user", "human": "user", "prompter": "user",
    "assistant": "assistant", "gpt": "assistant", "chatgpt": "assistant", "model": "assistant", "bot": "assistant",
    "ai": "assistant",
}  # fmt: skip
"""Who speaks, as data sets name it and as :class:`demur.types.Message` does."""
_AS = 'a list such as [{"role": "user", "content": "..."}]'


def is_conversation(value: Any) -> bool:
    """Whether a value is a list of turns, and no text."""
    return isinstance(value, list | tuple) and bool(value) and all(isinstance(turn, Mapping) for turn in value)


def unpacked(value: Any, where: str, column: str) -> Any:
    """The list that a cell of a table holds as text (JSON, or as Python writes it); other values as they are."""
    if isinstance(value, Unreadable | bytes):
        value = plain(value, where, column)
    if not isinstance(value, str) or not value.strip():
        return value
    for read in (json.loads, ast.literal_eval):
        try:
            return read(value.strip())
        except (ValueError, SyntaxError, RecursionError, MemoryError, TypeError):
            continue
    raise DemurError(f"{where}: the column {column!r} holds a text that is no list of messages", _AS)


def turns_of(value: Any, where: str, column: str) -> list[Message]:
    """The turns of a conversation, the system prompt's too. Raises, naming the row, for what is none."""
    value = unpacked(value, where, column)
    if isinstance(value, Mapping) and "messages" in value:
        value = value["messages"]
    if not is_conversation(value):
        raise DemurError(f"{where}: the column {column!r} holds {kind_of(value)}", _AS)
    return [_turn(turn, number, where, column) for number, turn in enumerate(value, 1)]


def _turn(turn: Mapping[str, Any], number: int, where: str, column: str) -> Message:
    said = turn.get("role") or turn.get("from")
    role = ROLES.get(str(said).strip().lower())
    content = next((turn[name] for name in ("content", "value", "text", "refusal") if turn.get(name) is not None), None)
    at = f"{where}: turn {number} of the column {column!r}"
    if role is None:
        told = len(str(said)) < 16 and len(str(said).split()) == 1  # of a column that was swapped, it is the request
        shown = repr(said) if told else f"{kind_of(said)} of {len(str(said))} characters"
        raise DemurError(
            f"{at} is of the role {shown}", "system, user or assistant (human and gpt, too)", "leave such turns out"
        )
    if isinstance(content, list | tuple):
        content = _together(content, at)
    if not isinstance(content, str):
        raise DemurError(
            f"{at} has {'no' if content is None else kind_of(content) + ' as'} content",
            "a text",
            'take the row out (calls of tools have no text), or write "content": "" where the turn says nothing',
        )
    if not is_unicode(content):
        raise DemurError(f"{at} holds half of a surrogate pair", "Unicode text")
    return Message(role, content)


def _together(parts: Sequence[Any], at: str) -> str:
    """The text of a content that comes in parts."""
    texts = [part.get("text") if isinstance(part, Mapping) else part for part in parts]
    if not all(isinstance(text, str) for text in texts):
        raise DemurError(f"{at} has a part that is no text, such as an image", "text alone", "leave such rows out")
    return "".join(map(str, texts))
