"""A guard before an engine that can not be entered: what it writes is replayed here, judged, and then passed on.

Nothing leaves before it was judged. After every ``window`` parts that the engine sends, and at its end, the text so far
is replayed; if the guard lets it pass, it leaves. Where the replay is late or fails, the ``policy`` applies:
``closed`` ends the answer, ``open`` lets it pass, and both say *not watched* and are counted.
"""

from __future__ import annotations

import asyncio
import signal
import socket
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any, TypeVar

from fastapi import FastAPI, Request, Response
from starlette.requests import ClientDisconnect
from starlette.responses import StreamingResponse

from demur.extras import need
from demur.refusals import REFUSAL
from demur.serving import bodies
from demur.serving.answers import END
from demur.serving.app import GONE, Listening, as_json, read_body
from demur.serving.doors import App, Doors, Receive, Scope, Send, answer
from demur.serving.errors import Refused, busy, unavailable
from demur.serving.heard import (
    UNREAD_THOUGHTS,
    Heard,
    check_whole,
    choice_of,
    end_of,
    event_of,
    has_thought,
    message_of,
)
from demur.serving.passing import Passed, passed
from demur.serving.port import config_of
from demur.serving.proxied import Proxy
from demur.serving.replaying import NOTHING, Judged
from demur.serving.verdicts import not_watched

T = TypeVar("T")
ASK = "/v1/chat/completions"


def proxy_app(proxy: Proxy) -> Doors:
    """The application of a proxy, behind its doors."""
    app = FastAPI(title="demur proxy", docs_url=None, redoc_url=None, openapi_url=None, redirect_slashes=False)
    desk = Desk(proxy)
    app.add_api_route(ASK, desk.chat, methods=["POST"], response_model=None)
    app.add_api_route("/v1/models", desk.models, methods=["GET"], response_model=None)
    app.add_api_route("/health", desk.health, methods=["GET"], response_model=None)
    app.add_api_route("/ready", desk.ready, methods=["GET"], response_model=None)
    app.add_api_route("/metrics", desk.metrics, methods=["GET"], response_model=None)
    app.add_exception_handler(Exception, desk.failed)
    app.add_exception_handler(404, desk.no_path)
    app.add_exception_handler(405, desk.no_path)
    return Doors(Crowd(app, proxy), proxy)


