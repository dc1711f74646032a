"""A guard before an engine that can not be entered: what it writes is replayed here, judged, and then passed on.

Nothing leaves before it was judged. After every ``window`` parts that the engine sends, and at its end, the text so far
is replayed; if the guard lets it pass, it leaves. Where the replay is late or fails, the ``policy`` applies:
``closed`` ends the answer, ``open`` lets it pass, and both say *not watched* and are counted.
"""

from __future__ import annotations

import json
import signal
import socket
import time
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from fastapi import FastAPI, Request, Response
from pydantic import TypeAdapter, ValidationError
from starlette.responses import StreamingResponse

from demur.extras import need
from demur.guards import REFUSAL
from demur.serving import bodies
from demur.serving.answers import END
from demur.serving.app import as_json, read_body
from demur.serving.asks import Turn
from demur.serving.doors import Doors
from demur.serving.errors import Refused, unavailable, wrong
from demur.serving.orders import conversation_of
from demur.serving.port import config_of
from demur.serving.proxied import Proxy
from demur.serving.replaying import NOTHING, Judged
from demur.serving.verdicts import not_watched
from demur.types import Prompt

TURNS: TypeAdapter[list[Turn]] = TypeAdapter(list[Turn])
UNSAID = ("logprobs", "top_logprobs", "n", "best_of", "tools", "functions", "modalities", "audio", "echo", "suffix")
"""Parameters whose answers hold more than one text: nobody here can judge the rest."""


def proxy_app(proxy: Proxy) -> Doors:
    """The application of a proxy, behind its doors."""
    app = FastAPI(title="demur proxy", docs_url=None, redoc_url=None, openapi_url=None, redirect_slashes=False)
    desk = Desk(proxy)
    app.add_api_route("/v1/chat/completions", desk.chat, methods=["POST"], response_model=None)
    app.add_api_route("/v1/models", desk.models, methods=["GET"], response_model=None)
    app.add_api_route("/health", desk.health, methods=["GET"], response_model=None)
    app.add_api_route("/ready", desk.ready, methods=["GET"], response_model=None)
    app.add_api_route("/metrics", desk.metrics, methods=["GET"], response_model=None)
    app.add_exception_handler(Exception, desk.failed)
    app.add_exception_handler(404, desk.no_path)
    app.add_exception_handler(405, desk.no_path)
    return Doors(app, proxy)


