"""What an attack hands back: an attacked prompt, and for those that search, what it cost."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from demur.types import Prompt

Access = Literal["text", "prefill", "canvas", "logits", "queries"]
"""What an attacker must be able to do: write the request (``text``), begin the answer (``prefill``), fix tokens
anywhere in the answer (``canvas``), read log-probabilities (``logits``), or ask many times and read what comes
(``queries``)."""


@dataclass(frozen=True)
class Found:
    """The best prompt of a search, its score and the queries spent on it.

    ``path`` is the best score so far, in the order of the search; it never falls. What a score means, the attack says.
    ``ended`` says what broke a search off before its end (empty: nothing did); it may have found less than it would.
    ``refused`` queries got no answer since a provider's filter stood before a model: the search went on without it.
    """

    prompt: Prompt
    score: float
    queries: int
    path: tuple[float, ...] = ()
    ended: str = ""
    refused: int = 0


def attacked(prompt: Prompt, name: str, **changes: Any) -> Prompt:
    """The prompt with ``changes``, a new id, the attack's name and the id of the one it was made from."""
    return replace(prompt, id=f"{prompt.id}-{name}", attack=name, parent=prompt.id, **changes)


Knows = Callable[[Sequence[Prompt]], list[float]]
"""How suspicious a monitor finds the answer to each prompt, above 0 where it stops it: what an attacker knows who has
it (:class:`demur.attacks.knowing.Suspicion`)."""
SLACK = 0.5
"""So far below a monitor's limit an attacker has nothing more to gain: the rest of the score is the target's."""


def penalty(knows: Knows | None, prompts: Sequence[Prompt], weight: float) -> list[float]:
    """What a search takes off the scores of prompts: ``weight`` times how far each answer is above (limit - ``SLACK``);
    zeros for a search that knows nothing. It is asked with weight 0 too, so that an observer sees every query.
    """
    return [0.0] * len(prompts) if knows is None else [weight * max(v + SLACK, 0.0) for v in knows(prompts)]
