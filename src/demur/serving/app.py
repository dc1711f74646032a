"""The application: paths, each a few lines. It stands behind :class:`demur.serving.doors.Doors`.

A path from a client is a name to compare, and never a file to open.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import suppress
from typing import Any

from anyio import to_thread
from fastapi import FastAPI, Request, Response
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from demur.serving import answers, bodies
from demur.serving.asks import Asked, ChatAsked, TextAsked, asked_of
from demur.serving.document import described
from demur.serving.doors import Doors
from demur.serving.errors import Refused, unavailable
from demur.serving.limits import Limits
from demur.serving.order import Done, Drawn, Event, Failed, Order, Said, Ticket
from demur.serving.service import Service

GONE = Failed(Refused(499, "the client has gone"))


def app_of(service: Service) -> Doors:
    """The application of a service, behind its doors."""
    app = FastAPI(
        title="demur",
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
        redirect_slashes=False,
        separate_input_output_schemas=False,
    )
    desk = Desk(service)
    app.add_api_route("/v1/chat/completions", desk.chat, methods=["POST"], response_model=None)
    app.add_api_route("/v1/completions", desk.text, methods=["POST"], response_model=None)
    app.add_api_route("/v1/models", desk.models, methods=["GET"], response_model=None)
    app.add_api_route("/v1/models/{name:path}", desk.model, methods=["GET"], response_model=None)
    app.add_api_route("/health", desk.health, methods=["GET"], response_model=None)
    app.add_api_route("/ready", desk.ready, methods=["GET"], response_model=None)
    app.add_api_route("/metrics", desk.metrics, methods=["GET"], response_model=None)
    app.add_api_route("/openapi.json", desk.document, methods=["GET"], response_model=None)
    app.add_exception_handler(Refused, desk.refused)
    app.add_exception_handler(HTTPException, desk.no_path)
    app.add_exception_handler(Exception, desk.failed)
    return Doors(app, service)


class Desk:
    """What each path does."""

    def __init__(self, service: Service) -> None:
        self.service = service

    # -- answers ----------------------------------------------------------------------------------------------------

    async def chat(self, request: Request) -> Response:
        """An answer to a conversation."""
        return await self._answered("chat", request, ChatAsked, self.service.orders.chat)

    async def text(self, request: Request) -> Response:
        """A continuation of a raw text."""
        return await self._answered("completions", request, TextAsked, self.service.orders.text)

    async def _answered(
        self, endpoint: str, request: Request, kind: type[Asked], order_of: Callable[[Any], Order]
    ) -> Response:
        came, order = time.monotonic(), None
        try:
            if self.service.worker.stopping and self.service.worker.is_well:
                raise unavailable("this server is being stopped", "stopping", retry=5)
            asked = asked_of(
                kind, bodies.read(await read_body(request, self.service.terms.limits), self.service.terms.limits)
            )
            order = await to_thread.run_sync(order_of, asked)
            line = Line(self.service, order, came)
            return await self._streamed(request, line) if order.stream else await self._whole(request, line)
        except ClientDisconnect:
            why = GONE.why
        except Refused as error:
            why = error
        except Exception as error:  # no word of it leaves
            self.service.log.fault(error)
            why = unavailable("something failed in this server", "failed")
        outcome = {499: "left", 429: "busy", 503: "unavailable"}.get(why.status, "bad_request")
        self.service.meters.request(endpoint, outcome)
        self.service.log.request(endpoint, outcome, why.status, time.monotonic() - came, order)
        return _error(why)

    async def _whole(self, request: Request, line: Line) -> Response:
        async with Listening(request) as client:
            while not isinstance(event := await line.next(client), Done):
                pass
        answer = event.answer
        return as_json(answers.whole(line.order, answer, self.service.about(line.order, answer)))

    async def _streamed(self, request: Request, line: Line) -> Response:
        async with Listening(request) as client:
            first = await line.next(client)  # what fails at once is told by a status
        return Stream(self._parts(line, first), lambda: self._left(line))

    async def _parts(self, line: Line, event: Event) -> AsyncIterator[bytes]:
        """The events of a stream."""
        order, speaks = line.order, False
        try:
            for part in answers.begin(order):
                yield part
            while True:
                if isinstance(event, Said):
                    if not speaks:
                        speaks = True
                        self.service.meters.began_to_speak(time.monotonic() - line.came)
                    yield answers.part(order, event.text)
                elif isinstance(event, Drawn):
                    yield answers.drawn(order, event)
                elif isinstance(event, Done):
                    for part in answers.end(order, event.answer, self.service.about(order, event.answer)):
                        yield part
                    return
                event = await line.next()
        except Refused as why:
            self.service.meters.request("chat" if order.chat else "completions", "broken_off")
            self.service.log.request("stream", "broken_off", why.status, time.monotonic() - line.came, order)
            for part in answers.broken(why):
                yield part

    def _left(self, line: Line) -> None:
        """Nobody reads a stream any more: its place is free, if it was not over."""
        if line.leave():
            self.service.meters.request("chat" if line.order.chat else "completions", "left")
            self.service.log.request("stream", "left", 499, time.monotonic() - line.came, line.order)

    # -- what else there is -----------------------------------------------------------------------------------------

    async def models(self) -> Response:
        """The one model."""
        return as_json({"object": "list", "data": [self._model()]})

    async def model(self, name: str) -> Response:
        """The same by its name."""
        if name != self.service.terms.served:
            return _error(Refused(404, "no such model; GET /v1/models lists the one", "model", "model_not_found"))
        return as_json(self._model())

    def _model(self) -> dict[str, Any]:
        head = {"id": self.service.terms.served, "object": "model", "created": 0, "owned_by": "demur"}
        return head | {"demur": self.service.described()}

    async def health(self) -> Response:
        """Whether the server works at all."""
        return _word("ok") if self.service.worker.is_well else _word("the worker has ended", 503)

    async def ready(self) -> Response:
        """Whether it takes requests."""
        worker = self.service.worker
        return _word("ready") if worker.is_alive and not worker.stopping else _word("stopping", 503)

    async def metrics(self) -> Response:
        """For Prometheus."""
        page = self.service.meters.page(self.service.worker)
        return Response(page, media_type="text/plain; version=0.0.4; charset=utf-8")

    async def document(self) -> Response:
        """What can be asked, as OpenAPI says it."""
        return as_json(described(bool(self.service.keys)))

    # -- faults -----------------------------------------------------------------------------------------------------

    async def refused(self, request: Request, error: Exception) -> Response:
        """A request that is not answered."""
        return _error(error if isinstance(error, Refused) else unavailable("something failed", "failed"))

    async def no_path(self, request: Request, error: Exception) -> Response:
        """A path or a method that there is none of."""
        status, headers = getattr(error, "status_code", 404), dict(getattr(error, "headers", None) or {})
        word = "no such path" if status == 404 else "another method than this path has"
        made = _error(Refused(status, f"{word}; GET /openapi.json lists them"))
        made.headers.update(headers)
        return made

    async def failed(self, request: Request, error: Exception) -> Response:
        """Something that should not happen; no word of it leaves."""
        return _error(unavailable("something failed in this server", "failed"))


class Line:
    """An order in the worker's line, and what is told of it: from the worker's thread to this one."""

    def __init__(self, service: Service, order: Order, came: float) -> None:
        self.service, self.order, self.came = service, order, came
        self._loop = asyncio.get_running_loop()
        self._events: asyncio.Queue[Event] = asyncio.Queue()
        self._over = False
        self.ticket: Ticket = service.ticket(order, self._tell, came)

    def _tell(self, event: Event) -> None:
        """From the worker's thread. An answer counts whether or not anybody reads it."""
        if isinstance(event, Done):
            try:
                self.service.answered(self.order, event.answer, self.came)
            except Exception as error:  # who counts or listens may fail: the answer leaves all the same
                self.service.log.fault(error)
        with suppress(RuntimeError):  # the loop is closed: nobody waits
            self._loop.call_soon_threadsafe(self._events.put_nowait, event)

    async def next(self, client: Listening | None = None) -> Event:
        """The next event. Raises :class:`Refused` where there is no answer; of a ``client`` who goes, too."""
        if client is None:
            event = await self._events.get()
        else:
            getting = asyncio.ensure_future(self._events.get())
            both: list[asyncio.Future[Any]] = [getting, client.leaving]
            await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
            if not getting.done():
                getting.cancel()
                self.leave()
                raise GONE.why
            event = getting.result()
        self._over = isinstance(event, Done | Failed)
        if isinstance(event, Failed):
            raise event.why
        return event

    def leave(self) -> bool:
        """Nobody waits for it; whether it was not over."""
        if not self._over:
            self.service.worker.leave(self.ticket)
        return not self._over


