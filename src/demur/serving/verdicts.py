"""What the guard says of one answer, and the object ``demur`` that goes with it. There is no silent pass: where nobody
looked, the verdict is null and says why.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np

from demur.guards import Guard
from demur.guards.rows import Row
from demur.serving.order import Answer, Mode, Order, Tells
from demur.types import Verdict

BY = "sri-guard"


def not_watched(why: str) -> Verdict:
    """A verdict of nobody."""
    return Verdict(BY, None, None, None, f"not watched: {why}")


def verdict_of(guard: Guard, row: Row, steps: int) -> tuple[Verdict, float | None]:
    """What the guard said of an answer of ``steps`` steps, and the limit of its score. The score is that of the look
    that flagged the row, or of the last one. ``step`` counts from 1, as the guard's.
    """
    looked = min(row.looked, row.steps)
    if not looked:
        return not_watched("it ended before the guard had looked at a step"), None
    limit = _finite(guard.limit_after(row.flagged_at or looked))
    if row.flagged_at:
        score = _finite(row.score)
        why = (
            "the signal is not finite"
            if score is None
            else f"score {score:.3g}, limit {guard.limit_after(row.flagged_at):.3g}"
        )
        return Verdict(BY, True, score, row.flagged_at, f"flagged after step {row.flagged_at}: {why}"), limit
    score = _finite(_last_score(guard, row, looked))
    part = "" if looked >= steps else f"; {steps - looked} further steps were not looked at"
    return Verdict(BY, False, score, None, f"let pass: {looked} steps looked at{part}"), limit


def _last_score(guard: Guard, row: Row, looked: int) -> float:
    last = guard.spec.steps
    if looked > last and row.beyond:
        return 1.0 - row.beyond[looked - last - 1]
    return float(guard.prefix.score_held(row.sigma[None], min(looked, last))[0])


def sigma_of(row: Row) -> list[float]:
    """The signal as far as the guard has seen it."""
    known = row.sigma[: min(row.steps, len(row.sigma))]
    return [float(value) for value in np.concatenate([known, np.array(row.beyond, dtype=np.float64)])]


def told(order: Order, answer: Answer, mode: Mode, hold: int, tells: Tells = "signal") -> dict[str, Any]:
    """The object ``demur``: the same with and without ``stream``."""
    if tells == "verdict" and order.watched:
        answer = _without_numbers(answer)
    verdict = answer.verdict
    mode = mode if order.watched else "not watched"
    made: dict[str, Any] = {
        "verdict": {
            "by": verdict.by,
            "flagged": verdict.flagged,
            "score": rounded(verdict.score),
            "limit": rounded(answer.limit),
            "step": verdict.step,
            "why": verdict.why,
        },
        "mode": mode,
        "hold_back": hold if mode == "held back" else 0,
        "sigma": None if answer.sigma is None else [rounded(value) for value in answer.sigma],
        "looked": answer.looked,
        "steps": answer.steps,
        "sampler": order.named,
        "settings": dict(order.settings),
        "places": order.places,
        "seed": order.seed,
    }
    if order.note:
        made["note"] = order.note
    if answer.refusal is not None:
        made["refusal"] = answer.refusal
    return made


def _without_numbers(answer: Answer) -> Answer:
    """The same, without what the guard has measured."""
    said = {True: "flagged", False: "let pass", None: answer.verdict.why}[answer.verdict.flagged]
    bare = replace(answer.verdict, score=None, why=f"{said}; this server tells no scores")
    return replace(answer, verdict=bare, sigma=None, limit=None)


def rounded(value: float | None) -> float | None:
    """Six digits; null where it is not finite."""
    return None if value is None or not math.isfinite(value) else round(value, 6)


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
