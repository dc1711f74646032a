"""The engine behind a proxy: what is sent to it, and what comes back, read with care. It may fail, stall or lie."""

from __future__ import annotations

import codecs
import json
import math
import warnings
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from demur.extras import need
from demur.serving.errors import Refused, unavailable
from demur.types import DemurError, DemurWarning

LARGEST = 8 << 20
"""Bytes of an answer, or of one event of a stream, that are read at most."""


@dataclass(frozen=True, eq=False)
class Upstream:
    """An OpenAI-compatible address that ends in ``/v1``; ``key`` goes with every request, and is never shown.

    ``seconds`` is the longest silence. Raises for an address that is none.
    """

    url: str
    key: str = field(default="", repr=False)
    seconds: float = 120.0

    def __post_init__(self) -> None:
        parts = urlsplit(self.url)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.username or parts.query:
            then = "for example: --upstream http://127.0.0.1:8001/v1"
            raise DemurError("an upstream that is no plain http address", "http://host:port/v1", then)
        if not parts.path.strip("/"):
            came = "the upstream's address has no path, and engines answer under one, mostly /v1"
            warnings.warn(f"{came}: is {self.place}/v1 meant?", DemurWarning, stacklevel=4)

    @property
    def place(self) -> str:
        """The address, for messages."""
        return self.url.rstrip("/")

    @asynccontextmanager
    async def _sent(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> AsyncIterator[Any]:
        """A response whose body is not read yet. Raises :class:`Refused` where none comes."""
        httpx = need("httpx", "serve")
        headers = {"Accept-Encoding": "identity"} | ({"Authorization": f"Bearer {self.key}"} if self.key else {})
        async with httpx.AsyncClient(timeout=self.seconds, follow_redirects=False, trust_env=False) as client:
            request = client.build_request(method, f"{self.place}{path}", json=body, headers=headers)
            try:
                response = await client.send(request, stream=True)
            except httpx.HTTPError as error:
                raise unavailable(f"the engine gave no answer ({type(error).__name__})", "upstream") from None
            try:
                yield response
            except httpx.HTTPError as error:
                raise unavailable(f"the engine broke off ({type(error).__name__})", "upstream") from None
            finally:
                await response.aclose()

    async def models(self) -> dict[str, Any]:
        """What the engine serves."""
        async with self._sent("GET", "/models") as response:
            return await _read(response)

    async def whole(self, body: Mapping[str, Any]) -> dict[str, Any]:
        """An answer. Raises :class:`Refused`, with the engine's own status where the request is at fault."""
        async with self._sent("POST", "/chat/completions", body) as response:
            return await _read(response)

    async def events(self, body: Mapping[str, Any]) -> AsyncIterator[dict[str, Any]]:
        """The chunks of a stream, until its ``[DONE]``. Raises as :meth:`whole`, and where it ends without."""
        async with self._sent("POST", "/chat/completions", body) as response:
            if response.status_code != 200:
                await _read(response)
            if "text/event-stream" not in response.headers.get("content-type", ""):
                raise unavailable("the engine answered a stream with something else", "upstream")
            data: list[str] = []
            async for line in _lines(response):
                name, _, value = line.partition(":")
                value = value.removeprefix(" ")
                if name == "error" or (name == "event" and value == "error"):
                    raise unavailable("the engine broke off with an error", "upstream")
                if name == "data":
                    data.append(value)
                elif not line and data:
                    event, data = "\n".join(data), []
                    if event.strip() == "[DONE]":
                        return
                    yield _object(event)
            if "\n".join(data).strip() == "[DONE]":  # some leave out the last empty line
                return
        raise unavailable("the engine's stream ended before its end", "upstream")


async def _lines(response: Any) -> AsyncIterator[str]:
    """Lines of a stream, each of bounded length; a mark of the byte order before the first one is none of it."""
    rest, first = b"", True
    async for chunk in response.aiter_bytes():
        rest += chunk
        *lines, rest = rest.split(b"\n")
        if len(rest) > LARGEST:
            raise unavailable("the engine sent a line that is too long", "upstream")
        for line in lines:
            yield _decoded(line.removeprefix(codecs.BOM_UTF8 if first else b"").removesuffix(b"\r"))
            first = False
    if rest:
        yield _decoded(rest.removesuffix(b"\r"))


def _decoded(raw: bytes | bytearray) -> str:
    """Bytes as text. Raises for what is none: no sign is put in the place of a broken one."""
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        raise unavailable("the engine sent bytes that are no UTF-8", "upstream") from None


async def _read(response: Any) -> dict[str, Any]:
    """The object of a response. Raises :class:`Refused` for an error of the engine: 4xx with its own words."""
    raw = bytearray()
    async for chunk in response.aiter_bytes():
        raw += chunk
        if len(raw) > LARGEST:
            raise unavailable("the engine sent an answer that is too long", "upstream")
    if response.status_code == 200:
        return _object(_decoded(raw.removeprefix(codecs.BOM_UTF8)))
    try:
        said = json.loads(raw)["error"]
        message, param, code = (said.get(name) for name in ("message", "param", "code"))
    except (ValueError, LookupError, TypeError, AttributeError):
        message = param = code = None
    status = response.status_code
    if status in (400, 404, 408, 413, 415, 422, 429):
        words = str(message)[:500] if message else f"the engine answered with status {status}"
        retry = response.headers.get("retry-after", "")
        raise Refused(
            400 if status == 422 else status, words, _text(param), _text(code), int(retry) if retry.isdigit() else 0
        )
    raise unavailable(f"the engine answered with status {status}", "upstream")


def _no_number(name: str) -> Any:
    raise ValueError(f"{name}, which JSON does not know")


def _real(digits: str) -> float:
    if not math.isfinite(number := float(digits)):
        raise ValueError("a number that is too large")
    return number


def _text(value: Any) -> str | None:
    return value[:120] if isinstance(value, str) else None


def _object(text: str) -> dict[str, Any]:
    try:
        found = json.loads(text, parse_constant=_no_number, parse_float=_real)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise unavailable("the engine sent something that is no JSON object", "upstream")
    if found.get("error") or ("error" in found and "choices" not in found):
        raise unavailable("the engine broke off with an error", "upstream")
    return found
