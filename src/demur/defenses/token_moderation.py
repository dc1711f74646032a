"""A moderation model that judges an answer token by token, and the place at which it would have stopped it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from typing import TYPE_CHECKING, Any, ClassVar, Self

from demur.defenses.setup import Setup
from demur.kinds import check_kinds
from demur.traces import Trace
from demur.traces.text import text_of
from demur.types import DemurError, Verdict

if TYPE_CHECKING:
    from demur.models.token_moderation import TokenModerator


@dataclass(frozen=True)
class TokenModeration:
    """Qwen3Guard-Stream (arXiv:2510.14276) beside the guard: it reads each token of an answer as it comes.

    The rule is that of the makers' evaluation (``consecutive_unsafe`` in their ``eval_stream.py``). An answer is
    ``Unsafe`` where two tokens in a row are; if none are, it is ``Controversial`` where two in a row are that. An
    Unsafe and a Controversial one, side by side, are neither. Loose, as here by default, Controversial counts as safe;
    ``strict``, as unsafe. The place is that of the level that decides, the second token of its first pair: an Unsafe
    pair comes before a Controversial one, also where this stands earlier in the answer. As there, what the template
    closes the answer's turn with is read too: a harm in the last token alone makes a pair with it.

    ``step`` of a verdict is the subject's step after which that much of the answer was written; the last one for an
    answer that was not written from left to right. ``score``: the highest probability of Unsafe that two tokens in a
    row both have; strict: of Unsafe, or of Controversial, whichever is higher. The rule goes by the likeliest level of
    each token, so no threshold on the score gives it exactly.

    The moderator reads the text in its own tokens: the text of a finished answer is cut up anew, once. What it would
    have said of a half-written word may differ by a token.
    """

    model: TokenModerator
    strict: bool = False
    name: ClassVar[str] = "token-moderation"
    guarded: ClassVar[bool] = False
    takes: ClassVar[tuple[str, ...]] = ("model", "strict")

    def __post_init__(self) -> None:
        check_kinds(self, {"strict": self.strict}, self.name)

    @classmethod
    def check(cls, settings: Mapping[str, Any]) -> None:
        """Raises unless a model is named."""
        if not isinstance(settings.get("model"), str):
            raise DemurError("token-moderation without a model", "its checkpoint", "Qwen/Qwen3Guard-Stream-0.6B, say")

    @classmethod
    def made(cls, setup: Setup, model: str, strict: bool = False) -> Self:
        """By the model of that name."""
        return cls(_loaded(model), strict)

    def review(self, traces: Sequence[Trace]) -> list[Verdict]:
        """A verdict on each finished answer, with the step at which it would have been stopped."""
        answers = [trace.answer() for trace in traces]
        risks = self.model.risks([trace.prompt for trace in traces], answers)
        return [self._verdict(*every) for every in zip(traces, answers, risks, strict=True)]

    def _verdict(self, trace: Trace, answer: str, risks: Any) -> Verdict:
        if not len(risks):
            return Verdict(self.name, None, why="an empty answer")
        if not risks.isfinite().all():  # the largest of what is no number would be Safe
            return Verdict(self.name, None, why="the risks are no numbers")
        levels = [self.model.levels[i] for i in risks.argmax(dim=-1).tolist()]
        of_level = [risks[:, self.model.levels.index(level)].tolist() for level in self._stops]
        score = max((min(pair) for own in of_level for pair in pairwise(own)), default=0.0)
        for level in self._stops:
            if (at := _twice(levels, level)) is not None:
                read = len(self.model.beginning(answer, at + 1))
                why = f"{level} at tokens {at} and {at + 1} of {len(levels)}"
                return Verdict(self.name, True, score, _step(trace, answer, read), why)
        return Verdict(self.name, False, score, why=f"{len(levels)} tokens")

    @property
    def _stops(self) -> tuple[str, ...]:
        return ("Unsafe", "Controversial") if self.strict else ("Unsafe",)


def _twice(levels: Sequence[str], level: str) -> int | None:
    """The index of the second of the first two tokens in a row of a level; None where there are none."""
    return next((i for i in range(1, len(levels)) if levels[i] == levels[i - 1] == level), None)


def _step(trace: Trace, answer: str, read: int) -> int:
    """The step after which the first ``read`` characters of an answer are written, counted from 1."""
    order = trace.commits[:, 1].tolist()
    if order != sorted(order):
        return trace.steps
    tokens, given = trace.tokens().tolist(), len(answer) - len(trace.text())
    for step in range(1, trace.steps + 1):
        if given + len(text_of(tokens[:step], trace.pieces, trace.special)) >= read:
            return step
    return trace.steps


@cache
def _loaded(name: str) -> TokenModerator:
    from demur.models.token_moderation import load_token_moderator

    return load_token_moderator(name)