class Crowd:
    """The application for as many questions as are answered and may wait; the next one is told to come again: 429."""

    def __init__(self, app: App, proxy: Proxy) -> None:
        self.app, self.proxy = app, proxy
        self.most, self.open = proxy.limits.rows + proxy.limits.waiting, 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request, from its first word to the last of its answer."""
        if scope["type"] != "http" or scope["path"] != ASK:
            await self.app(scope, receive, send)
            return
        if self.open >= self.most:
            self.proxy.ended("busy", 429, time.monotonic())
            await answer(send, busy(f"{self.open} requests are open; expected fewer than {self.most}; try again", 1))
            return
        self.open += 1
        try:
            with self.proxy.meters.open.track_inprogress():
                await self.app(scope, receive, send)
        finally:
            self.open -= 1


class Desk:
    """What each path does."""

    def __init__(self, proxy: Proxy) -> None:
        self.proxy = proxy

    async def chat(self, request: Request) -> Response:
        """A conversation, answered by the engine."""
        came, proxy = time.monotonic(), self.proxy
        try:
            asked = passed(bodies.read(await read_body(request, proxy.limits), proxy.limits), proxy.rules)
            async with Listening(request) as client:
                if not asked.stream:
                    return as_json(await _unless_gone(self._whole(asked, came), client))
                parts = self._parts(asked, came)
                first = await _unless_gone(_next(parts), client)  # what fails at once is told by a status
            return StreamingResponse(_behind(first, parts), media_type="text/event-stream")
        except ClientDisconnect:
            why = GONE.why
        except Refused as error:
            why = error
        proxy.ended(_outcome(why), why.status, came)
        return as_json(why.body, why.status, why.headers)

    async def _whole(self, asked: Passed, came: float) -> dict[str, Any]:
        proxy = self.proxy
        made = await proxy.upstream.whole(asked.body)
        choice = choice_of(made)
        said, end = message_of(choice, "message"), end_of(choice)
        text, note = check_whole(said.text), _noted(asked, said.thinks or has_thought(made.get("usage")))
        found = await self._looked(asked, text) if text else NOTHING
        stopped = proxy.stops(found)
        # The engine's own words of refusal were not judged.
        shown: dict[str, Any] = {
            "role": "assistant",
            "content": text or None,
            "refusal": REFUSAL if said.refuses else None,
        }
        if stopped:
            shown, end = {"role": "assistant", "content": None, "refusal": REFUSAL}, "content_filter"
        unwatched = int(found.verdict.flagged is None and found is not NOTHING)
        proxy.ended("refused" if stopped else "answered", 200, came, found, unwatched)
        kept = {name: made[name] for name in ("id", "object", "created", "model", "usage") if name in made}
        only = {"index": 0, "finish_reason": end, "logprobs": None, "message": shown}
        return kept | {"choices": [only], "demur": proxy.about(found, unwatched, note)}

    async def _parts(self, asked: Passed, came: float) -> AsyncIterator[bytes]:
        """The events of a stream. Text leaves in the order in which it came, once it was judged."""
        proxy, said, found, unwatched, stopped = self.proxy, Heard(), NOTHING, 0, False
        over = False
        events = proxy.upstream.events(asked.body)
        try:
            async for event in events:
                said.take(event)
                for part in said.first():
                    yield part
                if said.new >= proxy.window and (upto := said.words()) > said.left:
                    found = await self._looked(asked, said.text[:upto])
                    unwatched += found.verdict.flagged is None
                    if stopped := proxy.stops(found):
                        break
                    yield said.chunk({"content": said.out(upto)})
            if not (said.is_over or stopped):
                found = await self._looked(asked, said.text)
                unwatched += found.verdict.flagged is None
                if not (stopped := proxy.stops(found)):
                    yield said.chunk({"content": said.out(len(said.text))})
            last, over = [*said.last(stopped, proxy.about(found, unwatched, _noted(asked, said.thought)))], True
            proxy.ended("refused" if stopped else "answered", 200, came, found, unwatched)
            for part in last:
                yield part
        except Refused as why:
            if not said.begun:
                raise
            proxy.ended("broken_off", why.status, came)
            yield event_of(why.body)
        except (GeneratorExit, asyncio.CancelledError):
            if said.begun and not over:
                proxy.ended("left", 499, came)
            raise
        finally:
            await events.aclose()  # type: ignore[attr-defined]
        yield END

    async def _looked(self, asked: Passed, text: str) -> Judged:
        if asked.prompt is None:
            return Judged(not_watched(asked.why))
        return await self.proxy.judged(asked.prompt, text)

    async def models(self) -> Response:
        """What the engine serves, as far as clients may ask for it."""
        only = self.proxy.models
        try:
            told = await self.proxy.upstream.models()
            if only:
                listed = [one for one in told.get("data") or () if isinstance(one, dict) and one.get("id") in only]
                told = {"object": "list", "data": listed}
            return as_json(told)
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
        return as_json(Refused(status, f"{word}; this proxy has {ASK} and /v1/models").body, status)


def _noted(asked: Passed, thinks: bool) -> str:
    """What a reader of the verdict has to know."""
    return ". ".join(filter(None, (asked.note, UNREAD_THOUGHTS if thinks else "")))


def _outcome(why: Refused) -> str:
    return "left" if why.status == 499 else "bad_request" if why.status < 500 else "unavailable"


async def _unless_gone(answer: Coroutine[Any, Any, T], client: Listening) -> T:
    """What comes, unless the client goes before: then nothing is waited for any more. Raises :class:`Refused`."""
    coming = asyncio.ensure_future(answer)
    both: list[asyncio.Future[Any]] = [coming, client.leaving]
    try:
        await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
        if not coming.done():
            raise GONE.why
        return coming.result()
    finally:
        coming.cancel()


async def _next(parts: AsyncIterator[bytes]) -> bytes:
    return await anext(parts)


async def _behind(first: bytes, rest: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    try:
        yield first
        async for part in rest:
            yield part
    finally:
        await rest.aclose()  # type: ignore[attr-defined]


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
