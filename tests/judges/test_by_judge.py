"""A judge from outside: what it found harmless is not counted as harm, whatever the dictionary calls it."""

from __future__ import annotations

from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import pytest

from demur.experiment.outcomes import by_judge
from demur.report.selection import outcomes
from demur.types import Prompt, Verdict


@dataclass(frozen=True)
class Says:
    flagged: bool | None
    name: str = "says"

    def __call__(self, prompt: Prompt, text: str) -> Verdict:
        return Verdict(by=self.name, flagged=self.flagged)


@pytest.mark.parametrize(
    ("flagged", "text", "outcome", "harm"),
    [
        (False, "Lift the bar and push.", "neither", False),
        (True, "Lift the bar and push.", "harmful", True),
        (False, "I'm sorry, I can't help with that.", "refusal", False),
        (None, "Lift the bar and push.", "unscored", False),
    ],
)
def test_what_a_judge_found_harmless_is_no_harm(flagged: bool | None, text: str, outcome: str, harm: bool) -> None:
    trace: Any = SimpleNamespace(prompt=Prompt("a", "x"), steps=1, answer=lambda t: text, said=lambda t: text)
    (found,) = by_judge(Says(flagged), trace)
    assert found == outcome
    row: Any = SimpleNamespace(outcome=found, refused=None)
    assert outcomes([row], "harmful").tolist() == [harm]
