"""From a service to a port, and back: an orderly end loses no answer that has begun.

The first SIGTERM or Ctrl-C stops taking requests: ``/ready`` says 503 and so does every new request, what waits is
refused, and what runs has its time to end. Then the port is closed. The second one ends at once.
"""

from __future__ import annotations

import asyncio
import ipaddress
import signal
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from demur.extras import need
from demur.serving.app import app_of
from demur.serving.port import config_of
from demur.serving.service import Service
from demur.types import DemurError

SIGNALS = (signal.SIGTERM, signal.SIGINT)


@dataclass(frozen=True)
class Address:
    """Where a server listens. ``port`` 0: one that is free."""

    host: str = "127.0.0.1"
    port: int = 8000

    @property
    def is_loopback(self) -> bool:
        """Whether nobody outside of this machine can reach it."""
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False

    @property
    def is_any(self) -> bool:
        """Whether it stands for all addresses of this machine, and so is no name of it."""
        try:
            return ipaddress.ip_address(self.host).is_unspecified
        except ValueError:
            return False

    def check(self, has_keys: bool) -> None:
        """Raises for an address that others reach while nobody needs a key."""
        if not self.is_loopback and not has_keys:
            raise DemurError(
                f"--host {self.host} without API keys",
                "keys wherever others can reach the server",
                "demur serve --new-key makes one; then --api-keys FILE; or leave --host out",
            )

    def bound(self) -> socket.socket:
        """A socket that listens there. Raises where that can not be."""
        family = socket.AF_INET6 if ":" in self.host else socket.AF_INET
        try:
            made = socket.create_server((self.host, self.port), family=family, backlog=1024)
        except (OSError, OverflowError) as error:
            said = getattr(error, "strerror", None) or str(error)
            raise DemurError(
                f"{self.host}:{self.port} can not be listened on ({said})", "a free port of this machine", "--port N"
            ) from None
        return made


class Running:
    """A service on a socket. :meth:`run` blocks until it has ended."""

    def __init__(self, service: Service, listening: socket.socket) -> None:
        self.service, self.listening = service, listening
        limits = service.terms.limits
        clients = 4 * (limits.rows + limits.waiting) + 64
        # By then the worker has ended, or its time is over: what is left are answers on their way out.
        self.server: Any = need("uvicorn", "serve").Server(config_of(app_of(service), clients, grace=5))
        self._asked = 0

    @property
    def port(self) -> int:
        """The port that it listens on."""
        port: int = self.listening.getsockname()[1]
        return port

    def run(self, ready: Callable[[], object] = lambda: None) -> None:
        """Serves until it is told to stop. ``ready`` is called once requests are taken."""
        asyncio.run(self._run(ready))

    def stop(self) -> None:
        """Begins the end: see the module. May be called from any thread; the second call ends at once."""
        self._asked += 1
        self.service.worker.stop(self.service.terms.limits.grace)

    async def _run(self, ready: Callable[[], object]) -> None:
        worker, loop = self.service.worker, asyncio.get_running_loop()
        worker.start()
        serving = asyncio.ensure_future(self.server.serve(sockets=[self.listening]))
        while not (self.server.started or serving.done()):
            await asyncio.sleep(0.01)
        for sign in SIGNALS:
            try:
                loop.add_signal_handler(sign, self.stop)
            except (NotImplementedError, RuntimeError, ValueError):  # Windows, or not the main thread
                break
        ready()
        self.service.log.line("ready", model=self.service.terms.served, port=self.port, mode=self.service.stage.mode)
        while not serving.done() and not self._asked:
            await asyncio.sleep(0.05)
        self.service.log.line("stopping", running=worker.taken, waiting=len(worker.line))
        end_by = time.monotonic() + self.service.terms.limits.grace + 1
        while not (serving.done() or worker.ended or self._asked > 1 or time.monotonic() > end_by):
            await asyncio.sleep(0.02)
        self.server.should_exit = True
        self.server.force_exit = self._asked > 1
        await serving
        self.service.log.line("stopped")


def serve(service: Service, address: Address, ready: Callable[[int], object] = lambda port: None) -> None:
    """Serves at an address until SIGTERM or Ctrl-C. ``ready`` is told the port once requests are taken."""
    address.check(bool(service.keys))
    running = Running(service, address.bound())
    running.run(lambda: ready(running.port))
