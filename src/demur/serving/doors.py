"""Who may come in: hosts, origins, keys; and what every answer carries. It stands around the application.

A page of the web that somebody has open can send requests to this machine. It can not choose the names ``Host`` and
``Origin``: so a request whose host is none of this server's (DNS rebinding), or that comes from another origin, is
refused before anything of it is read.
"""

from __future__ import annotations

import json
import re
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Protocol

from demur.serving.errors import Refused, unavailable
from demur.serving.keys import Keys
from demur.serving.logs import Log

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

OPEN = ("/health", "/ready")
"""Paths that need no key: they say one word."""
HEADERS = {
    b"content-security-policy": b"default-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'",
    b"x-content-type-options": b"nosniff",
    b"x-frame-options": b"DENY",
    b"referrer-policy": b"no-referrer",
    b"cross-origin-resource-policy": b"same-origin",
    b"cache-control": b"no-store",
}
_HOST = re.compile(r"(\[[0-9a-fA-F:.]+\]|[A-Za-z0-9.-]{1,253})(?::\d{1,5})?")
_ORIGIN = re.compile(r"https?://(.+)")


class Counted(Protocol):
    """Who counts requests."""

    def request(self, endpoint: str, outcome: str) -> None:
        """One has ended so."""
        ...


class Behind(Protocol):
    """What stands behind doors: the names by which it may be called, its keys, and who counts and writes."""

    keys: Keys
    log: Log

    @property
    def names(self) -> frozenset[str]:
        """Hosts that a request may name, in lower case."""
        ...

    @property
    def meters(self) -> Counted:
        """Who counts."""
        ...


class Doors:
    """The application, behind its doors. What the application raises leaves as 503, without a word of it."""

    def __init__(self, app: App, service: Behind) -> None:
        self.app, self.service = app, service

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        if scope["type"] != "http":
            await send({"type": "websocket.close", "code": 1008})
            return
        begun = False

        async def dressed(message: Message) -> None:
            nonlocal begun
            if message["type"] == "http.response.start":
                begun = True
                own = [(name, value) for name, value in message.get("headers", []) if name.lower() not in HEADERS]
                message["headers"] = [*own, *HEADERS.items()]
            await send(message)

        try:
            self._check(scope)
        except Refused as why:
            self.service.meters.request("other", "turned_away")
            await answer(dressed, why)
            return
        try:
            await self.app(scope, receive, dressed)
        except Exception as error:  # no word of it leaves
            self.service.log.fault(error)
            if not begun:
                await answer(dressed, unavailable("something failed in this server", "failed"))

    def _check(self, scope: Scope) -> None:
        headers = scope["headers"]

        def every(name: bytes) -> list[str]:
            return [value.decode("latin-1") for key, value in headers if key == name]

        hosts = every(b"host")
        if len(hosts) != 1 or self._name_of(hosts[0]) not in self.service.names:
            then = "the server's operator names others with --allowed-host"
            raise Refused(403, f"a host that is none of this server's; expected one of its names; {then}", code="host")
        origins = every(b"origin")
        for origin in origins:
            match = _ORIGIN.fullmatch(origin)
            if match is None or match[1] != hosts[0]:
                raise Refused(403, "a request from a page of another origin; this server answers none", code="origin")
        if any(site == "cross-site" for site in every(b"sec-fetch-site")):
            raise Refused(403, "a request from a page of another site; this server answers none", code="origin")
        if self.service.keys and scope["path"] not in OPEN:
            said = every(b"authorization")
            scheme, _, key = said[0].partition(" ") if len(said) == 1 else ("", "", "")
            if scheme.lower() != "bearer" or not self.service.keys.let_in(key.strip()):
                raise Refused(
                    401, "no API key, or one that is not known; expected Authorization: Bearer KEY", code="key"
                )

    @staticmethod
    def _name_of(host: str) -> str:
        match = _HOST.fullmatch(host)
        return match[1].lower() if match else ""


async def answer(send: Send, why: Refused) -> None:
    """Sends an error."""
    body = json.dumps(why.body, allow_nan=False).encode("ascii")
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    headers += [(name.lower().encode(), value.encode()) for name, value in why.headers.items()]
    if why.status == 401:
        headers.append((b"www-authenticate", b"Bearer"))
    await send({"type": "http.response.start", "status": why.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
