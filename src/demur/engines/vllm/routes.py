"""``vllm.endpoint_plugins``: verdicts over HTTP, beside the OpenAI routes. Loaded where ``VLLM_PLUGINS`` names demur.

A verdict is found under the id of the answer. vLLM makes it of the header ``X-Request-Id``; where a client sends none,
one is drawn here, so that the process that admits the request knows it.
"""

from __future__ import annotations

import secrets
from typing import Any

from demur.engines.vllm.options import GUARD, REQUEST, operators, tag_of
from demur.types import DemurError

_HEADER = b"x-request-id"
TOLD = b"x-demur-id"
"""The header of every answer that says under which id its verdict is kept, unless the request says ``demur_id``."""
_BEGINNINGS = ("chatcmpl-", "cmpl-", "resp_")


class WithId:
    """ASGI: every HTTP request has an id, which is known while it is admitted, and told in a header of the answer: some
    routes give their answers other ids.
    """

    def __init__(self, app: Any) -> None:
        self.app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Passes on, with the id in the header and in :data:`REQUEST`."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        said = next((value.decode("latin-1") for name, value in scope["headers"] if name == _HEADER), "")
        tag = said or secrets.token_hex(16)
        if not said:  # one without a value is none
            others = [header for header in scope["headers"] if header[0] != _HEADER]
            scope = {**scope, "headers": [*others, (_HEADER, tag.encode())]}
        token = REQUEST.set(tag_of(tag))

        async def telling(message: Any) -> None:
            if message["type"] == "http.response.start":
                told = (TOLD, tag_of(tag).encode("ascii"))
                message = {**message, "headers": [*message.get("headers", ()), told]}
            await send(message)

        try:
            await self.app(scope, receive, telling)
        finally:
            REQUEST.reset(token)


def bare(id_: str) -> str:
    """An answer's id without what vLLM puts before it."""
    for beginning in _BEGINNINGS:
        if id_.startswith(beginning):
            return id_.removeprefix(beginning)
    return id_


def as_text(counters: dict[str, dict[str, int]]) -> str:
    """Counters in Prometheus's text format."""
    lines = [
        "# HELP demur_requests Requests under a guard since the start, by what came of them.",
        "# TYPE demur_requests gauge",  # one that was put aside and comes back runs again
    ]
    for guard, counts in counters.items():
        for name, count in counts.items():
            lines.append(f'demur_requests{{guard="{guard}",outcome="{name.replace(" ", "_")}"}} {count}')
    return "\n".join(lines) + "\n"


class Routes:
    """``GET /v1/demur`` (guards and counters), ``/v1/demur/metrics``, ``/v1/demur/{id}``."""

    name = "demur"
    required_tasks = ("generate",)

    def __init__(self) -> None:
        self.engine: Any = None

    def attach_router(self, app: Any) -> None:
        """Adds the routes, and gives every request an id."""
        from fastapi import APIRouter
        from fastapi.responses import JSONResponse, PlainTextResponse

        router = APIRouter()

        async def status() -> Any:
            return JSONResponse((await self.engine.collective_rpc("demur_status"))[0])

        async def metrics() -> Any:
            found = (await self.engine.collective_rpc("demur_status"))[0]
            return PlainTextResponse(as_text(found["counters"]))

        async def verdict(request_id: str) -> Any:
            for tag in dict.fromkeys(map(tag_of, (request_id, bare(request_id)))):
                if found := (await self.engine.collective_rpc("demur_verdicts", args=(tag,)))[0]:
                    return JSONResponse({"id": request_id, "verdicts": found})
            why = (
                f"no verdict {request_id!r:.150}: never asked for, forgotten, a request without a guard, or one whose "
                "verdict has another id (its own demur_id, or the header X-Demur-Id of the answer)"
            )
            return JSONResponse({"error": {"message": why, "type": "NotFoundError", "code": 404}}, status_code=404)

        router.add_api_route("/v1/demur", status, methods=["GET"])
        router.add_api_route("/v1/demur/metrics", metrics, methods=["GET"])
        router.add_api_route("/v1/demur/{request_id}", verdict, methods=["GET"])
        app.include_router(router)
        app.add_middleware(WithId)

    async def init_state(self, engine_client: Any, state: Any, args: Any) -> None:
        """Keeps the way to the engine. Raises where the workers can not be asked."""
        del state
        self.engine = engine_client
        extension = "demur.engines.vllm.extension.Extension"
        if operators().guards and getattr(args, "worker_extension_cls", "") != extension:
            raise DemurError(
                f"the routes of {GUARD} without its worker extension",
                extension,
                f"add --worker-extension-cls {extension}",
            )
