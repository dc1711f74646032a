"""A proxy in a thread of this process, and engines before which it stands."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import served
from served import House

from demur.serving import Address, Limits
from demur.serving.proxied import Proxy
from demur.serving.proxy import server_of
from demur.serving.replaying import Replay
from demur.serving.upstream import Upstream
from demur.types import Prompt

LIMITS = Limits(grace=1)
TEXT = "Once upon a time there was a mill."


@dataclass(frozen=True)
class Front(House):
    """The proxy, asked as a server is."""

    proxy: Any = None
    at: int = 0

    @property
    def port(self) -> int:
        return self.at

    def body(self, **more: Any) -> dict[str, Any]:
        return {"model": "m", "messages": [{"role": "user", "content": "Tell me of mills."}]} | more

    def ask(self, **more: Any) -> tuple[int, Any]:
        return self.post("/v1/chat/completions", self.body(**more))


@contextmanager
def proxied(url: str, guard: Any = None, of: Any = None, **more: Any) -> Iterator[Front]:
    """A proxy for an engine until the block ends."""
    replay = Replay(of or served.model(), guard or served.guard())
    proxy = Proxy(Upstream(url), replay, **{"limits": LIMITS} | more)
    listening, ready = Address(port=0).bound(), threading.Event()
    server = server_of(proxy, ready.set)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
    thread.start()
    try:
        assert ready.wait(30)
        yield Front(None, None, proxy=proxy, at=listening.getsockname()[1])  # type: ignore[arg-type]
    finally:
        server.should_exit = True
        thread.join(30)
        assert not thread.is_alive()


def says(text: str = TEXT, **choice: Any) -> Callable[[Any, int], None]:
    """An engine that says a text, whole or a character at a time."""

    def act(handler: Any, number: int) -> None:
        head = {"id": "e1", "created": 1, "model": "m", "object": "x"}
        made = {"index": 0, "finish_reason": "stop", "logprobs": {"content": [{"token": "secret"}]}} | choice
        if not handler.server.bodies[number - 1].get("stream"):
            body = head | {"choices": [made | {"message": {"role": "assistant", "content": text, "refusal": None}}]}
            handler.send(200, json.dumps(body | {"usage": {"total_tokens": 3}}))
            return
        deltas = [{"content": letter, "reasoning_content": "secret"} for letter in text]
        events = [head | {"choices": [{"index": 0, "delta": delta, "finish_reason": None}]} for delta in deltas]
        events.append(head | {"choices": [made | {"delta": {}}]})
        lines = "".join(f"data: {json.dumps(event)}\n\n" for event in events) + "data: [DONE]\n\n"
        handler.send(200, lines, Content_Type="text/event-stream")

    return act


def never() -> Any:
    """A guard that stops nothing."""
    made = served.guard()
    prefix = replace(made.prefix, threshold=replace(made.prefix.threshold, value=1e9))
    return replace(made, prefix=prefix)


class Named:
    """A proxy that is asked for one model."""

    def __init__(self, front: Front, model: str) -> None:
        self.front, self.model = front, model

    def chat(self, prompt: Prompt, **more: Any) -> tuple[int, Any]:
        messages = [{"role": t.role, "content": t.content} for t in prompt.conversation]
        return self.front.ask(model=self.model, messages=messages, **more)


def sends(status: int, body: str, kind: str = "application/json") -> Callable[[Any, int], None]:
    return lambda handler, number: handler.send(status, body, Content_Type=kind)