class Desk:
    """What each path does."""

    def __init__(self, proxy: Proxy) -> None:
        self.proxy = proxy

    async def chat(self, request: Request) -> Response:
        """A conversation, answered by the engine."""
        came, proxy = time.monotonic(), self.proxy
        try:
            body = bodies.read(await read_body(request, proxy.limits), proxy.limits)
            prompt = self._prompt(body)
            if body.get("stream"):
                return await self._streamed(body, prompt, came)
            made = await self._whole(body, prompt)
        except Refused as why:
            proxy.meters.request("chat", "bad_request" if why.status < 500 else "unavailable")
            proxy.log.request("proxy", "refused", why.status, time.monotonic() - came)
            return as_json(why.body, why.status, why.headers)
        proxy.log.request("proxy", "answered", 200, time.monotonic() - came)
        return as_json(made)

    def _prompt(self, body: Mapping[str, Any]) -> Prompt | None:
        """The conversation as the replay reads it; None where it can't be read and the policy is open. Raises
        :class:`Refused` for what can not be judged.
        """
        for name in UNSAID:
            if body.get(name) not in (None, False, [], {}, 0, "none") and not (name == "n" and body[name] == 1):
                raise wrong(f"{name}, whose answers this proxy can not judge", "one text", "leave it out", param=name)
        try:
            turns = TURNS.validate_python(body.get("messages"))
            if not turns:
                raise wrong("a request without messages", "one at least", param="messages")
            return conversation_of(turns, self.proxy.limits, may_prefill=False)
        except (ValidationError, Refused) as error:
            if self.proxy.policy == "open":
                return None
            if isinstance(error, Refused):
                raise
            raise wrong(
                "messages that can not be replayed", "texts of system, user and assistant",
                "this proxy passes on nothing that it can not judge (--policy closed)", param="messages",
            ) from None  # fmt: skip

    async def _whole(self, body: Mapping[str, Any], prompt: Prompt | None) -> dict[str, Any]:
        proxy = self.proxy
        made = await proxy.upstream.whole(body)
        choice = _choice(made)
        message = choice.get("message")
        message = message if isinstance(message, dict) else {}
        text = message.get("content")
        if prompt is None:
            found = Judged(not_watched("messages that can not be replayed"))
        elif not isinstance(text, str) or not text:
            found = NOTHING
        else:
            found = await proxy.judged(prompt, text)
        end, stopped = _word(choice.get("finish_reason")), proxy.stops(found)
        shown: dict[str, Any] = {"role": "assistant", "content": text if isinstance(text, str) else None}
        shown["refusal"] = REFUSAL if message.get("refusal") else None  # the engine's own words were not judged
        if stopped:
            shown, end = {"role": "assistant", "content": None, "refusal": REFUSAL}, "content_filter"
        self._count(found, stopped)
        kept = {name: made[name] for name in ("id", "object", "created", "model", "usage") if name in made}
        only = {"index": 0, "finish_reason": end, "logprobs": None, "message": shown}
        unwatched = int(found.verdict.flagged is None and found is not NOTHING)
        return kept | {"choices": [only], "demur": proxy.about(found, unwatched)}

    async def _streamed(self, body: Mapping[str, Any], prompt: Prompt | None, came: float) -> Response:
        parts = self._parts(self.proxy.upstream.events(body), prompt, came)
        first = await anext(parts)  # what fails at once is told by a status
        return StreamingResponse(_behind(first, parts), media_type="text/event-stream")

    async def _parts(
        self, events: AsyncIterator[dict[str, Any]], prompt: Prompt | None, came: float
    ) -> AsyncIterator[bytes]:
        """The events of a stream. Text leaves in the order in which it came, once it was judged."""
        proxy, said, found, unwatched, stopped = self.proxy, Said(), NOTHING, 0, False
        try:
            async for event in events:
                if said.take(event):
                    yield _chunk(said.head, {"role": "assistant", "content": ""})
                if said.new >= proxy.window:
                    found = await self._looked(prompt, said.text)
                    unwatched += found.verdict.flagged is None
                    if stopped := proxy.stops(found):
                        break
                    yield _chunk(said.head, {"content": said.out()})
            if said.new and not stopped:
                found = await self._looked(prompt, said.text)
                unwatched += found.verdict.flagged is None
                if not (stopped := proxy.stops(found)):
                    yield _chunk(said.head, {"content": said.out()})
            self._count(found, stopped)
            for part in said.last(stopped, proxy.about(found, unwatched)):
                yield part
            proxy.log.request("proxy", "stopped" if stopped else "answered", 200, time.monotonic() - came)
        except Refused as why:
            if not said.head:
                raise
            proxy.meters.request("chat", "broken_off")
            yield _event(why.body)
        finally:
            await events.aclose()  # type: ignore[attr-defined]
        yield END

    async def _looked(self, prompt: Prompt | None, text: str) -> Judged:
        if prompt is None:
            return Judged(not_watched("messages that can not be replayed"))
        return await self.proxy.judged(prompt, text)

    def _count(self, found: Judged, stopped: bool) -> None:
        meters, flagged = self.proxy.meters, found.verdict.flagged
        meters.verdicts.labels("not_watched" if flagged is None else "flagged" if flagged else "let_pass").inc()
        meters.request("chat", "refused" if stopped else "answered")
        if flagged is None and found is not NOTHING:
            meters.unwatched.labels(self.proxy.policy).inc()

    async def models(self) -> Response:
        """What the engine serves."""
        try:
            return as_json(await self.proxy.upstream.models())
        except Refused as why:
            return as_json(why.body, why.status, why.headers)

    async def health(self) -> Response:
        """Whether the proxy works."""
        return as_json({"status": "ok"})

    async def ready(self) -> Response:
        """Whether the engine answers."""
        try:
            await self.proxy.upstream.models()
        except Refused as why:
            return as_json({"status": "no engine"}, 503, why.headers)
        return as_json({"status": "ready"})

    async def metrics(self) -> Response:
        """For Prometheus."""
        return Response(self.proxy.meters.page(), media_type="text/plain; version=0.0.4; charset=utf-8")

    async def failed(self, request: Request, error: Exception) -> Response:
        """Something that should not happen; no word of it leaves."""
        return as_json(unavailable("something failed in this proxy", "failed").body, 503)

    async def no_path(self, request: Request, error: Exception) -> Response:
        """A path or a method that there is none of."""
        status = getattr(error, "status_code", 404)
        word = "no such path" if status == 404 else "another method than this path has"
        return as_json(Refused(status, f"{word}; this proxy has /v1/chat/completions and /v1/models").body, status)


