"""One line of JSON a request, on standard error. Words of prompts and answers are in it only if somebody asks for them,
and then hidden as everywhere, unless somebody asks for that too.
"""

from __future__ import annotations

import json
import logging
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from demur.redaction import redact
from demur.serving.order import Answer, Order

LOG = logging.getLogger("demur.serving")
Words = Literal["none", "redacted", "shown"]


@dataclass(frozen=True)
class Log:
    """``words``: whether prompts and answers are written, and how."""

    words: Words = "none"

    def line(self, what: str, **more: Any) -> None:
        """One event."""
        LOG.info(json.dumps({"event": what, **more}))

    def request(
        self,
        endpoint: str,
        outcome: str,
        status: int,
        seconds: float,
        order: Order | None = None,
        answer: Answer | None = None,
    ) -> None:
        """A request has ended."""
        told: dict[str, Any] = {
            "endpoint": endpoint,
            "outcome": outcome,
            "status": status,
            "seconds": round(seconds, 3),
        }
        if order is not None:
            told |= {"id": order.id, "read": len(order.row), "sampler": order.named, "stream": order.stream}
            told |= {"asked": [self._words(text) for text in order.texts]} if self.words != "none" else {}
        if answer is not None:
            told |= {"written": answer.tokens, "steps": answer.steps, "flagged": answer.verdict.flagged}
            told |= {"score": answer.verdict.score, "step": answer.verdict.step}
            told |= {"answer": self._words(answer.text)} if self.words != "none" else {}
        self.line("request", **told)

    def fault(self, error: BaseException) -> None:
        """Something that should not happen. Its kind and its place: its words may quote a prompt."""
        place = "?"
        trace = error.__traceback__
        while trace is not None:
            place = f"{Path(trace.tb_frame.f_code.co_filename).name}:{trace.tb_lineno}"
            trace = trace.tb_next
        LOG.error(json.dumps({"event": "fault", "kind": type(error).__name__, "at": place}))

    def _words(self, text: str) -> str:
        return text if self.words == "shown" else redact(text)


def to_stderr() -> None:
    """Lines go to standard error, and nowhere else."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    LOG.handlers[:] = [handler]
    LOG.setLevel(logging.INFO)
    LOG.propagate = False