class Stream(StreamingResponse):
    """The parts of a stream; ``over`` is called once nobody reads it any more, also where nobody has begun to."""

    def __init__(self, parts: AsyncIterator[bytes], over: Callable[[], object]) -> None:
        super().__init__(parts, media_type="text/event-stream")
        self.over = over

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Sends them."""
        try:
            await super().__call__(scope, receive, send)
        finally:
            self.over()


class Listening:
    """Listens for a client to go while its answer is made."""

    def __init__(self, request: Request) -> None:
        self.request = request
        self.leaving: asyncio.Future[None]

    async def __aenter__(self) -> Listening:
        self.leaving = asyncio.ensure_future(self._listen())
        return self

    async def __aexit__(self, *_: object) -> None:
        self.leaving.cancel()

    async def _listen(self) -> None:
        while (await self.request.receive())["type"] != "http.disconnect":
            pass


async def read_body(request: Request, limits: Limits) -> bytes:
    """The bytes of a body, no more than are allowed and no later. Raises :class:`Refused`."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json" or request.headers.get("content-encoding", "identity").lower() != "identity":
        raise Refused(415, "a body of another type; expected Content-Type: application/json, not compressed")
    length = request.headers.get("content-length", "0")
    if not (length.isascii() and length.isdigit()) or len(length) > 12 or int(length) > limits.body:
        raise bodies.too_large(limits)
    raw = bytearray()
    try:
        async with asyncio.timeout(limits.body_seconds):
            async for chunk in request.stream():
                raw += chunk
                if len(raw) > limits.body:
                    raise bodies.too_large(limits)
    except TimeoutError:
        raise Refused(408, f"a body that took longer than {limits.body_seconds:g} seconds to come") from None
    return bytes(raw)


def as_json(body: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """A response of JSON."""
    return Response(json.dumps(body, allow_nan=False), status, dict(headers or {}), media_type="application/json")


def _error(why: Refused) -> Response:
    return as_json(why.body, why.status, why.headers)


def _word(word: str, status: int = 200) -> Response:
    return as_json({"status": word}, status)
