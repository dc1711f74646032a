"""A filter of prompts: how surprising they are."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import torch

from demur.defenses.setup import Setup, loaded
from demur.guards.conformal import conformal_threshold
from demur.kinds import check_kinds
from demur.types import DemurError, Need, Prompt, Scoring, Verdict, lacking


@dataclass(frozen=True)
class Perplexity:
    """Flags prompts whose perplexity under a causal model is above a limit (Alon and Kamfonas, arXiv:2308.14132).

    Measured is what the user sends, as in the paper: the request, and each earlier turn of the user by itself. The most
    surprising of them counts, since an attack may stand in any. Not measured are the system prompt, which is the
    operator's, earlier answers and a prefill: these are the model's words, or put into its mouth. Who lets clients
    write them needs another defense for them.

    ``limit`` is in nats a token. :meth:`fitted` sets it on harmless prompts, with the same promise as the guard's. A
    diffusion model has no perplexity of its own: ``model`` is any causal one.
    """

    model: Scoring
    limit: float
    name: ClassVar[str] = "perplexity"
    guarded: ClassVar[bool] = False
    needs: ClassVar[frozenset[Need]] = frozenset({Need.CAUSAL})
    takes: ClassVar[tuple[str, ...]] = ("model", "alpha")

    def __post_init__(self) -> None:
        check_kinds(self, {"limit": self.limit}, self.name)
        if math.isnan(self.limit):  # nothing is above it
            raise DemurError("perplexity with a limit that is no number", "nats a token", "fit it on harmless prompts")

    @classmethod
    def check(cls, settings: Mapping[str, Any]) -> None:
        """Raises for a limit that is none."""
        if not 0 < settings.get("alpha", 0.5) < 1:
            raise DemurError(f"perplexity with alpha {settings['alpha']}", "between 0 and 1", "0.01, say")

    @classmethod
    def made(cls, setup: Setup, model: str | None = None, alpha: float | None = None) -> Self:
        """Under the model of that name, else under the one that is defended."""
        judge = setup.subject if model is None else loaded(model)
        return cls.fitted(judge, setup.calibrate, setup.alpha if alpha is None else alpha)

    @classmethod
    def fitted(cls, model: Scoring, harmless: Sequence[Prompt], alpha: float) -> Self:
        """Calibrated on harmless prompts. Raises for a diffusion model and for too few prompts."""
        if lacking(model, frozenset({Need.CAUSAL})):
            raise DemurError(f"perplexity under the {model.kind} model {model.name}", "a causal model", "name one")
        return cls(model, conformal_threshold(_perplexities(model, harmless), alpha))

    def filter(self, prompts: Sequence[Prompt]) -> list[Verdict]:
        """Flags what is above the limit; the score is nats a token. Where that is no number, it is unscored."""
        return [self._verdict(value) for value in _perplexities(self.model, prompts)]

    def _verdict(self, value: float) -> Verdict:
        if not math.isfinite(value):
            return Verdict("perplexity", None, why=f"a perplexity of {value}")
        return Verdict("perplexity", value > self.limit, value, 0 if value > self.limit else None)


def _perplexities(model: Scoring, prompts: Sequence[Prompt]) -> list[float]:
    """Of each prompt, the mean surprise of the most surprising turn of its user, in nats a token. One that is no number
    is the most surprising of all.
    """
    found = []
    for prompt in prompts:
        turns = [turn.content for turn in prompt.messages if turn.role == "user"] + [prompt.text]
        found.append(max((_perplexity(model, turn) for turn in turns), key=lambda x: math.inf if math.isnan(x) else x))
    return found


def _perplexity(model: Scoring, text: str) -> float:
    """Mean surprise of a text's own tokens, in nats, without the chat template. 0 for fewer than two. A text that is
    longer than the model's context is read in parts of that length, each by itself: what a model says of places that it
    has never seen means nothing.
    """
    ids = model.tokenizer(text, add_special_tokens=False)["input_ids"]
    size = max(getattr(getattr(model, "config", None), "max_position_embeddings", None) or len(ids), 2)
    parts = [part for i in range(0, len(ids), size) if len(part := ids[i : i + size]) > 1]
    if len(parts) < 2:
        return _surprise(model, parts[0]) if parts else 0.0
    scored = sum(len(part) - 1 for part in parts)
    return sum(_surprise(model, part) * (len(part) - 1) for part in parts) / scored


def _surprise(model: Scoring, ids: Sequence[int]) -> float:
    """Mean surprise of tokens behind the first one; one pass."""
    canvas = model.canvas_of([ids], 0)
    score = torch.ones_like(canvas.open)
    score[:, 0] = False
    with torch.no_grad():
        logits = model.forward(canvas, score).logits.float()
    return float(torch.nn.functional.cross_entropy(logits, canvas.ids[0, 1:].to(logits.device)))
