"""What a client is told when it gets no answer: a status, and OpenAI's error object."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from demur.types import DemurError, TooLong

TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    429: "rate_limit_error",
    503: "server_error",
}


@dataclass(eq=False)  # not frozen: Python writes on exceptions that pass through a context manager
class Refused(Exception):
    """A request that is not answered. ``message`` says what came, what was expected and what to do.

    ``retry`` are seconds after which to try again (0: not said). ``demur`` is what is known of an answer that was
    begun.
    """

    status: int
    message: str
    param: str | None = None
    code: str | None = None
    retry: int = 0
    demur: dict[str, Any] = field(default_factory=dict)

    @property
    def body(self) -> dict[str, Any]:
        """As OpenAI's error object."""
        kind = TYPES.get(self.status, "invalid_request_error")
        told: dict[str, Any] = {
            "error": {"message": self.message, "type": kind, "param": self.param, "code": self.code}
        }
        return told | ({"demur": self.demur} if self.demur else {})

    @property
    def headers(self) -> dict[str, str]:
        """What goes with it."""
        return {"Retry-After": str(self.retry)} if self.retry else {}


def wrong(came: str, expected: str, then: str = "", *, param: str | None = None, code: str | None = None) -> Refused:
    """A request that can not be answered as it is: 400."""
    return Refused(400, str(DemurError(came, expected, then)), param, code)


def refused_by(error: DemurError, param: str | None = None) -> Refused:
    """The same of an error that a part of demur has raised."""
    return Refused(400, str(error), param, "context_length_exceeded" if isinstance(error, TooLong) else None)


def busy(message: str, retry: int) -> Refused:
    """Too many wait: 429."""
    return Refused(429, message, None, "queue_full", max(retry, 1))


def unavailable(message: str, code: str, retry: int = 1, demur: dict[str, Any] | None = None) -> Refused:
    """What is not the client's fault: 503, the one status of its kind that leaves this server."""
    return Refused(503, message, None, code, retry, demur or {})
