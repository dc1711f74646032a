"""An OpenTelemetry event for each verdict: ``gen_ai.evaluation.result`` (semantic conventions, status: development).

Where it goes is for whoever has set up OpenTelemetry in this process. No word of a prompt or of an answer is in it.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from demur.extras import need
from demur.serving.order import Answer, Order

EVENT = "gen_ai.evaluation.result"


def events(logs: Any = None) -> Callable[[Order, Answer], None]:
    """What tells OpenTelemetry of an answer. ``logs``: its module of that name. Raises where it is not installed."""
    logs = need("opentelemetry._logs", "telemetry") if logs is None else logs
    logger = logs.get_logger("demur.serving")

    def tell(order: Order, answer: Answer) -> None:
        now = time.time_ns()
        logger.emit(
            logs.LogRecord(
                timestamp=now, observed_timestamp=now, event_name=EVENT, attributes=attributes(order, answer)
            )
        )

    return tell


def attributes(order: Order, answer: Answer) -> dict[str, str | float | int]:
    """What the event says."""
    verdict = answer.verdict
    made: dict[str, str | float | int] = {
        "gen_ai.evaluation.name": verdict.by,
        "gen_ai.evaluation.score.label": (
            "not_watched" if verdict.flagged is None else "flagged" if verdict.flagged else "let_pass"
        ),
        "gen_ai.evaluation.explanation": verdict.why,
        "gen_ai.response.id": order.id,
        "gen_ai.response.model": order.model,
    }
    if verdict.score is not None:
        made["gen_ai.evaluation.score.value"] = verdict.score
    if verdict.step is not None:
        made["demur.step"] = verdict.step
    return made
