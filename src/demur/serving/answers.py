"""Answers in OpenAI's shape, whole and in parts. Whoever puts the parts together has the whole."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from demur.serving.errors import Refused
from demur.serving.order import Answer, Drawn, Order

END = b"data: [DONE]\n\n"


def whole(order: Order, answer: Answer, demur: Mapping[str, Any]) -> dict[str, Any]:
    """The body of an answer without ``stream``."""
    choice: dict[str, Any] = {"index": 0, "finish_reason": answer.finish, "logprobs": None}
    if order.chat:
        content = answer.text if answer.text or answer.refusal is None else None
        choice["message"] = {"role": "assistant", "content": content, "refusal": answer.refusal}
    else:
        choice["text"] = answer.text
    kind = "chat.completion" if order.chat else "text_completion"
    return _head(order, kind) | {"choices": [choice], "usage": usage(order, answer), "demur": dict(demur)}


def usage(order: Order, answer: Answer) -> dict[str, int]:
    """Tokens read and written; an end of sequence counts, the refusal of a guard does not."""
    read, written = len(order.row), answer.tokens
    return {"prompt_tokens": read, "completion_tokens": written, "total_tokens": read + written}


def begin(order: Order) -> Iterator[bytes]:
    """What a stream begins with."""
    if order.chat:
        yield _event(_chunk(order, {"role": "assistant", "content": ""}))


def part(order: Order, text: str) -> bytes:
    """Some more text."""
    return _event(_chunk(order, {"content": text}))


def drawn(order: Order, event: Drawn) -> bytes:
    """The canvas after a step: an extension, for clients that have asked for it."""
    canvas = {"step": event.step, "text": event.text, "open": event.open}
    return _event(_chunk(order, {}) | {"demur": {"canvas": canvas}})


def end(order: Order, answer: Answer, demur: Mapping[str, Any]) -> Iterator[bytes]:
    """What a stream ends with: the guard's refusal, why it ended, with the object ``demur``, and the usage."""
    if order.chat and answer.refusal is not None:
        yield _event(_chunk(order, {"refusal": answer.refusal}))
    yield _event(_chunk(order, {}, answer.finish) | {"demur": dict(demur)})
    if order.usage:
        yield _event(_chunk(order, {}) | {"choices": [], "usage": usage(order, answer)})
    yield END


def broken(why: Refused) -> Iterator[bytes]:
    """What a stream ends with that will not be whole."""
    yield _event(why.body)
    yield END


def _chunk(order: Order, delta: dict[str, Any], finish: str | None = None) -> dict[str, Any]:
    choice: dict[str, Any] = {"index": 0, "finish_reason": finish, "logprobs": None}
    if order.chat:
        choice["delta"] = delta
    else:
        choice["text"] = delta.get("content", "")
    kind = "chat.completion.chunk" if order.chat else "text_completion"
    made = _head(order, kind) | {"choices": [choice]}
    return made | ({"usage": None} if order.usage else {})


def _head(order: Order, kind: str) -> dict[str, Any]:
    return {"id": order.id, "object": kind, "created": order.created, "model": order.model}


def _event(body: Mapping[str, Any]) -> bytes:
    """One event of a stream. ASCII alone, so that no text can look like the end of one."""
    return f"data: {json.dumps(body, allow_nan=False)}\n\n".encode("ascii")
