"""A real server on this machine that speaks the protocol of OpenAI-compatible endpoints, well or badly."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from demur.judges import endpoint


class Server(ThreadingHTTPServer):
    """Answers each request by ``act(handler, number)``; counts requests, those under way, and keeps what came."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, act: Callable[[Handler, int], None]) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.act, self.lock = act, threading.Lock()
        self.bodies: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.times: list[float] = []
        self.now = self.peak = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/v1"

    @property
    def count(self) -> int:
        return len(self.bodies)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that went away is not this test's business."""


class Handler(BaseHTTPRequestHandler):
    server: Server
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        server = self.server
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with server.lock:
            server.bodies.append(body)
            server.headers.append({k.lower(): v for k, v in self.headers.items()})
            server.times.append(time.monotonic())
            server.now += 1
            server.peak = max(server.peak, server.now)
            number = server.count
        try:
            if self.path == "/v1/chat/completions":
                server.act(self, number)
            else:
                self.send(404, "{}")
        finally:
            with server.lock:
                server.now -= 1

    def send(self, status: int, body: str, *, promise: int | None = None, **headers: str) -> None:
        data = body.encode()
        self.send_response(status)
        for name, value in {"Content-Type": "application/json", **headers}.items():
            self.send_header(name.replace("_", "-"), value)
        self.send_header("Content-Length", str(len(data) if promise is None else promise))
        self.end_headers()
        with self.server.lock:  # no longer under way once the client can know of it
            self.server.now -= 1
        self.wfile.write(data)
        with self.server.lock:
            self.server.now += 1

    def answer(self, text: str | None, *, end: str = "stop", tokens: int | None = 10) -> None:
        choice = {"index": 0, "finish_reason": end, "message": {"role": "assistant", "content": text}}
        body: dict[str, Any] = {"id": "1", "object": "chat.completion", "created": 0, "model": "m", "choices": [choice]}
        if tokens is not None:
            body["usage"] = {"prompt_tokens": tokens - 1, "completion_tokens": 1, "total_tokens": tokens}
        self.send(200, json.dumps(body))

    def log_message(self, *_: Any) -> None:
        """Silence."""


@contextmanager
def serving(act: Callable[[Handler, int], None] | str, again_after: float = 0.01) -> Iterator[Server]:
    """A server while the block runs; requests that fail are sent again after ``again_after`` seconds."""
    text = act
    server = Server((lambda handler, _: handler.answer(text)) if isinstance(text, str) else act)  # type: ignore[arg-type]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    usual, endpoint.AGAIN_AFTER = endpoint.AGAIN_AFTER, again_after
    try:
        yield server
    finally:
        endpoint.AGAIN_AFTER = usual
        server.shutdown()
        server.server_close()
        thread.join()


def nowhere() -> str:
    """An address where nothing listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{probe.getsockname()[1]}/v1"


def scored(score: object, why: str = "because") -> str:
    return json.dumps({"score": score, "why": why})