@dataclass
class Said:
    """What an engine has said so far in a stream: ``new`` parts of ``text`` were not judged yet, and what stands behind
    ``left`` has not left.
    """

    head: dict[str, Any] = field(default_factory=dict)
    text: str = ""
    left: int = 0
    new: int = 0
    end: str = "stop"
    refused: bool = False
    usage: Any = None

    def take(self, event: Mapping[str, Any]) -> bool:
        """Reads a chunk; whether it was the first one. The engine's own refusal and thoughts are not judged, and do not
        leave.
        """
        first = not self.head
        self.head = self.head or {name: event[name] for name in ("id", "created", "model") if name in event}
        self.usage = event.get("usage") or self.usage
        if event.get("choices"):
            choice = _choice(event)
            delta = choice.get("delta")
            delta = delta if isinstance(delta, dict) else {}
            self.refused = self.refused or bool(delta.get("refusal"))
            self.end = _word(choice.get("finish_reason")) or self.end
            more = delta.get("content")
            if isinstance(more, str) and more:
                self.text, self.new = self.text + more, self.new + 1
        return first

    def out(self) -> str:
        """What leaves now."""
        more, self.left, self.new = self.text[self.left :], len(self.text), 0
        return more

    def last(self, stopped: bool, about: Mapping[str, Any]) -> Iterator[bytes]:
        """What a stream ends with."""
        if stopped or self.refused:
            yield _chunk(self.head, {"refusal": REFUSAL})
        yield _chunk(self.head, {}, "content_filter" if stopped else self.end, {"demur": about})
        if self.usage is not None and not stopped:
            yield _event(self.head | {"object": "chat.completion.chunk", "choices": [], "usage": self.usage})


def _choice(made: Mapping[str, Any]) -> dict[str, Any]:
    """The one choice. Raises for none and for several: what is not judged does not leave."""
    choices = made.get("choices")
    if not isinstance(choices, list) or len(choices) != 1 or not isinstance(choices[0], dict):
        raise unavailable("the engine sent another number of answers than one", "upstream")
    if choices[0].get("index", 0) != 0:
        raise unavailable("the engine sent an answer that nobody asked for", "upstream")
    return choices[0]


def _word(value: Any) -> str | None:
    """Why an answer ended, as far as OpenAI knows the word."""
    return value if value in ("stop", "length", "content_filter") else None


def _chunk(
    head: Mapping[str, Any], delta: dict[str, Any], finish: Any = None, more: Mapping[str, Any] | None = None
) -> bytes:
    choice = {"index": 0, "finish_reason": finish, "logprobs": None, "delta": delta}
    return _event({**head, "object": "chat.completion.chunk", "choices": [choice], **(more or {})})


def _event(body: Mapping[str, Any]) -> bytes:
    return f"data: {json.dumps(body, allow_nan=False)}\n\n".encode("ascii")


async def _behind(first: bytes, rest: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    yield first
    async for part in rest:
        yield part


def server_of(proxy: Proxy, ready: Callable[[], object] = lambda: None) -> Any:
    """A server for :func:`run_proxy`. ``ready`` is called once requests are taken."""
    uvicorn, limits = need("uvicorn", "serve"), proxy.limits

    class Server(uvicorn.Server):  # type: ignore[misc, name-defined]
        async def startup(self, sockets: Any = None) -> None:
            await super().startup(sockets)
            ready()

    return Server(config_of(proxy_app(proxy), limits.rows + limits.waiting + 16, limits.grace))


def run_proxy(proxy: Proxy, listening: socket.socket, ready: Callable[[int], object] = lambda port: None) -> None:
    """Serves until SIGTERM or Ctrl-C; running answers have ``limits.grace`` seconds to end."""
    signal.signal(signal.SIGTERM, lambda *_: None)  # uvicorn ends in order, and then raises the signal once more
    server_of(proxy, lambda: ready(listening.getsockname()[1])).run(sockets=[listening])
