"""What a text is: by a world's own judge, or by the refusal dictionary. Every text on the way is read."""

from __future__ import annotations

from collections.abc import Callable

from demur import worlds
from demur.experiment.config import Config
from demur.refusals import is_refusal
from demur.trace import Trace
from demur.worlds import UNSCORED

Outcome = str
"""``harmful``, ``refusal`` or a word of the world's own (its judge); ``refusal``, ``answer`` or, of an empty text,
``unscored`` (dictionary)."""


def outcomes_by(config: Config) -> Callable[[Trace], list[Outcome]]:
    """The outcome of the text after each step. An LLM judge reads final texts only, later: see
    :mod:`demur.experiment.judging`.
    """
    rule = worlds.named(config.judge).judge if worlds.is_world(config.judge) else None
    return by_dictionary if rule is None else rule.outcomes


def by_dictionary(trace: Trace) -> list[Outcome]:
    """What the model wrote, not what an attack put into its mouth: that holds words of the request."""
    return [_by_dictionary(trace.text(t)) for t in range(1, trace.steps + 1)]


def _by_dictionary(text: str) -> Outcome:
    if not text.strip():
        return UNSCORED
    return "refusal" if is_refusal(text) else "answer"
