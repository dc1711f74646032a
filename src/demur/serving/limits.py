"""What one client may cost: sizes, counts and times. Each has a number, and each number an error that names it."""

from __future__ import annotations

from dataclasses import dataclass, fields

from demur.types import DemurError


@dataclass(frozen=True)
class Limits:
    """Every bound of a server.

    ``body`` is in bytes, ``depth`` counts brackets of JSON. ``prompt`` and ``answer`` are tokens. ``rows`` are
    generated at once, ``waiting`` requests wait for a place. ``seconds`` is what a request may take from its arrival to
    its end, ``body_seconds`` what its body may take to come, ``grace`` what running answers get when the server stops.
    """

    body: int = 1 << 20
    depth: int = 16
    messages: int = 256
    prompt: int = 8192
    answer: int = 2048
    stops: int = 16
    stop_length: int = 256
    rows: int = 8
    waiting: int = 64
    seconds: float = 300.0
    body_seconds: float = 15.0
    grace: float = 30.0

    def __post_init__(self) -> None:
        for each in fields(self):
            least = 0 if each.name in ("waiting", "grace") else 1
            if getattr(self, each.name) < least:
                raise DemurError(f"{each.name}={getattr(self, each.name)}", f"at least {least}", "raise it")
